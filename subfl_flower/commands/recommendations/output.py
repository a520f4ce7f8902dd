"""Tables of recommended items, as `subfl recommend` shows and writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from subfl_flower.commands.recommendations.best_items import best_items, recommended
from subfl_flower.commands.recommendations.users import UsersOfRun, UserToRecommend
from subfl_flower.commands.tables import print_table, with_progress, write_csv
from subfl_flower.data.graph import TEST


def recommend(user: UserToRecommend, n: int, out: Path | None) -> None:
    """Show or write the n best items of a user."""
    items, values = recommended(user, n)
    header, rows = _rows(user, items, values)
    _print_about(user)
    if out is not None:
        write_csv(out, [*header, "score"], rows)
        print(f"{len(rows)} items in {out}")
        return
    print_table([*header, "score" if user.recommender.ranks else "predicted rating"], rows)


def recommend_everyone(users: UsersOfRun, n: int, out: Path) -> None:
    """Write the n best items of each user of a run."""
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
    prepared = users.prepared
    user_names, item_names, titles = prepared.user_names(), prepared.item_names(), prepared.titles()
    for parts in with_progress(users.blocks(), "users", users.num_blocks):
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for recommender, ratings in parts:
            found |= zip(ratings.user_ids.tolist(), best_items(recommender, ratings, n), strict=True)
        for client in sorted(found):
            for item, value in zip(*(column.tolist() for column in found[client]), strict=True):
                title = () if titles is None else (titles[item],)
                yield user_names[client], item_names[item], *title, f"{value:.4f}"


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
