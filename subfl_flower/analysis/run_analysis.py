"""All analyses of one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from subfl_flower.analysis.client_models import ClientModels
from subfl_flower.analysis.functional import averaging_similarity, functional_similarity, reference_probe
from subfl_flower.analysis.missing_edges import missing_edges
from subfl_flower.analysis.neighbours import NeighbourPerformance, neighbour_performance, neighbours
from subfl_flower.analysis.pairs import linear_correlation, rank_correlation
from subfl_flower.analysis.partition_statistics import PartitionStatistics, label_divergence, partition_statistics
from subfl_flower.analysis.sharing import ParameterSharing, kept_weights, parameter_sharing
from subfl_flower.config import Config
from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.prepared.partition import PreparedPartition, prepare
from subfl_flower.errors import SubflError
from subfl_flower.evaluation.runs import Run
from subfl_flower.subgraphs.domain import graph_sections
from subfl_flower.subgraphs.models.choices import graph_network


@dataclass(frozen=True)
class PartitionAnalysis:
    """Analysis of a partition, without any model.

    Attributes:
        graphs: each client's subgraph, by id.
        statistics: sizes, clustering, data heterogeneity.
        missing: int [K, K], edges missing between clients.
        label_similarity: [K, K], 1 - Jensen-Shannon divergence in bits; None without labels.
    """

    graphs: tuple[ClientGraph, ...]
    statistics: PartitionStatistics
    missing: np.ndarray
    label_similarity: np.ndarray | None

    @classmethod
    def of(cls, prepared: PreparedPartition) -> PartitionAnalysis:
        """Read and describe a prepared partition."""
        graph, _ = prepared.graph()
        graphs = tuple(prepared.client(client_id) for client_id in range(prepared.num_clients))
        divergence = label_divergence(graphs)
        return cls(
            graphs,
            partition_statistics(graph, graphs, prepared.cross_edges(), divergence),
            missing_edges([client.node_ids for client in graphs], graph.edge_index, graph.num_nodes),
            None if divergence is None else 1 - divergence,
        )


@dataclass(frozen=True)
class Similarity:
    """Three views of every pair of clients, [K, K] each (FED-PUB, Fig. 6).

    Attributes:
        functional: cosine of the functional embeddings of the clients' best models.
        missing_edges: number of edges missing between the two.
        label: 1 - Jensen-Shannon divergence of their label distributions, in bits; None without labels.
        averaging: log(M_ij / M_ii) of the last mixing matrix M that was kept: the similarity that the method itself
            averaged by, up to scale; None where no matrix [K, K] was kept, or all clients get the same average.
    """

    functional: np.ndarray
    missing_edges: np.ndarray
    label: np.ndarray | None
    averaging: np.ndarray | None = None

    @cached_property
    def with_missing(self) -> float:
        """Rank correlation of functional similarity and missing edges over pairs of clients."""
        return rank_correlation(self.functional, self.missing_edges)

    @cached_property
    def with_label(self) -> float | None:
        """Rank correlation of functional and label similarity over pairs of clients."""
        return None if self.label is None else rank_correlation(self.functional, self.label)

    @cached_property
    def averaging_with_label(self) -> float | None:
        """Linear correlation of `averaging` and label similarity over pairs of clients (FED-PUB, Table 9)."""
        if self.label is None or self.averaging is None:
            return None
        return linear_correlation(self.averaging, self.label)


@dataclass(frozen=True)
class ModelAnalysis:
    """Analysis of the clients' best models; `sharing` is None where the method prunes nothing."""

    similarity: Similarity
    neighbours: NeighbourPerformance
    sharing: ParameterSharing | None


@dataclass(frozen=True)
class RunAnalysis:
    """All analyses of a run.

    Attributes:
        run: the run.
        partition: analysis of its data.
        models: analysis of its models; None where they cannot be analysed.
        left_out: one sentence for each analysis that is left out, with the reason.
    """

    run: Run
    partition: PartitionAnalysis
    models: ModelAnalysis | None
    left_out: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """All numbers, for `RunDirectory.write_analysis`."""
        found: dict[str, Any] = {"partition": asdict(self.partition.statistics)}
        if self.models:
            similarity, neighbours, sharing = self.models.similarity, self.models.neighbours, self.models.sharing
            correlation = {"missing_edges": similarity.with_missing, "label": similarity.with_label}
            means = {"mean_own": neighbours.mean_own, "mean_on_neighbour": neighbours.mean_on_neighbour}
            found["similarity"] = asdict(similarity) | {
                "rank_correlation_with_functional": correlation,
                "correlation_of_averaging_with_label": similarity.averaging_with_label,
            }
            found["neighbours"] = asdict(neighbours) | means
            found["parameter_sharing"] = sharing and asdict(sharing)
        return found | {"left_out": list(self.left_out)}


def prepared_partition(config: Config) -> PreparedPartition:
    """The partition that a configuration names; SubflError where it is not available."""
    sections = graph_sections(config)
    if sections is None:
        raise SubflError(f"dataset={config.dataset.name} holds ratings; subfl analyse compares clients' graphs")
    data, needs_labels = config.data, sections.task.needs_labels
    return prepare(sections.dataset, config.partition, data.root, data.cache, needs_labels, config.disturbance)


def analyse_run(run: Run, config: Config, partition: PartitionAnalysis) -> RunAnalysis:
    """Apply every analysis that the run has the data for.

    Args:
        run: the run, for its models.
        config: its validated configuration.
        partition: its data.
    """
    left_out = []
    if partition.label_similarity is None:
        left_out.append(f"{config.dataset.name} has no labels: heterogeneity and label similarity are left out.")
    models = None
    try:
        if len(partition.graphs) < 2:
            raise SubflError("with a single client there is nothing to compare")
        models = _analyse_models(run, config, partition)
    except SubflError as error:
        left_out.append(f"Nothing is said about the models: {error}.")
    if models and models.sharing is None:
        left_out.append(
            f"{run.method} prunes no weight, so that any two clients have all of them in common: "
            "parameter sharing is left out."
        )
    return RunAnalysis(run, partition, models, tuple(left_out))


def _analyse_models(run: Run, config: Config, partition: PartitionAnalysis) -> ModelAnalysis:
    graphs = partition.graphs
    num_features = graphs[0].num_features
    sections = graph_sections(config)
    assert sections is not None, "`prepared_partition` has refused other data"
    task = sections.task
    gnn = graph_network(sections.model, num_features, task.num_outputs(graphs[0].num_classes))
    models = ClientModels(run.directory, len(graphs), gnn)
    functional = functional_similarity(models, reference_probe(gnn, config.seed, num_features))
    return ModelAnalysis(
        Similarity(functional, partition.missing, partition.label_similarity, _averaging(run, len(graphs))),
        neighbour_performance(gnn, models, graphs, neighbours(partition.missing), task),
        parameter_sharing(kept_weights(models, gnn.weight_matrices), functional),
    )


def _averaging(run: Run, clients: int) -> np.ndarray | None:
    """The similarity that the last mixing matrix was made of; None without one of all clients, or with one average."""
    *_, last = [None, *run.directory.mixing().values()]
    if last is None or last.shape != (clients, clients) or np.allclose(last, last[0]):
        return None
    return averaging_similarity(last)
