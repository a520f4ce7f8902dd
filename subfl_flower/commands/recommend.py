"""`subfl recommend MODEL`: a recommender's best items that a user has not rated."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.commands.exit_codes import OK
from subfl_flower.commands.parser import own_settings
from subfl_flower.errors import SubflError

SUMMARY = "Show the items that a user has not rated and a trained recommender finds best."
EXAMPLE = """
subfl recommend outputs/2026-01-01/12-00-00 user=user-12 n=20
subfl recommend outputs/2026-01-01/12-00-00 --all out=recommendations.csv
subfl recommend folders/client-03
"""

_SETTINGS = ("user", "client", "n", "all", "data", "out")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and the settings."""
    parser.usage = "subfl recommend MODEL [user=ID | client=NUMBER | --all] [n=10] [data=DIR] [out=FILE]"
    parser.description = """\
The items that a user has not rated and that a recommender finds best, with predicted ratings
or, where it ranks items (task=ranking), with scores, of which only the order counts."""
    parser.epilog = """\
user=ID      the user, as the data set calls it; this or client= is required for a run of a simulation
client=NUMBER
             the user, as a client
--all        all users of a run, into out=FILE (user, item, title if there are titles, score); also all=true
n=10         how many items a user
data=DIR     the user's folder, where MODEL is something else than a run of a simulation or that folder
out=FILE     write them as CSV instead of showing them; its column score is the predicted rating, where ratings are
             predicted

Users and items are called by their ids in the data set; in a user's folder of an older version, which does not hold
these, by their numbers."""
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a run directory of a simulation, or a user's folder: its newest run"
    )
    parser.add_argument("--all", action="store_true", help="recommend to all users of a run")
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="see below")


def run(options: argparse.Namespace) -> int:
    """Show or write the items.

    Raises:
        SubflError: an argument is wrong, or the model or the data cannot be used.
    """
    request = _request(options.arguments, options.all)
    model = options.model.expanduser()

    from subfl_flower.commands.recommendations.output import recommend, recommend_everyone
    from subfl_flower.commands.recommendations.users import UsersOfRun, open_user

    if request.everyone is not None:
        recommend_everyone(UsersOfRun.open(model), request.n, request.everyone)
    else:
        recommend(open_user(model, request.client, request.data, request.user), request.n, request.out)
    return OK


@dataclass(frozen=True)
class _Request:
    """Arguments of the command.

    Attributes:
        user: the source's id of the user; None: see `client`.
        client: client id of the user; None for the user of the folder.
        n: number of items.
        data: the user's folder, where `model` is something else.
        out: a CSV file; None shows a table.
        everyone: a CSV file for all users of a run; None for one user.
    """

    user: str | None
    client: int | None
    n: int
    data: Path | None
    out: Path | None
    everyone: Path | None


def _request(arguments: Sequence[str], everyone: bool) -> _Request:
    given, others = own_settings(arguments, _SETTINGS)
    for name in (argument.partition("=")[0] for argument in others):
        advice = did_you_mean(name, _SETTINGS)
        raise SubflError(f"{name}: there is no such setting; there are {', '.join(_SETTINGS)}{advice}")
    for name, value in given.items():
        if not value:
            raise SubflError(f"{name}: a value is required, as in {name}=...")
    if given.get("all", "true") not in ("true", "false"):
        raise SubflError(f"all: must be true or false (found {given['all']!r})")
    everyone = given.get("all", "true" if everyone else "false") == "true"
    if everyone and "out" not in given:
        raise SubflError("all: a file is required, as in out=recommendations.csv")
    if everyone and (of_one := [name for name in ("user", "client", "data") if name in given]):
        raise SubflError(f"{of_one[0]}: is of one user, and all=true is for all of them; leave one out")
    paths = {name: Path(given[name]).expanduser() for name in ("data", "out") if name in given}
    return _Request(
        user=given.get("user"),
        client=_number("client", given["client"], 0) if "client" in given else None,
        n=_number("n", given.get("n", "10"), 1),
        data=paths.get("data"),
        out=paths.get("out"),
        everyone=paths["out"] if everyone else None,
    )


def _number(name: str, text: str, least: int) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < least:
        raise SubflError(f"{name}: must be a whole number, {least} or more (found {text!r})")
    return int(text)
