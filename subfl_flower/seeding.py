"""Random numbers that depend on their purpose, never on the place or time of the draw."""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch


def client_generator(seed: int, client_id: int, server_round: int, purpose: str) -> np.random.Generator:
    """The generator of one client for one purpose in one round, independent of where the client runs."""
    return np.random.default_rng([seed, 1 + client_id, server_round, zlib.crc32(purpose.encode())])


def shared_generator(seed: int, purpose: str) -> np.random.Generator:
    """The generator for values that the whole federation shares, such as the initial model."""
    return np.random.default_rng([seed, 0, 0, zlib.crc32(purpose.encode())])


def round_generator(seed: int, server_round: int, purpose: str) -> np.random.Generator:
    """The generator for values that a whole round shares, such as participation."""
    return np.random.default_rng([seed, 0, server_round, zlib.crc32(purpose.encode())])


def secret_generator(secret: bytes, client_id: int, purpose: str) -> np.random.Generator:
    """The generator for values that only a holder of the `secret` (32 bytes) can draw again."""
    digest = hashlib.blake2b(f"{client_id}/{purpose}".encode(), key=secret, digest_size=32).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))


def system_words(count: int) -> np.ndarray:
    """Random words of the operating system's cryptographic generator, uint64 [count]: never the same twice."""
    return np.frombuffer(bytearray(os.urandom(8 * count)), dtype=np.uint64)


class Normals(Protocol):
    """Source of standard normal numbers, such as NumPy's generator."""

    def standard_normal(self, size: tuple[int, ...], dtype: type[np.float32]) -> np.ndarray:
        """Numbers of a shape, float32."""


class SystemNormals:
    """Standard normal numbers from the operating system's cryptographic generator, never the same twice."""

    def standard_normal(self, size: tuple[int, ...], dtype: type[np.float32]) -> np.ndarray:
        """Numbers of a shape, by the transform of Box and Muller (Annals of Mathematical Statistics, 1958)."""
        pairs = -(-math.prod(size) // 2)
        radii, angles = ((system_words(2 * pairs) >> np.uint64(11)).astype(np.float64) + 0.5).reshape(
            2, pairs
        ) * 2.0**-53
        radii, angles = np.sqrt(-2 * np.log(radii)), 2 * np.pi * angles
        drawn = np.concatenate([radii * np.cos(angles), radii * np.sin(angles)])
        return drawn[: math.prod(size)].reshape(size).astype(dtype)


def words_of(generator: np.random.Generator) -> Callable[[int], np.ndarray]:
    """A source of random words, uint64 [count] for a count, that repeats where the generator does."""
    return lambda count: generator.integers(0, 2**64, count, dtype=np.uint64)


def torch_seed(generator: np.random.Generator) -> int:
    """A seed for PyTorch's generators: the next number of another generator."""
    return int(generator.integers(2**63))


@contextmanager
def torch_seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed PyTorch's global generators for the block, and restore their states afterwards.

    Args:
        seed: below 2^63.
        device: device on which the block draws, in addition to the CPU.
    """
    device = torch.device(device)
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
