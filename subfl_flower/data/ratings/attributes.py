"""Categorical attributes of users or items; an entity has any number of values of each field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from subfl_flower.data.ratings.rows import rows_of
from subfl_flower.errors import SubflError

RawAttributes = Mapping[str, Mapping[str, Sequence[str]]]
"""Attributes as a source gives them: by field and id, the values as text."""

MOST_FIELDS, MOST_VALUES = 64, 2**20
"""Most fields of users or items, and most values of a field."""


@dataclass(frozen=True, eq=False)
class Attributes:
    """The attributes of N users or items.

    Value v of field f has the code `sum(sizes[:f]) + v`: all fields are numbered jointly. The entity at position p has
    the codes `codes[offsets[p]:offsets[p + 1]]`; one that has no value of a field has no code of it.

    Attributes:
        fields: for example `("age", "gender", "occupation")`; at least one.
        values: each field's vocabulary, sorted; at least one value a field.
        offsets: int64 `[N + 1]`.
        codes: int64 `[codes]`, ascending and all different within an entity.
    """

    fields: tuple[str, ...]
    values: tuple[tuple[str, ...], ...]
    offsets: np.ndarray
    codes: np.ndarray

    def __len__(self) -> int:
        """Number of entities, N."""
        return int(self.offsets.shape[0]) - 1

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each field."""
        return tuple(len(vocabulary) for vocabulary in self.values)

    @property
    def num_values(self) -> int:
        """Number of values of all fields together."""
        return sum(self.sizes)

    @property
    def vocabularies(self) -> dict[str, list[str]]:
        """Each field's values, in the form of the JSON file."""
        return {field: list(vocabulary) for field, vocabulary in zip(self.fields, self.values, strict=True)}

    def of(self, positions: Sequence[int] | np.ndarray) -> Attributes:
        """The attributes of the entities at `positions`, in that order; the arrays are copies."""
        offsets, rows = rows_of(self.offsets, positions)
        return Attributes(self.fields, self.values, offsets, self.codes[rows])

    def require_sound(self, count: int, where: str) -> None:
        """Refuse arrays that are not the attributes of `count` entities.

        Raises:
            SubflError: begins with `where` and says what is wrong.
        """
        offsets, codes = self.offsets, self.codes
        if not (offsets.dtype == codes.dtype == np.int64 and offsets.ndim == codes.ndim == 1):
            raise SubflError(f"{where}: offsets and codes of attributes must be lists of int64")
        if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != codes.size or np.any(np.diff(offsets) < 0):
            raise SubflError(f"{where}: offsets of attributes must rise from 0 to {codes.size} over {count} entities")
        if codes.size and (codes.min() < 0 or codes.max() >= self.num_values):
            raise SubflError(f"{where}: codes of attributes must lie within 0..{self.num_values - 1}")
        same_entity = np.diff(np.repeat(np.arange(count), np.diff(offsets))) == 0
        if np.any(np.diff(codes)[same_entity] <= 0):
            raise SubflError(f"{where}: codes of attributes must be ascending and different within an entity")

    @classmethod
    def of_vocabularies(
        cls, vocabularies: Mapping[str, Sequence[str]], offsets: np.ndarray, codes: np.ndarray
    ) -> Attributes:
        """Attributes with the fields and values of `vocabularies`."""
        return cls(tuple(vocabularies), tuple(map(tuple, vocabularies.values())), offsets, codes)

    @classmethod
    def joined(cls, parts: Sequence[Attributes]) -> Attributes:
        """At least one part, all with the same vocabularies, joined in order."""
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        return cls(parts[0].fields, parts[0].values, offsets, np.concatenate([part.codes for part in parts]))

    @classmethod
    def numbered(cls, raw: RawAttributes, names: Sequence[str], what: str) -> Attributes | None:
        """The attributes of the entities with certain ids, by position.

        Ids of `raw` that are not among `names` are left out, and so is a field of which no entity has a value.

        Args:
            raw: the source's attributes.
            names: the id of each entity, as text.
            what: name of the entities, for the error.

        Returns:
            None where no field is left.

        Raises:
            SubflError: there are more fields, or more values of one, than are allowed.
        """
        vocabularies = {
            field: sorted({value for name in names for value in values_of.get(name, ())})
            for field, values_of in raw.items()
        }
        vocabularies = {field: vocabulary for field, vocabulary in vocabularies.items() if vocabulary}
        if not vocabularies:
            return None
        _require_few(vocabularies, what)
        pairs = ((field, value) for field, vocabulary in vocabularies.items() for value in vocabulary)
        code_of = {pair: code for code, pair in enumerate(pairs)}
        own = [
            sorted({code_of[field, value] for field in vocabularies for value in raw[field].get(name, ())})
            for name in names
        ]
        offsets = np.concatenate([[0], np.cumsum([len(codes) for codes in own], dtype=np.int64)])
        return cls.of_vocabularies(vocabularies, offsets, np.fromiter(chain.from_iterable(own), np.int64, offsets[-1]))


def _require_few(vocabularies: Mapping[str, Sequence[str]], what: str) -> None:
    """Refuse more fields, or more values of one, than are allowed.

    Raises:
        SubflError: begins with `what` and says which.
    """
    if len(vocabularies) > MOST_FIELDS:
        raise SubflError(f"{what} have {len(vocabularies)} fields of attributes; at most {MOST_FIELDS} are allowed")
    for field, vocabulary in vocabularies.items():
        if len(vocabulary) > MOST_VALUES:
            raise SubflError(f"{what}: {field} has {len(vocabulary)} values; at most {MOST_VALUES} are allowed")
