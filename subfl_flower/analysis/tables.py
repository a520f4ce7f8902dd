"""The analyses as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from subfl_flower.analysis.partition_statistics import GraphStatistics, PartitionStatistics
from subfl_flower.analysis.run_analysis import ModelAnalysis
from subfl_flower.evaluation.formats import MISSING, digits, plain, scale, unit_suffix
from subfl_flower.evaluation.rows import Row
from subfl_flower.evaluation.table import Column, make_table, rich_table

_MOST = "in common, most"
_IN_COMMON = "weights that both clients keep, of those that either keeps (%)"


def partition_table(statistics: PartitionStatistics, heading: str, every_client: bool) -> tuple[RichTable, str]:
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
    distance = "unknown" if statistics.label_distance is None else f"{statistics.label_distance:.3f}"
    return table, (
        f"heterogeneity, the median Jensen-Shannon divergence of labels over pairs of clients: {heterogeneity}\n"
        f"as FED-PUB's Table 4 has it, the median distance (square root, nats) over all K x K entries: {distance}\n"
        f"missing edges, which no client holds: {statistics.missing_edges:,} of {statistics.whole.edges:,.0f} "
        f"({_percent(statistics.missing_share)} %)\n"
    )


def clients_table(models: ModelAnalysis, heading: str) -> tuple[RichTable, str]:
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


def methods_table(rows: Sequence[Row]) -> tuple[RichTable, str]:
    """Table with one line a method: means over clients and rank correlations over pairs of clients, over seeds."""
    columns = (
        Column("own test", "own"),
        Column("neighbour's test", "on_neighbour"),
        Column("ρ missing edges", "rank_correlation_missing_edges", plain(1, 2)),
        Column("ρ labels", "rank_correlation_label", plain(1, 2)),
        Column("r averaging, labels", "averaging_correlation_label", plain(1, 2), optional=True),
        Column(_MOST, "jaccard_most_similar", plain(100, 1), optional=True),
        Column("in common, least", "jaccard_least_similar", plain(100, 1), optional=True),
    )
    table = make_table(rows, columns, collapse=True, about="clients' best models")
    note = "ρ: Spearman's rank correlation of functional similarity with it, over pairs of clients\n"
    if "r averaging, labels" in table.heads:
        note += "r: Pearson's correlation of the similarity that clients were averaged by, and of label similarity\n"
    if _MOST in table.heads:
        note += f"in common with the most (least) similar client: {_IN_COMMON}\n"
    return rich_table(table), note


def _table(heading: str, heads: Sequence[str]) -> RichTable:
    table = RichTable(title=Text(heading, style="bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(heads[0])
    for head in heads[1:]:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _counts(graph: GraphStatistics, form: str) -> list[str]:
    counts = [f"{count:{form}}" for count in (graph.nodes, graph.edges)]
    classes = MISSING if graph.classes is None else f"{graph.classes:{form}}"
    return [*counts, classes, f"{graph.clustering:.3f}"]


def _metric(value: float, metric: str) -> str:
    return MISSING if np.isnan(value) else f"{scale(metric) * value:.{digits(metric)}f}"


def _number(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.2f}"


def _percent(share: float) -> str:
    return MISSING if np.isnan(share) else f"{100 * share:.1f}"
