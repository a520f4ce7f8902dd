"""`subfl recommend MODEL`: a recommender's best items that a user has not rated."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from subfl_flower.commands.csv_file import write_csv
from subfl_flower.commands.user_to_recommend import UsersOfRun, UserToRecommend, open_user
from subfl_flower.data.graph import TEST
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.recommendation.models.trained_users import TrainedUsers

_ARGUMENTS = ("user", "client", "n", "all", "data", "out")


def main(argv: Sequence[str]) -> int:
    """Run `subfl recommend ARGV`; return the exit code, 2 for errors that the user can mend."""
    try:
        options = _parser().parse_intermixed_args(argv)
    except SystemExit as exit_:  # argparse has printed its message, or the help that was asked for
        return int(exit_.code or 0)
    sys.path.append(str(Path.cwd()))  # a run's method may be the user's class
    try:
        request = _request(options.model, options.arguments, options.all)
        if request.everyone is not None:
            _recommend_everyone(request.model, request.n, request.everyone)
        else:
            _recommend(request)
    except SubflError as error:
        print(f"subfl recommend: {error}", file=sys.stderr)
        return 2
    return 0


@dataclass(frozen=True)
class _Request:
    """Arguments of the command.

    Attributes:
        model: a run directory, or a user's folder.
        user: the source's id of the user; None: see `client`.
        client: client id of the user; None for the user of the folder.
        n: number of items.
        data: the user's folder, where `model` is something else.
        out: a CSV file; None shows a table.
        everyone: a CSV file for all users of a run; None for one user.
    """

    model: Path
    user: str | None
    client: int | None
    n: int
    data: Path | None
    out: Path | None
    everyone: Path | None


def _request(model: Path, arguments: Sequence[str], everyone: bool) -> _Request:
    given: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in _ARGUMENTS:
            raise SubflError(f"{name}: there is no such setting; there are {', '.join(_ARGUMENTS)}")
        if not value:
            raise SubflError(f"{name}: a value is required, as in {name}=...")
        given[name] = value
    if given.get("all", "true") not in ("true", "false"):
        raise SubflError(f"all: must be true or false (found {given['all']!r})")
    everyone = given.get("all", "true" if everyone else "false") == "true"
    if everyone and "out" not in given:
        raise SubflError("all: a file is required, as in out=recommendations.csv")
    if everyone and (of_one := [name for name in ("user", "client", "data") if name in given]):
        raise SubflError(f"{of_one[0]}: is of one user, and all=true is for all of them; leave one out")
    paths = {name: Path(given[name]).expanduser() for name in ("data", "out") if name in given}
    return _Request(
        model=model.expanduser(),
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


def _recommend(request: _Request) -> None:
    user = open_user(request.model, request.client, request.data, request.user)
    items, values = recommended(user, request.n)
    header, rows = _rows(user, items, values)
    _print_about(user)
    if request.out is not None:
        write_csv(request.out, [*header, "score"], rows)
        print(f"{len(rows)} items in {request.out}")
        return
    table = Table(*header, "score" if user.recommender.ranks else "predicted rating")
    for row in rows:
        table.add_row(*(Text(value) for value in row))  # a title may contain rich's markup
    Console().print(table)


def _recommend_everyone(run: Path, n: int, out: Path) -> None:
    """Write the n best items of each user of a run; the header line says how many users there are."""
    users = UsersOfRun.open(run)
    card = users.recommenders[0].card
    print(f"{card.method}'s recommender of round {card.round} ({card.dataset})")
    unknown = users.prepared.num_clients - len(users.client_ids)
    if unknown:
        print(f"{unknown} of {users.prepared.num_clients} users are not known to the recommender and are left out")
    header = ["user", "item", *(["title"] if users.prepared.titles() is not None else []), "score"]
    rows = list(_rows_of_everyone(users, n))
    write_csv(out, header, rows)
    print(f"{len(rows)} items of {len(users.client_ids)} users in {out}")


def _rows_of_everyone(users: UsersOfRun, n: int) -> Iterator[tuple[str, ...]]:
    user_names, item_names, titles = (
        users.prepared.user_names(),
        users.prepared.item_names(),
        users.prepared.titles(),
    )
    console = Console(stderr=True)
    blocks = track(users.blocks(), "users", users.num_blocks, console=console, disable=not console.is_terminal)
    for parts in blocks:
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for recommender, ratings in parts:
            found |= zip(ratings.user_ids.tolist(), best_items(recommender, ratings, n), strict=True)
        for client in sorted(found):
            for item, value in zip(*(column.tolist() for column in found[client]), strict=True):
                title = () if titles is None else (titles[item],)
                yield user_names[client], item_names[item], *title, f"{value:.4f}"


def recommended(user: UserToRecommend, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n best items that the user has not rated, best first; see `best_items`."""
    (found,) = best_items(user.recommender, user.ratings, n)
    return found


