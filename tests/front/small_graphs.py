"""Small graphs and tables, in memory and as the files that hold the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch_geometric.data import Data

from subfl_flower.runs.directory import RunDirectory

NODES = 48


def ring(**changes: object) -> Data:
    """A ring of two classes in halves; nodes are joined with the next and the next but one."""
    labels = torch.arange(NODES) // (NODES // 2)
    noise = torch.from_numpy(np.random.default_rng(3).standard_normal((NODES, 5)).astype(np.float32))
    own = torch.arange(NODES)
    edges = torch.cat([torch.stack([own, (own + step) % NODES]) for step in (1, 2)], dim=1)
    content = {"x": noise + labels[:, None], "edge_index": edges, "y": labels}
    return Data(**{**content, **changes})


def people() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of nodes and of edges, with ids that are text, a category and a gap."""
    random = np.random.default_rng(5)
    ids = [f"p{number:02d}" for number in range(NODES)]
    nodes = pd.DataFrame(
        {
            "id": ids,
            "label": [("home", "died")[number % 2] if number % 7 else None for number in range(NODES)],
            "age": np.where(np.arange(NODES) % 11 == 0, np.nan, random.normal(50, 9, NODES).round(1)),
            "ward": [("A", "B", "C")[number % 3] for number in range(NODES)],
            "smoker": [number % 5 == 0 for number in range(NODES)],
        }
    )
    edges = pd.DataFrame({"source": ids * 2, "target": [*np.roll(ids, 1), *np.roll(ids, 2)]})
    return nodes, edges


PEOPLE = {"dataset": {"features": {"one_hot": ["ward"], "impute": "median"}}}


def ratings() -> pd.DataFrame:
    """Ratings of 12 users, 9 of 20 items each, with times."""
    random = np.random.default_rng(7)
    rows = [
        (
            f"u{user}",
            item + 100,
            int(random.integers(1, 6)),
            pd.Timestamp("2024-01-01") + pd.Timedelta(hours=user + item),
        )
        for user in range(12)
        for item in random.choice(20, 9, replace=False)
    ]
    return pd.DataFrame(rows, columns=["userId", "movieId", "rating", "timestamp"])


def written(data: Data, path: Path) -> Path:
    """A PyG file of a graph."""
    torch.save(data, path)
    return path


def numbers(run: Path) -> list[dict[str, object]]:
    """All records of a run but for times, which differ between two runs."""
    return [{key: value for key, value in record.items() if key != "seconds"} for record in RunDirectory(run).rounds()]


def model_bytes(run: Path) -> dict[int, dict[str, bytes]]:
    """The parameters of each client's model."""
    from safetensors.numpy import load_file

    return {
        client: {name: values.tobytes() for name, values in load_file(file).items()}
        for client, file in RunDirectory(run).client_models().items()
    }
