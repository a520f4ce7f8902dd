"""Runs of every stacked network by every method for subgraphs, and the sentence of those that need another one."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from run_outcomes import Outcome, command, partition, predict

from subfl_flower.analysis.run_analysis import prepared_partition
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.registry import validate
from subfl_flower.runs.directory import RunDirectory

Run = Callable[..., Outcome]
SMALL = ("model.hidden=16", "model.dropout=0.1")
NETWORKS = {
    "gat": (*SMALL, "model.heads=2", "model.attention_dropout=0.2"),
    "gin": SMALL,
    "sgc": (),
    "mlp": SMALL,
    "appnp": (*SMALL, "model.hops=3"),
    "gcnii": (*SMALL, "model.layers=3"),
}
FEDERATION = ("dataset=digits", "partition.clients=5")
SHORT = (*FEDERATION, "federation.rounds=2", "federation.local_epochs=2")
BLOCKS = ("method.random_blocks=2", "method.random_block_nodes=20")
METHODS = {
    "local": (),
    "fedavg": (),
    "fedprox": (),
    "fedper": (),
    "fedper_similar": BLOCKS,
    "gcfl": (),
    "gcfl_plus": (),
    "fedsage": (),
    "fedsage_plus": ("method.generator_epochs=2", "method.exchanges=1"),
    "fedpub": BLOCKS,
    "fedpub_released": BLOCKS,
    "subpfed": ("partition=overlap_rate", "partition.rate=0.3", "method.random_nodes=30"),
    "oracle": (),
    "fedavg_whole_graph": (),
}
OTHER_NETWORKS = {"fedgcn": "gcn", "fedsg": "decoupled", "fedgnn_subgraph": "gcn or sage or decoupled"}
NOTHING_TO_SHARE = ("fedper", "sgc")


def chosen(network: str, method: str) -> tuple[str, ...]:
    return (*SHORT, f"method={method}", *METHODS[method], f"model={network}", *NETWORKS[network])


OF_EACH_KIND = ("fedper", "gcfl", "fedsage_plus", "fedpub", "subpfed", "oracle")
"""Methods for the networks after the first."""


@pytest.mark.parametrize(
    ("network", "method"),
    [*(("gat", method) for method in METHODS), *product([*NETWORKS][1:], OF_EACH_KIND)],
)
def test_every_method_that_needs_no_particular_network_trains_it(network: str, method: str, inline_run: Run) -> None:
    if (method, network) == NOTHING_TO_SHARE:
        with pytest.raises(SubflError, match=r"^method\.personal_layers: all layers are personal; use method=local$"):
            inline_run(*chosen(network, method))
        return
    outcome = inline_run(*chosen(network, method))
    losses = outcome.values("train_loss")
    assert np.isfinite(losses).all() and (losses[0] != losses[1]).all()
    assert np.isfinite(outcome.values("test")).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_training_lowers_the_loss_and_fits_clients(network: str, inline_run: Run) -> None:
    outcome = inline_run(*chosen(network, "local"), "federation.rounds=10", "federation.local_epochs=5")
    losses, classes = outcome.values("train_loss"), 10
    assert (losses[-1] < 0.7 * losses[0]).all()
    assert outcome.values("validation")[-1].mean() > 3 / classes


@pytest.mark.parametrize("method", OTHER_NETWORKS)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_method_that_needs_another_network_says_which(network: str, method: str) -> None:
    sentence = f"^method={method} is for model={OTHER_NETWORKS[method]}, not for model={network}$"
    with pytest.raises(SubflError, match=sentence):
        composed_config(["dataset=digits", f"method={method}", f"model={network}"])


@pytest.mark.parametrize(("network", "method"), [("gat", "fedpub"), *((network, "subpfed") for network in NETWORKS)])
def test_numbers_are_the_same_wherever_clients_run(network: str, method: str, inline_run: Run) -> None:
    single = inline_run(*chosen(network, method), "runtime.nodes=1", "runtime.chunk=1")
    for spread in (
        inline_run(*chosen(network, method), "runtime.nodes=3", "runtime.chunk=all"),
        inline_run(*chosen(network, method), "runtime.nodes=2", "runtime.chunk=2", "runtime.threads=2"),
    ):
        for name in ("train_loss", "validation", "test", "validation_as_received"):
            np.testing.assert_allclose(spread.values(name), single.values(name), atol=1e-5, err_msg=name)
        for client, tensors in spread.models().items():
            for name, values in tensors.items():
                np.testing.assert_allclose(values, single.models()[client][name], atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_under_ray_numbers_are_the_same(inline_run: Run, tmp_path: Path) -> None:
    one = inline_run(*chosen("gat", "subpfed"))
    ray = ("runtime=ray", "runtime.nodes=2", "runtime.total_cpus=2")
    other = command(*chosen("gat", "subpfed"), *ray, directory=tmp_path / "ray", cwd=tmp_path)
    assert other.code == 0, other.stderr
    for name in ("train_loss", "validation", "test"):
        np.testing.assert_allclose(other.values(name), one.values(name), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("network", NETWORKS)
def test_links_are_predicted_and_batches_are_trained_on(network: str, inline_run: Run) -> None:
    """Batches of few nodes, each with a sample of its neighbours."""
    linked = inline_run(*chosen(network, "fedavg"), "task=link_prediction")
    assert np.isfinite(linked.values("train_loss")).all() and np.isfinite(linked.values("test")).all()
    sampled = inline_run(*chosen(network, "fedpub"), "task.batch_size=32", "task.neighbours=3")
    losses = sampled.values("train_loss")
    assert np.isfinite(losses).all() and (losses[0] != losses[1]).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_and_a_clients_folder_are_predicted_as_in_training(network: str, inline_run: Run, tmp_path: Path) -> None:
    outcome = inline_run(*chosen(network, "fedpub"))
    assert predict([str(outcome.directory), "--out", str(tmp_path / "run.csv")]) == 0
    found = pd.read_csv(tmp_path / "run.csv")
    best = outcome.values("validation").argmax(axis=0)
    prepared = prepared_partition(validate(RunDirectory(outcome.directory).config()))
    for client in range(5):
        graph, own = prepared.client(client), found[found.client == client]
        right = own.prediction.to_numpy() == graph.labels
        assert right[graph.roles == 2].mean() == pytest.approx(outcome.values("test")[best[client], client])
    assert partition([*FEDERATION, f"out={tmp_path / 'folders'}"]) == 0
    (folder,) = [path for path in (tmp_path / "folders").iterdir() if path.name.endswith("3")]
    model = outcome.directory / "clients" / "0003.safetensors"
    assert predict([str(model), str(folder), "--out", str(tmp_path / "one.csv")]) == 0
    alone = pd.read_csv(tmp_path / "one.csv")
    assert alone.prediction.tolist() == found[found.client == 3].prediction.tolist()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ("model=gat", "model.heads=3"),
            r"^model\.heads: must be a divisor of model\.hidden, which is 128 \(found 3\)$",
        ),
        (("model=gat", "model.negative_slope=2"), r"^model\.negative_slope: [^\n]*less than or equal to 1[^\n]*$"),
        (("model=sgc", "model.hidden=8"), r"^[^\n]*hidden[^\n]*$"),
        (("model=appnp", "model.alpha=1.5"), r"^model\.alpha: [^\n]*less than or equal to 1[^\n]*$"),
        (("model=gcnii", "model.theta=0"), r"^model\.theta: [^\n]*greater than 0[^\n]*$"),
        (("model=gni",), r"^[^\n]*model[^\n]*gin[^\n]*$"),
    ],
    ids=["heads", "slope", "hidden", "alpha", "theta", "name"],
)
def test_settings_that_make_no_network_are_refused(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence):
        composed_config(["dataset=digits", "method=fedavg", *overrides])
