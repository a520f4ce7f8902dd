"""Reading and writing of the files that a command line names, with errors that a user can mend."""

from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import make_private_folder, write_durably

PRIVATE, PUBLIC = 0o600, 0o644


def write_file(path: Path, content: bytes, mode: int) -> None:
    """Replace a file whole or not at all; it is never readable with other permissions than `mode`.

    Raises:
        SubflError: it cannot be written.
    """
    try:
        write_durably(path, content, mode)
    except OSError as error:
        raise SubflError(f"{path}: {error.strerror}; it must be in a folder that can be written") from error


def keep_private(path: Path) -> None:
    """Create an empty file where there is none, and take others' permissions from it.

    Raises:
        SubflError: it cannot be created, or is another account's.
    """
    try:
        path.touch(PRIVATE)
        path.chmod(PRIVATE)
    except OSError as error:
        raise SubflError(
            f"{path}: {error.strerror}; it must be this account's file, in a folder to write in"
        ) from error


def make_folder(folder: Path, private: bool = False) -> None:
    """Create a folder where there is none.

    Args:
        folder: the folder.
        private: for its owner alone, where it is made here.

    Raises:
        SubflError: it cannot be created.
    """
    try:
        if private:
            make_private_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SubflError(f"{folder}: {error.strerror}; it must be a folder to write in") from error


def read_file(path: Path, option: str) -> bytes:
    """The content of the file that an option names.

    Raises:
        SubflError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise SubflError(f"{option} {path}: {error.strerror}; it must be a file that can be read") from error
