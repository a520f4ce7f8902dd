"""Random numbers that depend on what they are for, never on where or when they are drawn."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def client_generator(seed: int, client_id: int, server_round: int, purpose: str) -> np.random.Generator:
    """The generator of one client for one purpose in one round: the same wherever the client runs."""
    return np.random.default_rng([seed, 1 + client_id, server_round, zlib.crc32(purpose.encode())])


def shared_generator(seed: int, purpose: str) -> np.random.Generator:
    """The generator of something that the whole federation shares, such as the initial model."""
    return np.random.default_rng([seed, 0, 0, zlib.crc32(purpose.encode())])


def round_generator(seed: int, server_round: int, purpose: str) -> np.random.Generator:
    """The generator of something that a whole round shares, such as who takes part in it."""
    return np.random.default_rng([seed, 0, server_round, zlib.crc32(purpose.encode())])


def secret_generator(secret: bytes, client_id: int, purpose: str) -> np.random.Generator:
    """The generator of something that only who has the `secret` (32 bytes) can draw again."""
    digest = hashlib.blake2b(f"{client_id}/{purpose}".encode(), key=secret, digest_size=32).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def torch_seed(generator: np.random.Generator) -> int:
    """A seed for PyTorch's generators: the next number of another generator."""
    return int(generator.integers(2**63))


@contextmanager
def torch_seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Let the block draw from PyTorch's global generators as `seed` says, and leave them as they were before.

    Args:
        seed: below 2^63.
        device: where the block draws, beside the CPU.
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
