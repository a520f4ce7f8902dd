"""`subfl report` in this process."""

from subfl_flower.cli import run


def report(*arguments: object) -> int:
    """Exit code of `subfl report ARGUMENTS`."""
    return run(["report", *map(str, arguments)])
