"""Predictions of trained models as tables, the numbers of `subfl predict` and `subfl recommend`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from subfl_flower.commands.predictions.graph import GraphToPredict, open_graph
from subfl_flower.commands.predictions.nodes import NodePredictions, model_outputs, node_predictions
from subfl_flower.commands.predictions.run import RunToPredict
from subfl_flower.commands.recommendations.best_items import best_items
from subfl_flower.commands.recommendations.users import UsersOfRun
from subfl_flower.data.datasets.custom_tables import read_pairs
from subfl_flower.data.graph import NO_ROLE, TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.datasets.custom_tables import ITEM_NAMES, USER_NAMES
from subfl_flower.data.tables.columns import Problems, matched, read_ids, read_table
from subfl_flower.errors import SubflError
from subfl_flower.registry import stored_config
from subfl_flower.runs.remarks import print_remarks
from subfl_flower.subgraphs.domain import graph_sections
from subfl_flower.subgraphs.models.exported import read_model
from subfl_flower.subgraphs.tasks.link_prediction import pair_scores

_ROLE_NAMES = {TRAIN: "train", VALIDATION: "validation", TEST: "test", NO_ROLE: None}


def predict_run(path: Path, data: Path | None, client: int | None, pairs: Path | None, n: int) -> pd.DataFrame:
    """Predictions of a run's models; see `front.result.RunResult.predict`.

    Args:
        path: the run directory.
        data: a graph, or for ratings a table of users and items; None for the clients' own data.
        client: the only client, or user, to predict for; None for all.
        pairs: a table of pairs of nodes, for link prediction.
        n: number of items for each user.

    Raises:
        SubflError: the arguments do not fit the run, or something cannot be read.
    """
    config = stored_config(path)
    sections = graph_sections(config)
    if sections is None:
        if pairs is not None:
            raise SubflError("pairs: they are for link prediction, and this is a run on ratings; give data=...")
        return _best(path, client, n) if data is None else _rated(path, data)
    if data is None:
        if sections.task.scores_pairs:
            raise SubflError(
                f"{path} is a run of task={config.task.name}; give a graph, data=..., and pairs of its nodes, pairs=..."
            )
        if pairs is not None:
            raise SubflError(f"pairs: they are for link prediction, and this is a run of task={config.task.name}")
        return _own(path, client)
    files = _files(path, client)
    tables = {number: predict_graph(file, data, pairs, quiet=done > 0) for done, (number, file) in enumerate(files)}
    for number, table in tables.items():
        table.insert(2 if pairs is not None else 1, "client", number)
    return pd.concat(tables.values(), ignore_index=True)


def predict_graph(model: Path, data: Path, pairs: Path | None, quiet: bool = False) -> pd.DataFrame:
    """Predictions of one model for the nodes of a graph, or for pairs of nodes.

    Args:
        model: a folder with a model, or a file of a run.
        data: a graph: in memory, a PyG file, a folder of tables or a client's folder.
        pairs: a table with the columns source and target, for link prediction.
        quiet: leave out remarks on the data.

    Raises:
        SubflError: something cannot be read, or does not fit the model.
    """
    parameters, card = read_model(model)
    if card.task.scores_pairs and pairs is None:
        raise SubflError("pairs: the model predicts links; give a table with the columns source and target")
    if not card.task.scores_pairs and pairs is not None:
        raise SubflError("pairs: the model classifies nodes; pairs are for models of link prediction")
    graph = open_graph(data, card, False)
    visible = card.task.visible(graph.graph) if graph.of_client else graph.graph
    outputs = model_outputs(parameters, card, visible)
    if not quiet:
        print_remarks(graph.notes.dropped, graph.notes.warnings)
    if pairs is not None:
        return _scores(outputs, graph, pairs)
    return pd.DataFrame(_columns(node_predictions(outputs, card, graph.names, graph.labels)))


def _files(path: Path, client: int | None) -> list[tuple[int, Path]]:
    from subfl_flower.runs.directory import RunDirectory

    files = RunDirectory(path).client_models()
    if client is not None and client not in files:
        raise SubflError(f"client: {path} has no model of client {client}; it has {_listed(files)}")
    chosen = sorted(files) if client is None else [client]
    if not chosen:
        raise SubflError(f"{path} holds no models: it has not come to its end, or record.client_models is false")
    return [(number, files[number]) for number in chosen]


def _listed(files: Mapping[int, Path]) -> str:
    return f"those of {min(files)} to {max(files)}" if files else "none"


def _own(path: Path, client: int | None) -> pd.DataFrame:
    """Predictions of clients for their own nodes."""
    run = RunToPredict.open(path)
    if client is not None:
        run = RunToPredict(run.directory, run.prepared, dict(_files(path, client)))
    else:
        print_remarks(warnings=run.warnings)
    tables = []
    for predicted in run.clients():
        columns = _columns(predicted.predictions)
        del columns["probability"]
        roles = [_ROLE_NAMES[role] for role in predicted.graph.roles.tolist()]
        node = columns.pop("node")
        tables.append(pd.DataFrame({"node": node, "client": predicted.graph.client_id, "role": roles, **columns}))
    return pd.concat(tables, ignore_index=True)


def _columns(predictions: NodePredictions) -> dict[str, Any]:
    """Columns of a table: `node`, `prediction`, `probability`, `p_NAME` of each class, and any `label`."""
    classes, labels = np.array(predictions.classes, dtype=object), predictions.labels
    found: dict[str, Any] = {
        "node": predictions.names,
        "prediction": classes[predictions.predicted],
        "probability": predictions.probabilities.max(axis=1),
        **{f"p_{name}": predictions.probabilities[:, number] for number, name in enumerate(predictions.classes)},
    }
    if labels is not None:
        found["label"] = [None if number < 0 else classes[number] for number in labels.tolist()]
    return found


def _scores(outputs: torch.Tensor, data: GraphToPredict, path: Path) -> pd.DataFrame:
    pairs = read_pairs(path, data.names.astype(str), "a node of the graph")
    scores = pair_scores(outputs, torch.from_numpy(pairs)).numpy()
    return pd.DataFrame({"source": data.names[pairs[0]], "target": data.names[pairs[1]], "score": scores})


def _best(path: Path, client: int | None, n: int) -> pd.DataFrame:
    """The n best items that each user has not rated, or one user."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise SubflError(f"n: must be a whole number, 1 or more (found {n!r})")
    users = UsersOfRun.open(path)
    if client is not None and client not in users.client_ids:
        raise SubflError(
            f"client: {path} knows no client {client}; its clients lie between 0 and {users.client_ids[-1]}"
        )
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for recommender, ratings in (part for parts in users.blocks() for part in parts):
        found |= zip(ratings.user_ids.tolist(), best_items(recommender, ratings, n), strict=True)
    chosen = sorted(found) if client is None else [client]
    items = np.concatenate([found[user][0] for user in chosen])
    names, titles = np.array(users.prepared.item_names(), dtype=object), users.prepared.titles()
    columns: dict[str, Any] = {
        "user": np.repeat(
            np.array(users.prepared.user_names(), dtype=object)[chosen], [len(found[u][0]) for u in chosen]
        ),
        "item": names[items],
    }
    if titles is not None:
        columns["title"] = np.array(titles, dtype=object)[items]
    return pd.DataFrame({**columns, "score": np.concatenate([found[user][1] for user in chosen])})


