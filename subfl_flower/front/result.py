"""Results of one run, read from its folder on use."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subfl_flower.data.in_memory import held, is_in_memory
from subfl_flower.errors import SubflError
from subfl_flower.front.arguments import path_given
from subfl_flower.front.given_data import GivenData, given_data, require_data
from subfl_flower.front.surroundings import undisturbed
from subfl_flower.front.tables import html_table
from subfl_flower.runs.directory import RunDirectory

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure
    from torch_geometric.data import Data

    from subfl_flower.evaluation.runs import Run
    from subfl_flower.front.client_models import ClientModel


class RunResult:
    """A run's results: figures, models and predictions.

    Args:
        path: the run directory.

    Attributes:
        path: the run directory; docs/python.md and the README list its files.

    Example:
        >>> from subfl_flower import load_run
        >>> result = load_run("outputs/2026-01-01/12-00-00")
        >>> result.metrics.query("metric == 'test' and client == 0")
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._directory = RunDirectory(path)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, nested by section.

        Data in memory stand in it by a path such as ``memory:Data-3fa9c1d2e4b5a697``, which holds their fingerprint.
        """
        return self._directory.config()

    @property
    def summary(self) -> dict[str, Any]:
        """The main figures, the content of ``summary.json``; without one, those of the rounds so far.

        Among them are ``status``, ``test_at_best_validation`` and ``best_round`` (the round with the best mean
        validation metric), ``per_client``, ``bytes_up`` and ``bytes_down``, ``seconds`` and ``versions``. Accuracies
        are fractions.
        """
        return {"status": self._run.status, **self._run.figures}

    @property
    def metrics(self) -> pd.DataFrame:
        """All figures of all rounds, one line a number.

        Columns are ``run`` (path of the run), ``round``, ``client`` (missing for figures of the whole round),
        ``metric`` (a name of ``metrics.jsonl``, such as ``test``, ``validation``, ``bytes_up``) and ``value``.
        """
        from subfl_flower.evaluation.frame import metric_frame

        return metric_frame([self._run])

    @property
    def mixing(self) -> dict[int, np.ndarray]:
        """Mixing matrices float ``[clients, clients]`` by round: row i weighs the models that client i received.

        The run keeps those of every ``record.mixing_every`` rounds and of the last. Methods without one have none.
        """
        return self._directory.mixing()

    @cached_property
    def models(self) -> Mapping[int, ClientModel]:
        """Each client's model, a `torch.nn.Module`, by client id; it is read when it is asked for.

        ``models[0](x, edge_index)`` gives the outputs ``[nodes, outputs]`` by which the run measured client 0 in the
        round in which it validated best; ``graphs[0]`` has its ``x`` and ``edge_index``. It is empty where the run
        wrote no models of graphs: runs on ratings leave recommenders, for `predict`.
        """
        from subfl_flower.front.client_models import client_models

        return client_models(self._directory.client_models())

    @cached_property
    def graphs(self) -> Mapping[int, Data]:
        """Each client's graph as its model reads it, a PyG `Data` with masks, by client id.

        Raises:
            SubflError: the run is not on graphs, or its data cannot be prepared, or have changed since.
        """
        from subfl_flower.front.client_models import ByClient, graph_as_data

        prepared = self._prepared_graph()
        names = prepared.node_names()

        def graph(client: int) -> Data:
            found = prepared.client(client)
            return graph_as_data(found, None if names is None else names[found.node_ids])

        return ByClient("graph", list(range(prepared.num_clients)), graph)

    def predict(self, data: Any = None, *, client: int | None = None, pairs: Any = None, n: int = 10) -> pd.DataFrame:
        """Predictions of the clients' best models.

        Args:
            data: None: every client predicts its own nodes; of ratings, the best items that every user has not rated.
                Else a graph for every client's model, a PyG `Data`, ``{"nodes": ..., "edges": ...}`` or a path, with
                features as in the training's source; or of ratings a DataFrame with the columns user and item.
            client: only this client, or user by its number.
            pairs: for link prediction, pairs of nodes of ``data``: a list of ids, a DataFrame with the columns source
                and target, or a path.
            n: number of items for each user of a run on ratings.

        Returns:
            A line a node and client: ``node``, ``client``, ``role`` (of own nodes: train, validation, test or None),
            ``prediction``, ``probability`` (of other graphs), ``p_NAME`` for each class, and ``label`` where there are
            labels. Of pairs: ``source``, ``target``, ``client``, ``score``. Of ratings: ``user``, ``item``, ``title``
            where there are titles, and ``score``, in rating units, or without unit after ``task=ranking``.

        Raises:
            SubflError: the run wrote no models; its data, or the given ones, cannot be used or have changed; or data
                that were in memory have to be given again (`load_run`).

        Example:
            >>> result.predict().query("role == 'test'")
            >>> result.predict(new_graph, client=3)
        """
        from subfl_flower.front.predictions import predict_run

        with _opened(data, "data") as place, _opened(_pairs(pairs), "pairs") as listed, undisturbed():
            return predict_run(self.path, place, client, listed, n)

    def plot(self) -> Figure:
        """Validation and test metric by round, a matplotlib figure.

        Raises:
            SubflError: no round has been evaluated.
        """
        from subfl_flower.evaluation.charts.drawing import draw
        from subfl_flower.evaluation.charts.run_charts import convergence_chart

        if all(record.get("test") is None and record.get("validation") is None for record in self._run.rounds):
            raise SubflError(f"{self.path}: no round has been evaluated, so that there is nothing to plot")
        figure: Any = draw(convergence_chart(self._run))
        figure._repr_png_ = partial(_png, figure)  # a notebook that has not imported pyplot shows no figure by itself
        return figure

    def __repr__(self) -> str:
        figures = self._heading()
        return f"<RunResult {figures['run']}: {figures['result']}, {self.path}>"

    def _repr_html_(self) -> str:
        return html_table(self._heading() | {"folder": str(self.path)})

    def _heading(self) -> dict[str, str]:
        run = self._run
        value, best = run.figures.get(run.judged_by), run.figures.get("best_round")
        word = "validation" if run.development else "test"
        result = "no round evaluated" if value is None else f"{word} {run.metric} {value:.4f} at round {best}"
        where = f"{run.method} on {run.dataset}, {run.partition}, {run.clients or '?'} clients, seed {run.seed}"
        return {"run": where, "status": run.status, "rounds": str(len(run.rounds)), "result": result}

    @property
    def _run(self) -> Run:
        from subfl_flower.evaluation.runs import Run

        return Run.load(self.path)

    def _prepared_graph(self) -> Any:
        from subfl_flower.registry import stored_config
        from subfl_flower.storage.fingerprints import require_same_data
        from subfl_flower.subgraphs.domain import Subgraphs, graph_sections

        with undisturbed():
            config = stored_config(self.path)
            if graph_sections(config) is None:
                raise SubflError(f"{self.path} is a run on ratings; it has no graphs")
            prepared = Subgraphs().prepare(config)
        require_same_data(prepared.data, self._directory.data(), str(self.path), "graphs")
        return prepared


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def load_run(path: str | Path, data: Any = None) -> RunResult:
    """The results of a run that is finished, still running or was interrupted.

    Args:
        path: the run directory.
        data: the data of a run whose data were in memory, to prepare them again where ``data.cache`` has lost them; see
            `run`. None where they are there, or files.

    Raises:
        SubflError: there is no run in the folder; or `data` are not those of the run.

    Example:
        >>> from subfl_flower import load_run
        >>> load_run("outputs/2026-01-01/12-00-00").summary["best_round"]
    """
    folder = path_given("path", path).absolute()
    if not RunDirectory.is_run(folder):
        raise SubflError(
            f"{path}: there is no run in this folder (a run is a folder with metrics.jsonl or summary.json)"
        )
    result = RunResult(folder)
    if data is not None:
        _prepare_again(result, data)
    return result


def predict(
    run: RunResult | str | Path, data: Any = None, *, client: int | None = None, pairs: Any = None, n: int = 10
) -> pd.DataFrame:
    """Predictions of a run's models, or of one model, as of ``subfl predict`` and ``subfl recommend``.

    Args:
        run: a run's results or its folder; or the path of one model: a client's file of a run, or a folder with
            ``model.safetensors``, as a deployment's clients have.
        data: see `RunResult.predict`; for one model a graph is needed.
        client, pairs, n: see `RunResult.predict`.

    Returns:
        The table of `RunResult.predict`; of one model, without ``client``.

    Raises:
        SubflError: see `RunResult.predict`.

    Example:
        >>> from subfl_flower import predict
        >>> predict("outputs/2026-01-01/12-00-00/clients/0003.safetensors", "new_patients/")
    """
    if isinstance(run, RunResult):
        return run.predict(data, client=client, pairs=pairs, n=n)
    path = path_given("run", run, "a run or of a model").absolute()
    if RunDirectory.is_run(path) and not (path / "model.safetensors").is_file():
        return RunResult(path).predict(data, client=client, pairs=pairs, n=n)
    from subfl_flower.front.predictions import predict_graph

    if not path.exists():
        raise SubflError(f"{run} does not exist; name a run directory of a simulation, or a client's model")
    if data is None:
        raise SubflError("data: a model needs a graph, a PyG Data, a dict of DataFrames or a path")
    with _opened(data, "data") as place, _opened(_pairs(pairs), "pairs") as listed, undisturbed():
        assert place is not None
        return predict_graph(path, place, listed)


@contextmanager
def _opened(value: Any, key: str) -> Iterator[Path | None]:
    """The path of data, in memory or not, which can be read inside the block; None for None."""
    if value is None or isinstance(value, str | Path):
        yield None if value is None else Path(value).expanduser()
        return
    given = require_data(value, key)
    with held(given.objects):
        yield given.path


def _pairs(pairs: Any) -> Any:
    if pairs is None or isinstance(pairs, str | Path) or given_data(pairs, "pairs") is not None:
        return pairs
    from subfl_flower.front.predictions import listed_pairs

    return listed_pairs(pairs)


def _prepare_again(result: RunResult, data: Any) -> None:
    """Prepare the data of a run that were in memory."""
    from subfl_flower.node.domain import domain_of
    from subfl_flower.registry import stored_config

    found: GivenData = require_data(data, "data")
    with undisturbed(), held(found.objects):
        config = stored_config(result.path)
        path = config.dataset.model_dump().get("path")
        if path is None or not is_in_memory(path):
            raise SubflError(f"data: the data of {result.path} were not in memory; leave them out")
        if path != found.path:
            raise SubflError(
                f"data: they are not those of {result.path}: these are {found.path}, and the run's were {path}"
            )
        domain_of(config).prepare(config)
