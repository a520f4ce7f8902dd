"""A split that a source states by three masks, as PyG's data sets do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from subfl_flower.data.graph import NO_ROLE, TEST, TRAIN, VALIDATION, Notes
from subfl_flower.errors import SubflError

MASKS = {"train_mask": TRAIN, "val_mask": VALIDATION, "test_mask": TEST}
"""Names of masks, and the role of the nodes in each."""

SplitSource = Literal["auto", "masks", "random"]
"""Source of a split: `auto` takes masks where all three are present, and else draws the split."""


def roles_of_masks(masks: Mapping[str, np.ndarray], split: SplitSource, source: str) -> tuple[np.ndarray | None, Notes]:
    """The role of each node.

    Args:
        masks: the source's masks, bool `[nodes]`, by the names of `MASKS`.
        split: source of the split.
        source: begin of an error.

    Returns:
        int8 `[nodes]`, -1 for nodes of no mask, or None where the split is drawn; and a note on unused masks.

    Raises:
        SubflError: `masks` are asked for and there is no train_mask or no test_mask, or a node is in two masks.
    """
    if not masks or split == "random":
        if split == "masks":
            raise SubflError(f"{source}: dataset.split=masks needs train_mask, val_mask and test_mask; it has none")
        return None, Notes(tuple(f"{name} (dataset.split=random)" for name in masks))
    missing = [name for name in MASKS if name not in masks]
    if missing and split == "auto":
        there = " and ".join(masks)
        return None, Notes(
            (f"{there}: without {' and '.join(missing)}",),
            (
                f"{source}: {there} split nothing without {' and '.join(missing)}, so the split is drawn at random; "
                "dataset.split=masks takes what there is",
            ),
        )
    if "train_mask" in missing or "test_mask" in missing:
        raise SubflError(f"{source}: dataset.split=masks needs train_mask and test_mask; it has {' and '.join(masks)}")
    together = np.sum([mask.astype(np.int8) for mask in masks.values()], axis=0)
    if np.any(together > 1):
        first = int(np.flatnonzero(together > 1)[0])
        raise SubflError(
            f"{source}: {np.count_nonzero(together > 1)} nodes are in more than one of {', '.join(masks)}, the first "
            f"in row {first + 1}; a node has one role. dataset.split=random draws a split instead"
        )
    roles = np.full(len(together), NO_ROLE, dtype=np.int8)
    for name, mask in masks.items():
        roles[mask] = MASKS[name]
    return roles, Notes()
