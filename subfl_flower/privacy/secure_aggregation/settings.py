"""Settings of secure sums."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from subfl_flower.errors import SubflError
from subfl_flower.privacy.secure_sum import VALUE_BITS


class SecureSumSettings(BaseModel):
    """Settings of the sums by which a server learns no single client's upload.

    Attributes:
        enabled: hide every upload of a round in a sum over the round's clients.
        threshold: a sum is opened only where more than this share of the clients that began it remain. Above one half,
            so that no two groups of clients can open two halves of a secret.
        min_clients: least number of clients in a sum.
        neighbours: number of other clients with whom each client shares masks and secrets, even; all where there are
            fewer. ``all``: however many there are, at a cost that grows with the square of their number.
        fraction_bits: fractional bits of the fixed-point numbers that are summed.
        clip: L2 norm to which a client scales a longer update before it is masked; null: updates as they are.
        from_round: the first round whose uploads are summed; earlier ones are read one by one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    enabled: bool = False
    threshold: float = Field(default=0.6, ge=0.5, lt=1)
    min_clients: int = Field(default=3, ge=2)
    neighbours: Annotated[int, Field(ge=4, multiple_of=2)] | Literal["all"] = 32
    fraction_bits: int = Field(default=24, ge=8, lt=VALUE_BITS)
    clip: float | None = Field(default=None, gt=0)
    from_round: int = Field(default=1, ge=1)

    def sums(self, server_round: int) -> bool:
        """True for a round whose uploads are summed."""
        return self.enabled and server_round >= self.from_round

    def require_all_rounds(self, method: str) -> None:
        """Refuse sums that begin later than the run.

        Raises:
            SubflError: they do.
        """
        if self.from_round > 1:
            raise SubflError(
                f"secure_sums.from_round: method={method} has no rounds that need single uploads; only 1 is allowed "
                f"(found {self.from_round})"
            )

    def needed(self, members: int) -> int:
        """Least number of `members` that must remain: more than the share `threshold`."""
        return int(self.threshold * members) + 1
