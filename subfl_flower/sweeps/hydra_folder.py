"""The folder that Hydra makes for a run or a sweep before its settings are checked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from subfl_flower.overrides import RUN_DIR, SWEEP_DIR

_HYDRAS_FILE = "multirun.yaml"


class HydraFolder(Callback):
    """Callback that notes the folder of the run or sweep that begins.

    Attributes:
        path: the folder; None where none has begun.
        key: the setting that names it.
        since: time of the begin, in seconds since the epoch.
        made: the folder, and those that it lies in, as far as they did not exist; the innermost first.
    """

    path: ClassVar[Path | None] = None
    key: ClassVar[str] = RUN_DIR
    since: ClassVar[float] = 0.0
    made: ClassVar[list[Path]] = []

    @classmethod
    def forget(cls) -> None:
        """Forget an earlier run or sweep of this process."""
        cls.path, cls.made = None, []

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder of a run."""
        self._note(RUN_DIR, config.hydra.run.dir)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder of a sweep."""
        self._note(SWEEP_DIR, config.hydra.sweep.dir)

    @classmethod
    def remove_if_unused(cls) -> None:
        """Remove the new folders in which nothing but Hydra's own file was written."""
        for folder in cls.made:
            found = list(folder.iterdir()) if folder.is_dir() else []
            if folder.is_dir() and all(folder == cls.made[0] and each.name == _HYDRAS_FILE for each in found):
                for each in found:
                    each.unlink()
                folder.rmdir()

    @staticmethod
    def _note(key: str, folder: object) -> None:
        path = Path(str(folder)).absolute()
        HydraFolder.path, HydraFolder.key, HydraFolder.since = Path(str(folder)), key, time.time()
        HydraFolder.made = []  # the next line fails for a path that the system refuses
        HydraFolder.made = [each for each in (path, *path.parents) if not each.exists()]
