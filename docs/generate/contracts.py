"""The table of what each method sends, made from the methods' contracts."""

from __future__ import annotations

from collections.abc import Iterator

from subfl_flower.composition import composed_config, config_directory
from subfl_flower.config import Config
from subfl_flower.node.run_context import run_context
from subfl_flower.registry import client_class
from subfl_flower.wire.contract import Contract, Declared
from subfl_flower.wire.payload import ArraySpec
from subfl_flower.wire.ragged import RaggedSpec
from subfl_flower.wire.roster import Shape

_FEATURES, _CLASSES = 100_003, 1_009
"""Sizes of an imagined data set; primes, so that a length which depends on them is known by its divisors."""


def contract_table() -> str:
    """A table in Markdown with a row for each method: arrays down, arrays up, phases outside of rounds."""
    lines = ["| `method=` | down, each round | up, each round | before a round |", "|---|---|---|---|"]
    for name, config, _ in methods():
        shape = Shape(_FEATURES, _CLASSES)
        contract = client_class(config.method).contract(run_context(config, shape, run_id=""))
        wide = "features" if config.dataset.kind == "graph" else "items"
        cells = [f"`{name}`", *_directions(contract, wide), ", ".join(f"`{phase}`" for phase in contract.phases)]
        lines.append("| " + " | ".join(cell or "nothing" for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def methods() -> Iterator[tuple[str, Config, tuple[str, ...]]]:
    """Each shipped method with its name in a table, once for each kind of data; and overrides that choose the data."""
    for path in sorted((config_directory() / "method").glob("*.yaml")):
        config, _ = composed_config([f"method={path.stem}"])
        yield path.stem, config, ()
        if path.stem == "fedavg":
            rankings = ("task=ranking", "dataset=synthetic_ratings")
            yield "fedavg task=ranking", composed_config(["method=fedavg", *rankings])[0], rankings


def _directions(contract: Contract, wide: str) -> tuple[str, str]:
    both = {name for name in contract.downloads if name in contract.uploads}
    return _arrays(contract.downloads, both, wide), _arrays(contract.uploads, both, wide)


def _arrays(declared: Declared, both: set[str], wide: str) -> str:
    """Names and shapes; arrays of one module (``conv1.weight``, ``conv1.bias``) are named once."""
    modules = dict.fromkeys(name.partition(".")[0] for name in declared if name in both)
    texts = [f"parameters `{'`, `'.join(modules)}`"] if modules else []
    texts += [f"`{name}` {_size(spec, wide)}" for name, spec in declared.items() if name not in both]
    return "; ".join(texts)


def _size(spec: ArraySpec | RaggedSpec, wide: str) -> str:
    rows = [] if isinstance(spec, ArraySpec) else ["rows"]
    return f"[{', '.join([*rows, *(_length(length, wide) for length in spec.shape)])}] {spec.dtype}"


def _length(length: int, wide: str) -> str:
    """A length in words; `wide` is the name of the data's width, of nodes' features or of items."""
    for prime, name in ((_FEATURES, wide), (_CLASSES, "classes")):
        times, further = divmod(length, prime)
        if times > 0:
            return (name if times == 1 else f"{times} {name}") + (f" + {further}" if further else "")
    return "any" if length < 0 else str(length)
