"""The code of an app, as it comes to a site with a run: its digest, and those that the site allows."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import zipfile
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import make_private_folder, write_durably

ANY: Literal["any"] = "any"

_DATA_SUFFIXES = frozenset({".yaml", ".yml", ".md", ".json", ".jsonl"})
_DATA_NAMES = frozenset({"LICENSE", ".gitignore", "CONTENT"})
_MOST_BYTES = 256 * 2**20
_FILE = "code.json"
_log = logging.getLogger("flwr")


def code_digest(bundle: bytes) -> str:
    """SHA-256 over names and contents of all files of Flower's bundle that may be code, as hexadecimal digits.

    YAML, JSON and Markdown do not count: a node composes no configuration, and a user's ``conf/`` may change from run
    to run.

    Raises:
        SubflError: it is no bundle, or one of more than 256 MiB.
    """
    found = []
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as files:
            members = [each for each in files.infolist() if not each.is_dir()]
            if sum(each.file_size for each in members) > _MOST_BYTES:
                raise SubflError(f"the app's code takes more than {_MOST_BYTES // 2**20} MiB")
            for member in members:
                path = PurePosixPath(member.filename)
                if path.suffix not in _DATA_SUFFIXES and path.name not in _DATA_NAMES:
                    found.append(f"{member.filename}\0{hashlib.sha256(files.read(member)).hexdigest()}\n")
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise SubflError(f"the app's code is no bundle of Flower's ({error})") from None
    return hashlib.sha256("".join(sorted(found)).encode()).hexdigest()


class _Known(BaseModel):
    """Apps that a site knows.

    Attributes:
        pinned: digest of the first app's code; None before there is one.
        bundles: digest of the code of each bundle that was let in, by the bundle's SHA-256.
    """

    model_config = ConfigDict(extra="forbid")

    pinned: str | None = None
    bundles: dict[str, str] = {}


class AppCode:
    """Code that a site has let in.

    Args:
        folder: of the site's records.
        allowed: digests of code; None allows the first that comes, and from then on that one alone; ``any`` allows all.
    """

    def __init__(self, folder: Path, allowed: tuple[str, ...] | Literal["any"] | None) -> None:
        self._path, self._allowed = folder / _FILE, allowed

    def let_in(self, bundle: bytes) -> None:
        """Let an app's code in, and tell its digest in the log when it comes for the first time.

        Raises:
            SubflError: it is not allowed here.
        """
        name = hashlib.sha256(bundle).hexdigest()
        known = self._known()
        digest = known.bundles.get(name) or code_digest(bundle)
        if self._allowed is None:
            known.pinned = known.pinned or digest
            if digest != known.pinned:
                raise SubflError(
                    f"the app's code has digest {digest}, and this site runs the code that came first, {known.pinned}; "
                    "its policy's 'code' lists what is allowed"
                )
        elif self._allowed != ANY and digest not in self._allowed:
            raise SubflError(
                f"the app's code has digest {digest}, which is not among the {len(self._allowed)} that this site's "
                "policy allows ('code')"
            )
        if name not in known.bundles:
            known.bundles[name] = digest
            self._keep(known)
            _log.info("the app's code is new on this site: digest %s, of Flower's bundle %s", digest, name)

    def has_let_in(self, name: str) -> bool:
        """True for the SHA-256 of a bundle whose code was let in, and is still allowed."""
        try:
            known = self._known()
        except SubflError:
            return False
        digest = known.bundles.get(name)
        if digest is None or self._allowed is None:
            return digest is not None and digest == known.pinned
        return self._allowed == ANY or digest in self._allowed

    def _known(self) -> _Known:
        try:
            return _Known.model_validate_json(self._path.read_bytes()) if self._path.exists() else _Known()
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise SubflError(
                f"{self._path} is damaged ({reason}): this site cannot tell which code it allows"
            ) from None

    def _keep(self, known: _Known) -> None:
        try:
            make_private_folder(self._path.parent)
            write_durably(self._path, json.dumps(known.model_dump(), indent=1).encode() + b"\n")
        except OSError as error:
            raise SubflError(f"cannot write {self._path}: {error.strerror or error}") from error