def best_items(recommender: TrainedUsers, ratings: Ratings, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The n best items that each user has not rated, best first; fewer where there are fewer.

    Ratings held out for the test count as not given. Among equal scores the item with the lower number comes first.
    Items are ordered by scores before clipping, so that they differ also beyond the ends of the rating scale.

    Args:
        recommender: with exactly these users.
        ratings: of these users.
        n: at least 1.

    Returns:
        For each user the items, int64, and their values, float32: predicted ratings, in rating units, clipped to the
        scale; or, of a recommender that ranks, scores without a unit.
    """
    asked = []
    for position in range(ratings.num_users):
        own = slice(int(ratings.offsets[position]), int(ratings.offsets[position + 1]))
        rated = ratings.items[own][ratings.roles[own] != TEST]
        asked.append(np.setdiff1d(np.arange(ratings.num_items), rated, assume_unique=True))
    found = []
    for items, scores in zip(asked, recommender.scores(ratings, asked), strict=True):
        best = _best(scores, n)
        found.append((items[best], recommender.shown(scores[best])))
    return found


def _best(scores: np.ndarray, n: int) -> np.ndarray:
    """Positions of the n largest scores, the largest first; among equal scores the earlier first."""
    if n < len(scores) and not np.isnan(scores).any():
        candidates = np.flatnonzero(scores >= np.partition(scores, len(scores) - n)[len(scores) - n])
        return candidates[np.argsort(-scores[candidates], kind="stable")[:n]]
    return np.argsort(-scores, kind="stable")[:n]


def _rows(user: UserToRecommend, items: np.ndarray, values: np.ndarray) -> tuple[list[str], list[tuple[str, ...]]]:
    """The names of all columns but the last, and the rows; the last column holds the items' values."""
    numbers = items.tolist()
    columns = {"item": [str(item) if user.item_names is None else user.item_names[item] for item in numbers]}
    if user.titles is not None:
        columns["title"] = [user.titles[item] for item in numbers]
    scores = [f"{value:.4f}" for value in values.tolist()]
    return list(columns), list(zip(*columns.values(), scores, strict=True))


def _print_about(user: UserToRecommend) -> None:
    card, ratings = user.recommender.card, user.ratings
    print(f"{card.method}'s recommender of round {card.round} ({card.dataset})")
    known = ratings.values[ratings.roles != TEST].astype(np.float64)
    ranks_alone = user.recommender.ranks and len(set(known.tolist())) == 1  # of users and items without ratings
    mean = f", {known.mean():.2f} on average" if len(known) and not ranks_alone else ""
    named = f"client {user.client_id}" if user.name is None else f"user {user.name} (client {user.client_id})"
    print(f"{named} has rated {len(known)} of {ratings.num_items} items{mean}")
    held_out = len(ratings) - len(known)
    if held_out:
        print(f"{held_out} further ratings are held out for the test; their items count as not rated")
    if user.recommender.ranks:
        print("a score is no rating: it has no unit, and only the order of a user's items by it counts")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subfl recommend",
        usage="subfl recommend MODEL [user=ID | client=NUMBER | --all] [n=10] [data=DIR] [out=FILE]",
        description="The items that a user has not rated and that a recommender finds best, with predicted ratings\n"
        "or, where it ranks items (task=ranking), with scores, of which only the order counts.",
        epilog="""\
user=ID      the user, as the data set calls it; this or client= is required for a run of a simulation
client=NUMBER
             the user, as a client
--all        all users of a run, into out=FILE (user, item, title if there are titles, score); also all=true
n=10         how many items a user
data=DIR     the user's folder, where MODEL is something else than a run of a simulation or that folder
out=FILE     write them as CSV instead of showing them; its column score is the predicted rating, where ratings are
             predicted

Users and items are called by their ids in the data set; in a user's folder of an older version, which does not hold
these, by their numbers.

examples:
  subfl recommend outputs/2026-01-01/12-00-00 user=user-12 n=20
  subfl recommend outputs/2026-01-01/12-00-00 --all out=recommendations.csv
  subfl recommend folders/client-03""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a run directory of a simulation, or a user's folder: its newest run"
    )
    parser.add_argument("--all", action="store_true", help="recommend to all users of a run")
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="see below")
    return parser
