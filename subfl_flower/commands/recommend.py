"""`subfl recommend MODEL`: the items that a user has not rated and that a recommender finds best."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from subfl_flower.commands.csv_file import write_csv
from subfl_flower.commands.user_to_recommend import UserToRecommend, open_user
from subfl_flower.data.graph import TEST
from subfl_flower.errors import SubflError
from subfl_flower.models.ranker_file import Ranker

_ARGUMENTS = ("client", "n", "data", "out")


def main(argv: Sequence[str]) -> int:
    """Runs `subfl recommend ARGV`; the exit code, 2 for what the user can mend."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as exit_:  # argparse has printed its message, or the help that was asked for
        return int(exit_.code or 0)
    sys.path.append(str(Path.cwd()))  # a run's method may be a class of the user's own
    try:
        _recommend(_request(options.model, options.arguments))
    except SubflError as error:
        print(f"subfl recommend: {error}", file=sys.stderr)
        return 2
    return 0


@dataclass(frozen=True)
class _Request:
    """What is asked for.

    Attributes:
        model: a run directory, or a user's folder.
        client: id of the user; None for the one whose folder it is.
        n: how many items.
        data: the user's folder, where `model` is something else.
        out: a CSV file; None shows a table.
    """

    model: Path
    client: int | None
    n: int
    data: Path | None
    out: Path | None


def _request(model: Path, arguments: Sequence[str]) -> _Request:
    given: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in _ARGUMENTS:
            raise SubflError(f"{name}: there is no such setting; there are {', '.join(_ARGUMENTS)}")
        if not value:
            raise SubflError(f"{name}: a value is required, as in {name}=...")
        given[name] = value
    paths = {name: Path(given[name]).expanduser() for name in ("data", "out") if name in given}
    return _Request(
        model=model.expanduser(),
        client=_number("client", given["client"], 0) if "client" in given else None,
        n=_number("n", given.get("n", "10"), 1),
        data=paths.get("data"),
        out=paths.get("out"),
    )


def _number(name: str, text: str, least: int) -> int:
    if not re.fullmatch("[0-9]{1,18}", text) or int(text) < least:
        raise SubflError(f"{name}: must be a whole number, {least} or more (found {text!r})")
    return int(text)


def _recommend(request: _Request) -> None:
    user = open_user(request.model, request.client, request.data)
    items, values = recommended(user, request.n)
    header, rows = _rows(user, items, values)
    _print_about(user)
    if request.out is not None:
        write_csv(request.out, header, rows)
        print(f"{len(rows)} items in {request.out}")
        return
    table = Table(*header)
    for row in rows:
        table.add_row(*(Text(value) for value in row))  # a title may hold what rich takes for markup
    Console().print(table)


def recommended(user: UserToRecommend, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n best items that the user has not rated, best first; fewer where there are fewer.

    Ratings that were held out for the test count as not given. Of items that are scored alike the one with the lower
    number comes first; beyond the ends of a scale of ratings items are still told apart.

    Returns:
        Items, int64, and what they are recommended by, float32: their predicted ratings, in rating units, clipped to
        the scale; of a recommender that ranks their scores, which have no unit.
    """
    rated = user.ratings.items[user.ratings.roles != TEST]
    others = np.setdiff1d(np.arange(user.ratings.num_items), rated)
    (scores,) = user.recommender.scores(user.ratings, [others])
    best = np.argsort(-scores, kind="stable")[:n]
    if not isinstance(user.recommender, Ranker):
        scores = scores.clip(*user.recommender.card.scale)
    return others[best], scores[best]


def _rows(user: UserToRecommend, items: np.ndarray, values: np.ndarray) -> tuple[list[str], list[tuple[str, ...]]]:
    numbers = items.tolist()
    columns = {"item": [str(item) if user.item_names is None else user.item_names[item] for item in numbers]}
    if user.titles is not None:
        columns["title"] = [user.titles[item] for item in numbers]
    named = "score" if _ranks(user) else "predicted rating"
    columns[named] = [f"{value:.4f}" for value in values.tolist()]
    return list(columns), list(zip(*columns.values(), strict=True))


def _print_about(user: UserToRecommend) -> None:
    card, ratings = user.recommender.card, user.ratings
    print(f"{card.method}'s recommender of round {card.round} ({card.dataset})")
    known = ratings.values[ratings.roles != TEST].astype(np.float64)
    mean = f", {known.mean():.2f} on average" if len(known) else ""
    print(f"client {user.client_id} has rated {len(known)} of {ratings.num_items} items{mean}")
    held_out = len(ratings) - len(known)
    if held_out:
        print(f"{held_out} further ratings are held out for the test; their items count as not rated")
    if _ranks(user):
        print("a score is no rating: it has no unit, and only the order of a user's items by it counts")


def _ranks(user: UserToRecommend) -> bool:
    """Whether the recommender scores items instead of predicting ratings."""
    return isinstance(user.recommender, Ranker)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subfl recommend",
        usage="subfl recommend MODEL [client=ID] [n=10] [data=DIR] [out=FILE]",
        description="The items that a user has not rated and that a recommender finds best, with predicted ratings\n"
        "or, where it ranks items (task=ranking), with scores, of which only the order counts.",
        epilog="""\
client=ID    the user, as a client; required for a run of a simulation
n=10         how many items
data=DIR     the user's folder, where MODEL is something else than a run of a simulation or that folder
out=FILE     write them as CSV instead of showing them

Items are called by their ids in the data set; in a user's folder, which does not hold these, by their numbers.

examples:
  subfl recommend outputs/2026-01-01/12-00-00 client=3 n=20
  subfl recommend folders/client-03""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a run directory of a simulation, or a user's folder: its newest run"
    )
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="see below")
    return parser
