"""Two configurations have one fingerprint exactly where no result can differ."""

from __future__ import annotations

import re

import pytest
from hydra import compose, initialize_config_dir

from subfl_flower.composition import composed_config, config_directory
from subfl_flower.sweeps.fingerprint import difference, fingerprint, job_name, name_of_composed


def of(*overrides: str) -> str:
    return fingerprint(composed_config(list(overrides))[0])


@pytest.mark.parametrize(
    "change",
    [
        *("data.root=/elsewhere", "data.cache=/elsewhere", "runtime.chunk=3", "runtime.threads=1", "runtime.nodes=4"),
        *(
            "runtime.node_timeout=5",
            "record.checkpoint_every=3",
            "sweep.jobs=4",
            "sweep.redo=all",
            "logger=tensorboard",
        ),
        *("hydra.run.dir=/elsewhere", "method=fedpub", "method.tau=5.0"),  # its defaults, spelt out
    ],
)
def test_what_changes_no_result_changes_no_fingerprint(change: str) -> None:
    assert of("method=fedpub", "method.tau=5", change) == of("method.tau=5")


@pytest.mark.parametrize(
    "change",
    [
        *("seed=1", "method=fedavg", "method.tau=4", "federation.rounds=7", "partition.clients=4", "partition.seed=3"),
        *(
            "model.hidden=3",
            "optimizer.lr=0.5",
            "runtime=ray",
            "runtime.device=cpu",
            "runtime.on_client_failure=continue",
        ),
        *("record.client_models=false", "record.mixing_every=3", "dataset=sbm", "federation.fraction=0.5"),
    ],
)
def test_what_may_change_a_result_changes_the_fingerprint(change: str) -> None:
    assert of(change) != of()


def test_a_job_is_named_readably() -> None:
    config, _ = composed_config(["method=fedavg", "dataset=sbm", "seed=3"])
    assert re.fullmatch(r"fedavg-sbm-seed3-[0-9a-f]{10}", job_name(config))
    assert job_name(config).endswith(fingerprint(config))


def test_two_configurations_differ_in_a_named_setting() -> None:
    one, other = (composed_config(["method=fedpub", *more])[0] for more in (("method.tau=5",), ("method.tau=4",)))
    assert difference(one, other) == "method.tau=5.0, not 4.0"
    assert difference(one, composed_config(["method=fedpub", "method.tau=5.0", "runtime.chunk=1"])[0]) is None


def test_a_job_that_cannot_run_has_a_name_too() -> None:
    def name(*overrides: str) -> str:
        with initialize_config_dir(str(config_directory()), version_base="1.3"):
            return name_of_composed(
                compose("config", overrides=["method=fedavg", *overrides], return_hydra_config=True)
            )

    wrong = name("partition.clients=0")
    assert re.fullmatch(r"fedavg-digits-seed0-[0-9a-f]{10}", wrong)
    assert wrong == name("partition.clients=0", "sweep.jobs=2")
    assert wrong != name("partition.clients=-1")
    assert name() == job_name(composed_config(["method=fedavg"])[0])