def _rated(path: Path, data: Path) -> pd.DataFrame:
    """The score of each pair of a user and an item in a table, in its order."""
    users = UsersOfRun.open(path)
    table, columns = read_table(data, {"user": USER_NAMES, "item": ITEM_NAMES}, ["user", "item"])
    problems = Problems(data)
    known = {"user": users.prepared.user_names(), "item": users.prepared.item_names()}
    ids, places = {}, {}
    for of, names in known.items():
        ids[of] = read_ids(table, columns[of], of, problems)
        places[of] = matched(ids[of], {name: place for place, name in enumerate(names)})
        unknown = (places[of] < 0) & (ids[of] != "")
        problems.add_rows(unknown, f"unknown {of}", f"the run knows {len(names)} {of}s", ids[of])
    problems.require_none()
    scores = np.full(len(ids["user"]), np.nan, dtype=np.float32)
    wanted = _rows_by_user(places["user"])
    for recommender, ratings in (part for parts in users.blocks() for part in parts):
        own = [place for place, user in enumerate(ratings.user_ids.tolist()) if user in wanted]
        if not own:
            continue
        some = ratings.of_users(own)
        rows = [wanted[user] for user in some.user_ids.tolist()]
        found = recommender.of_users(some.user_ids).scores(some, [places["item"][each] for each in rows])
        for each, values in zip(rows, found, strict=True):
            scores[each] = recommender.shown(values)
    return pd.DataFrame({"user": ids["user"], "item": ids["item"], "score": scores})


def _rows_by_user(users: np.ndarray) -> dict[int, np.ndarray]:
    order = np.argsort(users, kind="stable")
    found, starts = np.unique(users[order], return_index=True)
    return dict(zip(found.tolist(), np.split(order, starts[1:]), strict=True))


def listed_pairs(pairs: Iterable[tuple[Any, Any]]) -> pd.DataFrame:
    """Pairs of nodes as a table with the columns source and target.

    Raises:
        SubflError: an element is no pair.
    """
    rows = [tuple(pair) for pair in pairs]
    if any(len(row) != 2 for row in rows):
        raise SubflError("pairs: each must be two ids of nodes, (source, target)")
    return pd.DataFrame(rows, columns=["source", "target"])
