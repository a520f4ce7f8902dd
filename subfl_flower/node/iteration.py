"""The order in which the clients of a node are worked: an exchangeable part.

A way to iterate takes batches, each small enough to be worked at once, and the work on one of them. All ways give the
same result; `one_by_one` is the plain one, for debugging and for tests of the others. Clients of different sizes are
padded to the largest one of their batch, which may change the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from subfl_flower.wire.batch import Batch, Result

Work = Callable[[Batch], Result]
Iteration = Callable[[Sequence[Batch], Work], Result]


def in_chunks(batches: Sequence[Batch], work: Work) -> Result:
    """Work batch by batch; a batch that fails is repeated client by client, to find the client that failed."""
    pending, parts = list(batches), list[Result]()
    while pending:
        batch = pending.pop(0)
        try:
            parts.append(work(batch))
        except Exception as error:
            if len(batch) > 1:
                pending = [batch.take([place]) for place in range(len(batch))] + pending
            else:
                parts.append(Result(failures={batch.clients[0]: f"{type(error).__name__}: {error}"}))
    return Result.joined(parts)


def one_by_one(batches: Sequence[Batch], work: Work) -> Result:
    """Work client by client."""
    return in_chunks([batch.take([place]) for batch in batches for place in range(len(batch))], work)
