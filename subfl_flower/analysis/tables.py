"""The analyses as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table

from subfl_flower.analysis.comparison import MethodAnalysis
from subfl_flower.analysis.partition_statistics import GraphStatistics, PartitionStatistics
from subfl_flower.analysis.run_analysis import ModelAnalysis
from subfl_flower.evaluation.rows import Spread
from subfl_flower.evaluation.table import MISSING, identity, layout, metric_text, rich_layout, spread_text, unit_suffix

_MOST, _LEAST = "in common, most", "in common, least"
_IN_COMMON = "weights that both clients keep, of those that either keeps (%)"


def partition_table(statistics: PartitionStatistics, heading: str, every_client: bool) -> tuple[Table, str]:
    """Table of sizes and clustering of the clients and the whole graph, with lines on heterogeneity and missing edges.

    Args:
        statistics: statistics of the partition.
        heading: the table's title.
        every_client: give each client a line, not only their mean.
    """
    table = _table(heading, ["", "nodes", "edges", "classes", "clustering"])
    for client_id, client in enumerate(statistics.clients if every_client else ()):
        table.add_row(f"client {client_id}", *_counts(client, ",.0f"))
    table.add_section()
    table.add_row("mean of clients", *_counts(statistics.mean, ",.1f"))
    table.add_row("whole graph", *_counts(statistics.whole, ",.0f"))
    heterogeneity = "unknown" if statistics.heterogeneity is None else f"{statistics.heterogeneity:.3f} bits"
    return table, (
        f"heterogeneity, the median Jensen-Shannon divergence of labels over pairs of clients: {heterogeneity}\n"
        f"missing edges, which no client holds: {statistics.missing_edges:,} of {statistics.whole.edges:,.0f} "
        f"({_percent(statistics.missing_share)} %)\n"
    )


def clients_table(models: ModelAnalysis, heading: str) -> tuple[Table, str]:
    """Table with one line a client: its model on its own and on its neighbour's data, and the weights it shares.

    With it come lines that explain the columns and give the rank correlations.
    """
    found, similarity = models.neighbours, models.similarity
    shared = [models.sharing.most_similar, models.sharing.least_similar] if models.sharing else []
    heads = ["client", "own\ntest", "neighbour's\ntest", "neigh-\nbour", "missing\nedges"]
    heads += ["most\nsimilar", "in\ncommon", "least\nsimilar", "in\ncommon"] if shared else []
    table = _table(heading, heads)
    for client_id, neighbour in enumerate(found.neighbour.tolist()):
        line = [
            str(client_id),
            *(_metric(values[client_id], found.metric) for values in (found.own, found.on_neighbour)),
        ]
        missing = similarity.missing_edges[client_id, neighbour]
        line += [MISSING, MISSING] if neighbour < 0 else [str(neighbour), f"{missing:,}"]
        for other in shared:
            line += [str(other.client[client_id]), _percent(other.jaccard[client_id])]
        table.add_row(*line)
    table.add_section()
    means = [_metric(mean, found.metric) for mean in (found.mean_own, found.mean_on_neighbour)]
    table.add_row("mean", *means, "", "", *(cell for other in shared for cell in ("", _percent(other.mean_jaccard))))
    note = f"test: {found.metric}{unit_suffix(found.metric)} of each client's best model\n"
    note += "neighbour: the client to which the most edges are missing\n"
    note += f"in common: {_IN_COMMON}\n" if shared else ""
    note += f"rank correlation of functional similarity with missing edges: {_number(similarity.with_missing)}"
    if similarity.with_label is not None:
        note += f", with label similarity: {_number(similarity.with_label)}"
    return table, note + "\n"


def methods_table(methods: Sequence[MethodAnalysis]) -> tuple[Table, str]:
    """Table with one line a method: means over clients and rank correlations over pairs of clients, over seeds."""
    lines = []
    for method in methods:
        row = method.row
        lines.append(
            {
                **identity(row),
                "seeds": str(len(method.seeds)),
                "own test": metric_text(method.spread("own"), row.metric),
                "neighbour's test": metric_text(method.spread("on_neighbour"), row.metric),
                "ρ missing edges": spread_text(method.spread("rank_correlation_missing_edges"), 1, 2),
                "ρ labels": spread_text(method.spread("rank_correlation_label"), 1, 2),
                _MOST: spread_text(method.spread("jaccard_most_similar"), 100, 1),
                _LEAST: spread_text(method.spread("jaccard_least_similar"), 100, 1),
                "note": row.note,
            }
        )
    title, heads, cells = layout(lines, {"settings", "note", _MOST, _LEAST}, collapse=True)
    table = rich_layout(f"clients' best models: {title}", heads, cells, [method.row.completed for method in methods])
    note = "ρ: Spearman's rank correlation of functional similarity with it, over pairs of clients\n"
    if _MOST in heads:
        note += f"in common with the most (least) similar client: {_IN_COMMON}\n"
    return table, note


def _table(heading: str, heads: Sequence[str]) -> Table:
    table = Table(title=heading, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(heads[0])
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _counts(graph: GraphStatistics, form: str) -> list[str]:
    counts = [f"{count:{form}}" for count in (graph.nodes, graph.edges)]
    classes = MISSING if graph.classes is None else f"{graph.classes:{form}}"
    return [*counts, classes, f"{graph.clustering:.3f}"]


def _metric(value: float, metric: str) -> str:
    return metric_text(Spread.of([value]), metric)


def _number(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.2f}"


def _percent(share: float) -> str:
    return MISSING if np.isnan(share) else f"{100 * share:.1f}"
