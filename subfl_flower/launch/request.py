"""A federation to launch: the app, the overrides, and the simulated nodes with their resources."""

import os
from dataclasses import dataclass
from pathlib import Path

from joblib import cpu_count  # type: ignore[import-untyped]

from subfl_flower.errors import SubflError


@dataclass(frozen=True)
class Request:
    """One federation to run.

    `app` is the folder with another app's `pyproject.toml`, None for the app of this package. Relative paths begin in
    `folder`. Flower writes into `home`. `overrides` are Hydra's. Each of the `supernodes` simulated nodes needs `cpus`
    CPUs and `gpus` GPUs for a task. `code` is the user's folder; None for an app that does not receive it. A process of
    Ray's may take `patience` seconds to start.
    """

    app: Path | None
    folder: Path
    home: Path
    overrides: tuple[str, ...] = ()
    supernodes: int = 10
    cpus: int = 1
    gpus: float = 0.0
    code: Path | None = None
    patience: float = 900.0


def federation_config(request: Request) -> str:
    """The value of `flwr run --federation-config`.

    Ray gets no more CPUs than the nodes can use together: Flower starts one actor for each share of the CPUs,
    and every actor imports the app. On the user's Ray cluster (`RAY_ADDRESS`) the cluster decides.

    Raises:
        SubflError: when a node asks for more CPUs than there are.
    """
    config = (
        f"num-supernodes={request.supernodes} client-resources-num-cpus={request.cpus} "
        f"client-resources-num-gpus={request.gpus}"
    )
    if os.environ.get("RAY_ADDRESS"):
        return config
    if request.cpus > (cpus := cpu_count()):
        raise SubflError(f"--cpus {request.cpus}: a node cannot have more than this machine's {cpus} CPUs")
    return f"{config} init-args-num-cpus={min(cpus, request.supernodes * request.cpus)}"
