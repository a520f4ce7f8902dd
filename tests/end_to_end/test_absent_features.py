"""`wire.absent_features`: what travels of the first layer where clients lack features, and what the server learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from run_outcomes import Outcome, run_inline

from subfl_flower.errors import SubflError
from subfl_flower.models.row_stack import RowStack
from subfl_flower.registry import stored_config
from subfl_flower.server import round_messages
from subfl_flower.server.updates import Updates
from subfl_flower.subgraphs.domain import Subgraphs

FEDERATION = ("dataset=digits", "partition.clients=4", "federation.rounds=3", "model.hidden=16", "runtime.nodes=2")
FEW = ("method.random_blocks=2", "method.random_block_nodes=20")
METHODS = {
    "fedavg": ("method=fedavg", "optimizer.weight_decay=0"),
    "subpfed": (
        "method=subpfed",
        "partition=overlap_rate",
        "partition.rate=0.3",
        "method.random_nodes=40",
        "partition.clients=5",
    ),
}
FIRST, WIDTH = "conv1.weight", 16
MODULE = (
    "model=module",
    "model._target_=torch_geometric.nn.models.GCN",
    "+model.hidden_channels=8",
    "+model.num_layers=2",
)


@pytest.fixture
def first_layers(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The first layers of all clients [A, F, hidden] as the server reads them, one for every round."""
    read: list[np.ndarray] = []
    collect = round_messages.collect

    def collected(*arguments: object) -> Updates:
        updates = collect(*arguments)  # type: ignore[arg-type]
        read.append(updates.arrays[FIRST])
        return updates

    monkeypatch.setattr("subfl_flower.server.rounds.collect", collected)
    return read


def present(outcome: Outcome) -> np.ndarray:
    """Features that a node of each client has, bool [clients, features], from the prepared data."""
    prepared = Subgraphs().prepare(stored_config(outcome.directory))
    features = [prepared.client(c).features for c in range(prepared.num_clients)]
    return np.stack([np.asarray(abs(values).sum(0)).ravel() > 0 for values in features])


@pytest.mark.parametrize("method", METHODS)
def test_skipping_sends_fewer_bytes_to_the_same_result(method: str, tmp_path: Path) -> None:
    sent, skipped = (
        run_inline(tmp_path / how, *FEDERATION, *METHODS[method], f"wire.absent_features={how}")
        for how in ("send", "skip")
    )
    absent = ~present(sent)
    assert absent.any(1).all()
    features, lacked = absent.shape[1], absent.sum(1)
    saved = 4 * WIDTH * lacked - (features + 7) // 8 - ((features - lacked) * WIDTH + 7) // 8
    for one, other in zip(sent.rounds, skipped.rounds, strict=True):
        up, less = (np.array(record["clients"]["bytes_up"]) for record in (one, other))
        assert (up - less).tolist() == saved.tolist()  # rows of absent features, less the bits that say which
        assert one["clients"]["bytes_down"] == other["clients"]["bytes_down"]
    for name in ("train_loss", "validation", "test"):
        np.testing.assert_allclose(skipped.values(name), sent.values(name), rtol=1e-6, err_msg=name)
    models = skipped.models()
    for client, model in sent.models().items():
        for name, value in model.items():
            np.testing.assert_allclose(models[client][name], value, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("how", ["send", "skip"])
@pytest.mark.parametrize("method", ["fedavg", "fedpub"])
def test_the_server_is_told_which_features_a_client_has_where_it_skips_alone(
    method: str, how: str, tmp_path: Path, first_layers: list[np.ndarray]
) -> None:
    knobs = METHODS.get(method, (f"method={method}", *FEW))
    outcome = run_inline(tmp_path / "run", *FEDERATION, *knobs, f"wire.absent_features={how}")
    features = present(outcome)
    assert len(first_layers) == 3
    for read in first_layers:
        held = (np.asarray(read) != 0).any(2)
        assert isinstance(read, RowStack) == (how == "skip")
        if how == "send":
            assert held.all()
        elif method == "fedavg":
            np.testing.assert_array_equal(held, features)
        else:  # features that a client has and training does not reach are told by another upload
            assert not (held & ~features).any() and held.mean() > 0.5 * features.mean()


def test_a_client_that_sends_all_returns_rows_of_absent_features_as_it_received_them(
    tmp_path: Path, first_layers: list[np.ndarray]
) -> None:
    outcome = run_inline(tmp_path / "run", *FEDERATION, "method=fedpub", *FEW, "wire.absent_features=send")
    absent = ~present(outcome)
    nobodys = absent.all(0)
    assert nobodys.any()
    # Nobody has some features, so their rows are the initial ones for all time.
    for read in first_layers:
        for rows in read[:, nobodys]:
            np.testing.assert_allclose(rows, first_layers[0][0][nobodys], atol=1e-6)


def test_fedpub_skips_unless_told_otherwise(tmp_path: Path) -> None:
    bytes_up = {
        how: run_inline(tmp_path / how, *FEDERATION, "method=fedpub", *FEW, f"wire.absent_features={how}").values(
            "bytes_up"
        )
        for how in ("null", "skip", "send")
    }
    np.testing.assert_array_equal(bytes_up["null"], bytes_up["skip"])
    assert (bytes_up["skip"] < bytes_up["send"]).all()


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (("method=fedavg",), "weight decay changes rows .* skip needs optimizer.weight_decay=0 .found 1e-06."),
        (("method=subpfed", "method.weight_decay=0.5"), "skip needs method.weight_decay=0 .found 0.5."),
        (("method=fedgcn", "optimizer.weight_decay=0"), "clients of method=fedgcn work on more than their own nodes"),
        (("method=fedpub", "method.masks=false"), "skip needs method.masks=true"),
        (("method=fedpub", "model=sage"), "model=sage has no such rows"),
        (("method=fedavg", *MODULE, "optimizer.weight_decay=0"), "model=module has no rows of features"),
        (("method=fedmf", "dataset=synthetic_ratings"), "models of method=fedmf have no rows of features"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_skipped_is_refused(overrides: tuple[str, ...], problem: str, tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=problem):
        run_inline(tmp_path / "run", "dataset=digits", *overrides, "wire.absent_features=skip")


def test_a_run_says_what_whole_models_and_those_of_own_features_would_have_cost(tmp_path: Path) -> None:
    whole, skipped = (
        run_inline(tmp_path / way, *FEDERATION, *METHODS["fedavg"], f"wire.absent_features={way}").summary
        for way in ("send", "skip")
    )
    assert whole["bytes_parts"] == skipped["bytes_parts"]
    assert whole["bytes_parts"]["whole_model"] == whole["bytes_up"] + whole["bytes_down"]
    sent = skipped["bytes_up"] + skipped["bytes_down"]  # with bits that say which rows and entries there are
    assert whole["bytes_parts"]["own_features"] < sent < 1.06 * whole["bytes_parts"]["own_features"]
    assert sent < whole["bytes_parts"]["whole_model"]
