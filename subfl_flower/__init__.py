"""Federated learning on graphs that may not be shared, built on Flower."""

import sys
import warnings
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subfl_flower.errors import RunFailure, SubflError
    from subfl_flower.front.listing import datasets, methods
    from subfl_flower.front.result import RunResult, load_run, predict
    from subfl_flower.front.run import run
    from subfl_flower.front.sweep import SweepResult, sweep

__version__ = "0.1.0"

__all__ = [
    "RunFailure",
    "RunResult",
    "SubflError",
    "SweepResult",
    "__version__",
    "datasets",
    "load_run",
    "methods",
    "predict",
    "run",
    "sweep",
]

_HOME_OF = {
    **dict.fromkeys(("RunFailure", "SubflError"), "errors"),
    **dict.fromkeys(("datasets", "methods"), "front.listing"),
    **dict.fromkeys(("RunResult", "load_run", "predict"), "front.result"),
    **dict.fromkeys(("run",), "front.run"),
    **dict.fromkeys(("SweepResult", "sweep"), "front.sweep"),
}
"""Module of each public name; it is imported on first use, because PyTorch and others take seconds."""


if not TYPE_CHECKING:  # a type checker should refuse other names

    def __getattr__(name: str) -> Any:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with warnings.catch_warnings():  # libraries that are imported here for the first time add filters
            warnings.simplefilter("ignore", DeprecationWarning)
            found = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _take_in(folder: Path) -> None:
    """Make a package in another folder a subpackage of this one; no other file next to it becomes importable."""
    name = f"{__name__}.{folder.name}"
    spec = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None and spec.loader is not None
    sys.modules[name] = module = module_from_spec(spec)
    setattr(sys.modules[__name__], folder.name, module)
    spec.loader.exec_module(module)


# A wheel holds clients/ and strategies/ inside this package, and a checkout has links to them. Where links are lost (as
# in the bundle that Flower sends to a server), the two folders are next to this package.
for _folder in ("clients", "strategies"):
    if not (Path(__file__).parent / _folder).is_dir() and (Path(__file__).parents[1] / _folder).is_dir():
        _take_in(Path(__file__).parents[1] / _folder)
