"""Modules as somebody else would write them, named in tests by ``own_modules.CLASS``."""

from __future__ import annotations

import torch
from torch import Tensor


class Sums(torch.nn.Module):
    """(X + scale · A X) W, A weighted."""

    def __init__(self, num_features: int, num_classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = torch.nn.Parameter(torch.ones(num_features, num_classes))

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor) -> Tensor:
        sums = torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]] * edge_weight[:, None])
        return (x + self.scale * sums) @ self.weight


class Unweighted(torch.nn.Module):
    """A X W, and an embedding that is A X."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(in_channels, out_channels, bias=False)

    def embed(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(self.embed(x, edge_index))


class Counting(Unweighted):
    """Counts its training steps in a buffer that it assigns, and in one that it changes; one parameter is fixed."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.register_buffer("assigned", torch.zeros(2))
        self.register_buffer("counted", torch.tensor(7))
        self.offset = torch.nn.Parameter(torch.rand(out_channels), requires_grad=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        if self.training:
            self.assigned = self.assigned + x.sum()
            self.counted += 1
        return super().forward(x, edge_index) + self.offset


class Tied(torch.nn.Module):
    """x W Wᵀ V: two layers that share W."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = torch.nn.Linear(in_channels, in_channels, bias=False)
        self.second = torch.nn.Linear(in_channels, in_channels, bias=False)
        self.second.weight = self.first.weight
        self.last = torch.nn.Linear(in_channels, out_channels, bias=False)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.last(self.second(self.first(x)))


class Lazy(torch.nn.Module):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin = torch.nn.LazyLinear(out_channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(x)


class Double(Unweighted):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.double()


class LargeNumbers(Unweighted):
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.register_buffer("ids", torch.tensor([2**24 + 1]))


class Narrow(Unweighted):
    """Answers with one value too few."""

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return super().forward(x, edge_index)[:, 1:]


class Pair(Unweighted):
    def forward(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return x, x


class Needy(torch.nn.Module):
    def __init__(self, in_channels: int, out_channels: int, heads: int) -> None:
        super().__init__()


class Odd(torch.nn.Module):
    def __init__(self, depth: int = 2) -> None:
        super().__init__()


class Broken(torch.nn.Module):
    def __init__(self, in_channels: int, out_channels: int, **rest: int) -> None:
        raise ValueError("no such depth")
