"""The table of commands, made from the list of ``subfl --help``."""

from __future__ import annotations

from subfl_flower.commands.overview import COMMANDS, TRAINING


def commands_table() -> str:
    """A table in Markdown with a row for each command."""
    lines = ["| command | use |", "|---|---|"]
    lines += [f"| `subfl {form}` | {text} |" for form, text in TRAINING.items()]
    lines += [f"| `subfl {name}` | {listed.summary} |" for name, listed in COMMANDS.items()]
    return "\n".join(lines) + "\n"
