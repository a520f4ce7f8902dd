"""Time of a round by part: this project's work, the processes that Flower starts for it, and waiting."""

from subfl_flower.evaluation.runs import Run

_WORDS = {
    "startup": "process start",
    "client": "data and training",
    "server": "server",
    "transport": "polls and network",
}


def round_time(run: Run) -> str | None:
    """One sentence on a run whose nodes were separate processes; None for other runs, whose time cannot be split."""
    parts = run.seconds_by_part
    total = run.seconds_per_round
    if total is None or not parts.get("startup"):
        return None
    split = " + ".join(f"{parts[name]:.2f} {words}" for name, words in _WORDS.items() if name in parts)
    return f"seconds a round: {total:.2f} = {split}"
