"""Federated learning on graphs that may not be shared, built on Flower."""

from pathlib import Path

__version__ = "0.1.0"

# A wheel holds clients/ and strategies/ inside this package, and a checkout has links to them. Where links are lost (as
# in the bundle that Flower sends to a server), the two folders are next to this package.
if not (Path(__file__).parent / "clients").is_dir():
    __path__.append(str(Path(__file__).parents[1]))
