"""One run from Python: the same composition, checks and training as by `subfl`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from subfl_flower.composition import composed_config
from subfl_flower.data.in_memory import held
from subfl_flower.errors import SubflError, folder_chosen_by
from subfl_flower.front.arguments import Arguments, Overrides, chosen, experiment_axes, path_given
from subfl_flower.front.result import RunResult
from subfl_flower.front.surroundings import undisturbed
from subfl_flower.overrides import swept
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.sweeps.job import train_here


def run(
    method: str | None = None,
    dataset: Any = None,
    *,
    partition: Any = None,
    clients: int | None = None,
    rounds: int | None = None,
    seed: int | None = None,
    model: Any = None,
    task: Any = None,
    runtime: str | None = "inline",
    overrides: Overrides = (),
    run_dir: str | Path | None = None,
    progress: bool | None = None,
) -> RunResult:
    """Train one method on one data set, and return the results.

    An argument of None takes the configuration's default, as an override that is left out on the command line does.
    The working directory is the user's folder: its modules, and the choices in its folder ``conf``, are found.

    Args:
        method: name of a method, such as ``"fedpub"``; `methods` lists them.
        dataset: name of a data set, which `datasets` lists; or data in memory: a PyG `Data` (``x`` ``[nodes,
            features]``, ``edge_index`` ``[2, edges]``, ``y`` ``[nodes]``, if you like masks and ``edge_weight``),
            a dict of two DataFrames, ``nodes`` and ``edges``, with the columns of docs/your_graph.md, or a DataFrame of
            ratings with the columns of docs/your_ratings.md; or the path of such files, with a point or a slash in it;
            or a `DatasetSettings` class, or an object of one.
        partition: name of a partitioner, or a class or an object of its settings.
        clients: number of clients, short for ``partition.clients``.
        rounds: number of communication rounds, short for ``federation.rounds``.
        seed: seed of initialisation, dropout and all other draws but those of the partition (``partition.seed``).
        model: name of a model, or any `torch.nn.Module` class with ``forward(x, edge_index)``.
        task: name of a task, or a class or an object of its settings.
        runtime: ``"inline"`` (this process) or ``"ray"`` (several processes).
        overrides: further settings, ``["method.tau=5"]`` or ``{"method": {"tau": 5}}``. A setting that takes a file
            takes data in memory in a dict, as ``{"dataset": {"items": frame}}``.
        run_dir: folder of the run; None: ``outputs/<date>/<time>`` in the working directory. A run of the same
            configuration in it that was interrupted goes on after its checkpoint; a completed one is refused.
        progress: None shows a bar in a terminal or a notebook, True also lines where there is neither, False nothing.

    Returns:
        The run's results, read from its folder. After Ctrl-C its status is ``interrupted``, and the finished rounds
        are there; a second Ctrl-C raises `KeyboardInterrupt`.

    Raises:
        SubflError: an argument or the data cannot be used; one sentence that says what, where, and what is allowed. No
            folder is made. `RunFailure`, a subclass, is a run that failed while it ran.

    Example:
        >>> from subfl_flower import run
        >>> result = run("fedavg", "digits", clients=3, rounds=2)
        >>> result.summary["test_at_best_validation"]
    """
    choices = chosen(locals())
    with undisturbed():
        arguments = Arguments(choices, overrides)
        for line in arguments.overrides:
            if len(swept(line, multirun=False)) > 1:
                raise SubflError(f"{line}: a run has one value of each setting; sweep(...) trains several")
        if swept_keys := experiment_axes(arguments.overrides):
            raise SubflError(f"+experiment is a sweep of {', '.join(swept_keys)}; sweep(...) takes the same overrides")
        config, default = composed_config(arguments.overrides)
        directory = (_free(default) if run_dir is None else path_given("run_dir", run_dir)).absolute()
        with held(arguments.objects), folder_chosen_by("run_dir"):
            train_here(config, directory, lines=None if progress is False else bool(progress))
    return RunResult(directory)


def _free(folder: Path) -> Path:
    """A folder without a run: the given one, or with a number after its name where two runs start in one second."""
    number, free = 1, folder
    while RunDirectory.is_run(free):
        number += 1
        free = folder.with_name(f"{folder.name}-{number}")
    return free
