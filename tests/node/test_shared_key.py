from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from subfl_flower.errors import SubflError
from subfl_flower.node.shared_key import KEY_BYTES, SharedKey

OTHER_PROCESS = """
import sys
from pathlib import Path
from subfl_flower.node.shared_key import SharedKey
print("ready", flush=True)
sys.stdin.readline()
print(SharedKey(Path(sys.argv[1]), create=True).read().hex())
"""
FULL_DISK = """
import resource, sys
from pathlib import Path
from subfl_flower.node.shared_key import SharedKey
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
SharedKey(Path(sys.argv[1]), create=True).read()
"""


def test_a_key_is_made_once_for_its_owner_alone_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "in" / "clients.key"
    key = SharedKey(path, create=True).read()
    assert len(key) == KEY_BYTES == 32
    assert path.read_bytes() == key and path.stat().st_mode & 0o777 == 0o600
    assert SharedKey(path, create=True).read() == SharedKey(path).read() == key
    assert [entry.name for entry in path.parent.iterdir()] == ["clients.key"]


def test_two_federations_have_two_keys(tmp_path: Path) -> None:
    keys = {SharedKey(tmp_path / f"{k}.key", create=True).read() for k in range(4)}
    assert len(keys) == 4


def test_a_key_that_was_given_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "given.key"
    path.write_bytes(bytes(range(32)))
    assert SharedKey(path, create=True).read() == bytes(range(32))


def test_many_threads_at_once_get_one_key(tmp_path: Path) -> None:
    for attempt in range(10):
        shared, start = SharedKey(tmp_path / str(attempt) / "clients.key", create=True), threading.Barrier(8)

        def read(shared: SharedKey = shared, start: threading.Barrier = start) -> bytes:
            start.wait()
            return shared.read()

        with ThreadPoolExecutor(8) as pool:
            keys = {future.result() for future in [pool.submit(read) for _ in range(8)]}
        assert keys == {shared.path.read_bytes()}
        assert [entry.name for entry in shared.path.parent.iterdir()] == ["clients.key"]


def test_many_processes_at_once_get_one_key(tmp_path: Path) -> None:
    path = tmp_path / "clients.key"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for process in processes:  # all have imported what they need and wait for a line
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        keys = {process.communicate(timeout=60)[0].strip() for process in processes}
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert keys == {path.read_bytes().hex()}


def test_who_loses_the_race_to_make_a_key_takes_the_winners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes the key after this one has seen that there is none."""
    shared, winners = SharedKey(tmp_path / "clients.key", create=True), bytes(reversed(range(32)))

    def meanwhile(size: int) -> bytes:
        shared.path.write_bytes(winners)
        return bytes(size)

    monkeypatch.setattr("subfl_flower.node.shared_key.secrets.token_bytes", meanwhile)
    assert shared.read() == winners == shared.path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["clients.key"]


def test_a_key_that_is_missing_is_not_made_unless_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "clients.key"
    with pytest.raises(SubflError, match=r"shared key cannot be read from .*clients\.key: No such file"):
        SharedKey(path).read()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_file_of_another_size_is_no_key(tmp_path: Path, size: int) -> None:
    path = tmp_path / "clients.key"
    path.write_bytes(bytes(size))
    with pytest.raises(SubflError, match=rf"clients\.key holds {size} bytes; the clients' shared key has 32"):
        SharedKey(path, create=True).read()
    assert path.read_bytes() == bytes(size)


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match="cannot be read from"):
        SharedKey(tmp_path, create=True).read()


@pytest.mark.parametrize("name", ["file/clients.key", "file/deep/clients.key", "k" * 300], ids=["file", "deep", "long"])
def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SubflError, match="shared key cannot be written to") as error:
        SharedKey(tmp_path / name, create=True).read()
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_takes_no_byte_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "clients.key")], capture_output=True, text=True, timeout=60
    )
    assert "SubflError: the clients' shared key cannot be written to" in finished.stderr
    assert not any(tmp_path.iterdir())
