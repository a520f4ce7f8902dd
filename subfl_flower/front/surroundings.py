"""Isolation of a run from the program that starts it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.global_hydra import GlobalHydra

from subfl_flower.code_folder import adopted_here


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave Hydra's global state, warning filters and the search path of modules as the block found them.

    Inside the block, classes and YAML choices in the working directory are found, and deprecation warnings of libraries
    are silent, as in `subfl`.
    """
    before = GlobalHydra.instance().hydra
    try:
        with adopted_here(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        GlobalHydra.instance().hydra = before
