"""The table and the figure of docs/benchmarks.md, made from one run of `speed.py` for each set of cases.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/all.py              # measures, for half an hour on two cores
    .venv/bin/python benchmarks/all.py --only-draw                    # from docs/benchmarks.json as it is

Measure on a machine that does nothing else. Ratios are to the floor of the same set, as `speed.py` measures it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE, FIGURES = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.json"
PICTURE = ROOT / "docs" / "pictures" / "speed.svg"
BEGIN, END = "<!-- made by benchmarks/all.py -->", "<!-- end of what it made -->"

ARXIV_SIZE = (
    *("dataset.communities=40", "dataset.nodes_per_community=4234", "dataset.classes_per_community=1"),
    *("dataset.p_class=2.6e-3", "dataset.p_out=1.7e-5", "dataset.features=128", "federation.local_epochs=2"),
)
"""A block model of 169,360 nodes, about 1.17 million edges and 128 features, the size of ogbn-arxiv."""


def clients_of_forty_nodes(clients: int) -> tuple[str, ...]:
    """Arguments of `speed.py` for FedAvg on ten communities, with 40 nodes of about six edges for each client."""
    nodes = 4 * clients
    return (
        *("--dataset", "sbm", "--clients", str(clients), "--methods", "fedavg", "--rounds", "5", "--warmup", "2", "--"),
        *("dataset.communities=10", f"dataset.nodes_per_community={nodes}", "dataset.classes_per_community=1"),
        *(f"dataset.p_class={6 / nodes:g}", f"dataset.p_out={0.08 / nodes:g}", "dataset.train_fraction=0.4"),
    )


SETS: Mapping[str, Sequence[Sequence[str]]] = {
    "Cora, disjoint": [("--clients", "10", "50", "--threads", "1", "2", "--rounds", "20")],
    "Cora, overlapping": [
        (
            *("--partition", "overlapping", "--clients", "50", "--threads", "1", "2"),
            *("--runtimes", "inline", "--rounds", "16"),
        )
    ],
    "Cost per client from 10 to 1,000": [clients_of_forty_nodes(clients) for clients in (10, 100, 1000)],
    "Size of ogbn-arxiv, two local epochs": [
        (
            *("--dataset", "sbm", "--clients", "50", "--runtimes", "inline", "--rounds", "7", "--warmup", "2"),
            *("--", *ARXIV_SIZE),
        )
    ],
}
"""Runs of `speed.py` by title, each as its arguments."""


def measured(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of `speed.py` with these arguments."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "rows.json"
        at = arguments.index("--") if "--" in arguments else len(arguments)
        command = [*arguments[:at], "--json", str(found), *arguments[at:]]
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / "speed.py"), *command], check=True)
        rows: list[dict[str, Any]] = json.loads(found.read_text())
    return rows


def name_of(row: Mapping[str, Any]) -> str:
    """A runtime, with its threads where they are several."""
    return row["runtime"] if row["threads"] == 1 else f"{row['runtime']}, {row['threads']} threads"


def table(sets: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """The sets' rows as a Markdown table for each."""
    lines = []
    for title, rows in sets.items():
        lines += [f"**{title}**", ""]
        lines += ["| method | clients | runtime | ms a round | of floor | client | server | transport | peak MiB |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        for row in rows:
            ratio = f"{row['ratio']:.2f}" if row["runtime"] == "floor" else f"**{row['ratio']:.2f}**"
            parts = " | ".join(f"{1e3 * row[part]:.0f}" for part in ("client", "server", "transport"))
            case = f"| {row['method']} | {row['clients']} | {name_of(row)} | {1e3 * row['seconds']:.0f}"
            lines.append(f"{case} | {ratio} | {parts} | {row['memory_mib']:.0f} |")
        lines.append("")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """A bar of each case's ratio to its floor, as SVG."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams["svg.hashsalt"] = "speed"
    import matplotlib.pyplot as plt

    runtimes = list(dict.fromkeys(name_of(row) for row in rows if row["runtime"] != "floor"))
    cases = list(dict.fromkeys((row["method"], row["clients"]) for row in rows))
    figure, axes = plt.subplots(figsize=(6.6, 2.6), layout="constrained")
    for place, runtime in enumerate(runtimes):
        ratios = {(row["method"], row["clients"]): row["ratio"] for row in rows if name_of(row) == runtime}
        at = [k + (place - (len(runtimes) - 1) / 2) * 0.8 / len(runtimes) for k in range(len(cases))]
        bars = axes.bar(at, [ratios.get(case, 0.0) for case in cases], 0.8 / len(runtimes), label=runtime)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.axhline(1.0, color="0.4", linewidth=0.8)
    axes.set_xticks(range(len(cases)), [f"{method}, {clients} clients" for method, clients in cases])
    axes.set_ylabel("of the floor's round")
    axes.legend(fontsize=7, frameon=False, ncols=len(runtimes))
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def write_page(sets: Mapping[str, Sequence[Mapping[str, Any]]], page: Path) -> None:
    """Put the tables between the two marks of the page.

    Raises:
        ValueError: the page lacks a mark.
    """
    text = page.read_text()
    before, rest = text.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    page.write_text(f"{before}{BEGIN}\n\n{table(sets)}\n{END}{after}")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, unless asked only to draw; write figures, table and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only-draw", action="store_true", help="measure nothing")
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), help="measure these alone, and keep the others")
    options = parser.parse_args(argv)
    sets: dict[str, list[dict[str, Any]]] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for title in () if options.only_draw else options.sets or SETS:
        sets[title] = [row for arguments in SETS[title] for row in measured(arguments)]
        FIGURES.write_text(json.dumps(sets, indent=1) + "\n")
    write_page(sets, PAGE)
    draw(sets["Cora, disjoint"], PICTURE)


if __name__ == "__main__":
    main()
