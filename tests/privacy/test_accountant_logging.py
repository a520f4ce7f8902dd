"""Effect of dp-accounting's logging library on a standard error that it did not open."""

from __future__ import annotations

import subprocess
import sys

REPLACED = """
import io, logging.config, sys
sys.stderr = ours = io.StringIO()
from subfl_flower.privacy.accountant import user_level_epsilon
from subfl_flower.privacy.mechanism import LaplaceL1
user_level_epsilon(LaplaceL1(), 2, 1e-5)
sys.stderr = io.StringIO()
logging.config.dictConfig({"version": 1})
assert not ours.closed
"""


def test_a_replaced_standard_error_is_not_closed_when_logging_is_set_up_anew() -> None:
    done = subprocess.run([sys.executable, "-c", REPLACED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
