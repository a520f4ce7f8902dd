"""Federated learning on graphs that may not be shared, built on Flower."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

__version__ = "0.1.0"


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
