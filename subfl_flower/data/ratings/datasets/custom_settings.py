"""Settings of a user's tables of ratings: names of columns."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RatingColumns(BaseModel):
    """Names of columns; None finds the usual ones in any case, such as `userId`, `user_id:token`, `movieId`.

    Attributes:
        user, item: ids; also in the tables of users and of items.
        rating: in rating units.
        timestamp: time of the rating.
        title: title of the item; also in the table of items.
        split: role of the rating, `train`, `validation` or `test`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    timestamp: str | None = None
    title: str | None = None
    split: str | None = None
