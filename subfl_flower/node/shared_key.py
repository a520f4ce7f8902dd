"""The key that all clients of a federation share and its server does not have.

Clients recognise common nodes by keyed hashes of their ids; without the key a hash cannot be matched with a guessed id.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import make_private_folder

KEY_BYTES = 32


@dataclass(frozen=True)
class SharedKey:
    """A file of 32 random bytes on every node's machine.

    Attributes:
        path: of the file.
        create: make it where it does not exist. This is right where all nodes are simulated with one disk; in a
            deployment all nodes must be given the same file.
    """

    path: Path
    create: bool = False

    def read(self) -> bytes:
        """The key.

        Raises:
            SubflError: there is no such file, or it does not hold exactly 32 bytes.
        """
        if self.create:
            self._make()
        try:
            key = self.path.read_bytes()
        except OSError as error:
            raise SubflError(
                f"the clients' shared key cannot be read from {self.path}: {error.strerror or error}"
            ) from None
        if len(key) != KEY_BYTES:
            raise SubflError(f"{self.path} holds {len(key)} bytes; the clients' shared key has {KEY_BYTES}")
        return key

    def _make(self) -> None:
        """Write a new key if none exists, complete and readable by its owner alone; of several processes one wins."""
        unfinished = self.path.with_name(f".{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            if self.path.exists():
                return
            make_private_folder(self.path.parent)
            try:
                descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(secrets.token_bytes(KEY_BYTES))
                with suppress(FileExistsError):
                    os.link(unfinished, self.path)
            finally:
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise SubflError(f"the clients' shared key cannot be written to {self.path}: {error}") from error
