"""Large freed blocks are handed back, small ones are kept."""

from __future__ import annotations

import subprocess
import sys

import pytest

from subfl_flower.wire import memory

PROGRAM = """
import psutil
from subfl_flower.wire.memory import hand_back_freed_memory, keep_freed_memory
keep_freed_memory()
blocks = [bytearray(2**20) for _ in range(400)]
for block in blocks:
    block[:] = b"1" * len(block)
del block
kept = blocks[::2]  # what is freed between them is no block in one piece
del blocks
resident = lambda: psutil.Process().memory_info().rss
freed = resident()
hand_back_freed_memory(SIZE)
print((freed - resident()) // 2**20)
"""


@pytest.mark.skipif(memory._glibc() is None, reason="not glibc")
@pytest.mark.parametrize(("size", "handed_back"), [(2**28, True), (2**28 - 1, False)])
def test_pieces_between_others_go_back_to_the_system_where_they_are_many(size: int, handed_back: bool) -> None:
    command = [sys.executable, "-c", PROGRAM.replace("SIZE", str(size))]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    mebibytes = int(ran.stdout)
    assert mebibytes > 150 if handed_back else mebibytes < 50
