"""The table of what each method exposes and accepts, made from the methods' contracts and settings."""

from __future__ import annotations

from typing import Any

from contracts import methods  # type: ignore[import-not-found]

from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.errors import SubflError
from subfl_flower.node.run_context import run_context
from subfl_flower.registry import client_class, validate
from subfl_flower.wire.contract import Contract
from subfl_flower.wire.roster import Shape

PROTECTIONS = {
    "noise": {"privacy": "privacy"},
    "secure sums": {"secure_sums.enabled": True},
    "robust rules": {"aggregation.rule": "trimmed_mean"},
}
"""Protections by name, each with the settings that turn it on."""

_SHAPE = Shape(100, 10)


def threat_table() -> str:
    """A table in Markdown: for each method, uploads, questions, figures, downloads, and protections that it accepts."""
    lines = [
        "| `method=` | the operator reads of one client, each round | asked before rounds | figures of one client "
        "| a site receives of others | accepts |",
        "|---|---|---|---|---|---|",
    ]
    PROTECTIONS["noise"]["privacy"] = composed_config(["method=fedgnn", "privacy=gaussian_l2"])[0].plain()["privacy"]
    for name, config, _ in methods():
        contract = client_class(config.method).contract(run_context(config, _SHAPE, run_id=""))
        accepted = [each for each, settings in PROTECTIONS.items() if _accepts(config, settings)]
        cells = [
            f"`{name}`",
            read_by_the_server(contract),
            ", ".join(f"`{phase}`" for phase in contract.phases),
            figures(contract),
            received(contract),
            ", ".join(accepted),
        ]
        lines.append("| " + " | ".join(cell or "nothing" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def read_by_the_server(contract: Contract) -> str:
    """The uploads in words; parameters are those arrays that also go down."""
    return _named(set(contract.uploads), set(contract.uploads) & set(contract.downloads), "trained parameters")


def received(contract: Contract) -> str:
    """The downloads in words."""
    return _named(set(contract.downloads), set(contract.uploads) & set(contract.downloads), "averaged parameters")


def _named(names: set[str], parameters: set[str], called: str) -> str:
    parts = [called] if parameters else []
    return ", ".join([*parts, *(f"`{name}`" for name in sorted(names - parameters))])


def figures(contract: Contract) -> str:
    """The figures that each client sends, in words; ``validation`` and ``test`` have several forms."""
    listed = [name for name, metric in contract.metrics.items() if metric.by_client]
    metrics = [name for name in listed if name.startswith(("validation", "test"))]
    return ", ".join([*(["metrics"] if metrics else []), *(f"`{name}`" for name in listed if name not in metrics)])


def _accepts(config: Config, settings: dict[str, Any]) -> bool:
    """True where a run's settings may be changed so."""
    plain: dict[str, Any] = config.plain()
    for key, value in settings.items():
        section, _, name = key.partition(".")
        if name:
            plain[section] = {**plain.get(section, {}), name: value}
        else:
            plain[section] = value
    try:
        validate(plain)
    except SubflError:
        return False
    return True
