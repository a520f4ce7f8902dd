"""Ledger of a client's privacy loss over all runs, kept by the site that holds the client's data.

It has an entry for each run and data fingerprint, with the mechanism and the number of uploads. An upload is written
down before it leaves. Entries of one fingerprint are composed, whatever their mechanisms: their Rényi divergences add
up, and so do their pure epsilons. Other data of the same client begin at zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from subfl_flower.errors import SubflError
from subfl_flower.privacy.accountant import (
    ORDERS,
    has_accountant,
    renyi_divergences,
    renyi_epsilon,
    whole_upload_epsilon,
)
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.storage.durable_files import make_private_folder, write_durably
from subfl_flower.storage.folder_lock import folder_lock

LEDGER_FILE = "privacy_ledger.json"
DELTA = 1e-5


class Entry(BaseModel):
    """Uploads of a client in one run.

    Attributes:
        run: the run's id.
        fingerprint: of the client's data.
        privacy: the mechanism.
        values: most values in an upload.
        uploads: number of uploads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    fingerprint: str
    privacy: LdpSettings
    values: int
    uploads: int


class _Content(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    entries: tuple[Entry, ...] = ()


def composed_epsilon(entries: Sequence[Entry], delta: float = DELTA) -> float:
    """Epsilon at `delta` of all uploads of some entries together; infinite where an upload has no bound.

    Without the extra `dp` it is the sum of pure epsilons.
    """
    pure = sum(entry.uploads * whole_upload_epsilon(entry.privacy, entry.values) for entry in entries)
    if not entries or not has_accountant():
        return pure
    divergences = np.zeros(len(ORDERS))
    for entry in entries:
        values = entry.values if entry.privacy.mechanism == "laplace_linf" else 1
        divergences = divergences + renyi_divergences(entry.privacy) * (entry.uploads * values)
    return min(pure, renyi_epsilon(divergences, delta))


class PrivacyLedger:
    """The ledger of one client.

    Args:
        folder: of the client, on the site; made if need be.
        limit: largest epsilon at `DELTA` that uploads of the same data may reach, in all runs together; None: no limit.
    """

    def __init__(self, folder: Path, limit: float | None = None) -> None:
        self._path, self._limit = folder / LEDGER_FILE, limit

    def spent(self, fingerprint: str) -> float:
        """Epsilon of all uploads of the data with a fingerprint.

        Raises:
            SubflError: the file is damaged.
        """
        return composed_epsilon(_of(self._read(), fingerprint))

    def spend(self, run: str, fingerprint: str, privacy: LdpSettings, values: int) -> float:
        """Write down one upload of so many values, before it leaves; epsilon with it.

        Raises:
            SubflError: it would exceed the limit, or the file is damaged or cannot be written.
        """
        with self._locked():
            entries = [*self._read()]
            place = next((i for i, entry in enumerate(entries) if _same(entry, run, fingerprint, privacy)), None)
            if place is None:
                entries.append(Entry(run=run, fingerprint=fingerprint, privacy=privacy, values=values, uploads=1))
            else:
                old = entries[place]
                more = {"uploads": old.uploads + 1, "values": max(old.values, values)}
                entries[place] = old.model_copy(update=more)
            before, after = self.spent(fingerprint), composed_epsilon(_of(entries, fingerprint))
            if self._limit is not None and after > self._limit:
                raise SubflError(
                    f"this site allows these data epsilon {self._limit:g} at delta {DELTA:g} over all runs; "
                    f"{before:.4g} is spent, and an upload of this run would make it {after:.4g}"
                )
            self._write(entries)
        return after

    def require_protection(self, mechanism: str, protects: bool) -> None:
        """Refuse a run whose uploads have no bound, where the site has a limit.

        Raises:
            SubflError: they have none.
        """
        if self._limit is not None and not protects:
            raise SubflError(
                f"this site allows its data epsilon {self._limit:g}, and privacy.mechanism={mechanism} does not "
                "protect what clients of this method upload"
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            make_private_folder(self._path.parent)
        except OSError as error:
            raise SubflError(f"cannot write {self._path.parent}: {error.strerror or error}") from error
        with folder_lock(self._path.parent, wait=True):
            yield

    def _read(self) -> tuple[Entry, ...]:
        try:
            return _Content.model_validate_json(self._path.read_bytes()).entries
        except FileNotFoundError:
            return ()
        except (OSError, ValidationError):
            raise SubflError(
                f"{self._path} cannot be read: this site cannot tell how much of the clients' privacy is spent"
            ) from None

    def _write(self, entries: Sequence[Entry]) -> None:
        content = {"entries": [entry.model_dump() for entry in entries]}
        try:
            write_durably(self._path, json.dumps(content, indent=1).encode() + b"\n")
        except OSError as error:
            raise SubflError(f"cannot write {self._path}: {error.strerror or error}") from error


def _of(entries: Sequence[Entry], fingerprint: str) -> list[Entry]:
    return [entry for entry in entries if entry.fingerprint == fingerprint]


def _same(entry: Entry, run: str, fingerprint: str, privacy: LdpSettings) -> bool:
    same_noise = math.isclose(entry.privacy.noise_scale, privacy.noise_scale, rel_tol=1e-9)
    same = (entry.run, entry.fingerprint, entry.privacy.mechanism) == (run, fingerprint, privacy.mechanism)
    return same and same_noise and entry.privacy.clip == privacy.clip
