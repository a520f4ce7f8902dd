"""A site's policy: runs that it takes part in, and how often it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from flwr.app import ConfigRecord, Message
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from subfl_flower.errors import SubflError
from subfl_flower.trust.orders import RUN
from subfl_flower.trust.site_records import Heard

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Count = Annotated[int, Field(strict=True, ge=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

TRAIN, EVALUATE, ASK = "train", "evaluate", "ask"
ALWAYS = frozenset({"query.roster", "query.keep", "query.export"})
"""Types of messages that tell the server sizes of the data alone, or have a node write files of its clients."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(_Section):
    """Bounds of a number.

    Attributes:
        least, most: inclusive; None for none.
    """

    least: float | None = None
    most: float | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> Range:
        if self.least is None and self.most is None:
            raise ValueError("needs 'least' or 'most'")
        return self

    def allows(self, value: object) -> bool:
        """True for a number within the bounds."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def __str__(self) -> str:
        bounds = {"at least": self.least, "at most": self.most}
        return " and ".join(f"{word} {bound:g}" for word, bound in bounds.items() if bound is not None)


class PrivacyPolicy(_Section):
    """Least protection of uploads.

    Attributes:
        mechanisms: values of ``privacy.mechanism``; None allows all.
        most_epsilon: of one upload, or of one value under ``laplace_linf``; a mechanism without epsilon is refused.
        least_noise_multiplier: of ``gaussian_l2``, whose uploads have no epsilon each.
    """

    mechanisms: tuple[str, ...] | None = None
    most_epsilon: float | None = Field(default=None, gt=0)
    least_noise_multiplier: float | None = Field(default=None, gt=0)

    def refusal(self, privacy: Mapping[str, Any]) -> str | None:
        """The reason for which a run's section ``privacy`` protects too little; None where it suffices."""
        mechanism = privacy.get("mechanism", "none")
        if self.mechanisms is not None and mechanism not in self.mechanisms:
            return f"privacy.mechanism is {mechanism}, and the policy allows {_listed(self.mechanisms)}"
        if mechanism == "gaussian_l2" and self.least_noise_multiplier is not None:
            multiplier = privacy.get("noise_multiplier")
            if not Range(least=self.least_noise_multiplier).allows(multiplier):
                return (
                    f"privacy.noise_multiplier is {multiplier}, and the policy asks for at least "
                    f"{self.least_noise_multiplier:g}"
                )
            return None
        if self.most_epsilon is None:
            return None
        epsilon = _epsilon(privacy)
        if epsilon is None:
            return f"privacy.mechanism is {mechanism}, which has no epsilon of one upload, and the policy bounds it"
        if not 0 < epsilon <= self.most_epsilon:
            return f"an epsilon of one upload is {epsilon:g}, and the policy allows at most {self.most_epsilon:g}"
        return None


def _epsilon(privacy: Mapping[str, Any]) -> float | None:
    mechanism, epsilon = privacy.get("mechanism"), privacy.get("epsilon")
    if mechanism not in ("laplace_l1", "laplace_linf"):
        return None
    if epsilon is None and mechanism == "laplace_linf":
        clip, noise = privacy.get("clip"), privacy.get("noise")
        both = isinstance(clip, int | float) and isinstance(noise, int | float) and noise > 0
        return 2 * clip / noise if both else None  # type: ignore[operator]
    return float(epsilon) if isinstance(epsilon, int | float) and not isinstance(epsilon, bool) else None


class Policy(_Section):
    """The whole policy; everything that it does not name is allowed.

    Attributes:
        methods: names of methods, or dotted paths of clients' classes in other packages.
        phases: ``train``, ``evaluate``, and methods' questions outside of rounds, such as ``structure``.
        most_rounds: orders to train in one run; a resumed run repeats some.
        most_runs: runs in which this site has trained or answered.
        most_answers: answers that hold something of the data, over all runs.
        code: digests of the app's code; None pins the first, ``any`` allows all.
        settings: allowed values of the run's settings, by key with dots: one value, a list, or bounds.
        privacy: least protection of uploads.
    """

    methods: tuple[str, ...] | None = None
    phases: tuple[str, ...] | None = None
    most_rounds: Count | None = None
    most_runs: Count | None = None
    most_answers: Count | None = None
    code: tuple[Digest, ...] | Literal["any"] | None = None
    settings: dict[str, Scalar | tuple[Scalar, ...] | Range] = {}
    privacy: PrivacyPolicy = PrivacyPolicy()


@dataclass(frozen=True)
class Request:
    """A message, as far as a policy is about it.

    Attributes:
        run_id: of the run.
        phase: ``train``, ``evaluate``, or the action or phase of a question.
        config: the run's configuration.
        answers: True where the answer holds something of the data.
    """

    run_id: str
    phase: str
    config: Mapping[str, Any]
    answers: bool

    @classmethod
    def of(cls, message: Message) -> Request:
        """Read a message.

        Raises:
            SubflError: it does not describe a run.
        """
        kind, _, action = message.metadata.message_type.partition(".")
        run: Mapping[str, Any] = message.content.config_records.get(RUN, ConfigRecord())
        run_id, text = run.get("id"), run.get("config")
        phase = str(run.get("phase", "")) if action == ASK else action or kind
        try:
            config = json.loads(text) if isinstance(text, str) else None
        except ValueError:
            config = None
        if not (isinstance(run_id, str) and run_id.isascii() and run_id.isalnum() and isinstance(config, dict)):
            raise SubflError("a message describes no run; does the server run this version?")
        return cls(run_id, phase, config, message.metadata.message_type not in ALWAYS)

    def counted_in(self, heard: Heard) -> Heard:
        """The record of the run with this message."""
        trains = self.phase == TRAIN
        return replace(heard, rounds=heard.rounds + trains, answers=heard.answers + self.answers)

    def setting(self, key: str) -> Any:
        """A value of the configuration; None where there is no such key."""
        found: Any = self.config
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


def refusal(
    policy: Policy, clients: Mapping[str, tuple[str, ...]], request: Request, heard: Mapping[str, Heard]
) -> str | None:
    """The reason for which a site refuses a message; None where its policy allows it.

    Args:
        policy: of the site.
        clients: dotted paths of clients' classes, by the methods that the policy allows.
        request: the message.
        heard: what the site has heard before, by run.
    """
    if reason := _method(policy, clients, request) or policy.privacy.refusal(request.setting("privacy") or {}):
        return reason
    for key, allowed in policy.settings.items():
        value = request.setting(key)
        if not _allows(allowed, value):
            return f"{key} is {json.dumps(value)}, and the policy allows {_listed(allowed)}"
    rounds = request.setting("federation.rounds")
    if policy.most_rounds is not None and isinstance(rounds, int) and rounds > policy.most_rounds:
        return f"federation.rounds is {rounds}, and the policy allows at most {policy.most_rounds} rounds of a run"
    if not request.answers:
        return None
    if policy.phases is not None and request.phase not in policy.phases:
        return f"the question is {request.phase!r}, and the policy allows answers to {_listed(policy.phases)}"
    return _counts(policy, request, heard)


def _method(policy: Policy, clients: Mapping[str, tuple[str, ...]], request: Request) -> str | None:
    if policy.methods is None:
        return None
    name, path = request.setting("method.name"), request.setting("method.client")
    if path in (each for paths in clients.values() for each in paths):
        return None
    return f"the method is {name} ({path}), and the policy allows {_listed(policy.methods)}"


def _counts(policy: Policy, request: Request, heard: Mapping[str, Heard]) -> str | None:
    before = heard.get(request.run_id, Heard())
    if policy.most_rounds is not None and request.phase == TRAIN and before.rounds >= policy.most_rounds:
        return (
            f"this site has trained in {before.rounds} rounds of run {request.run_id}, the most that its policy allows"
        )
    runs = sum(each.answers > 0 for each in heard.values())
    if policy.most_runs is not None and not before.answers and runs >= policy.most_runs:
        return f"this site has taken part in {runs} runs, the most that its policy allows"
    answers = sum(each.answers for each in heard.values())
    if policy.most_answers is not None and answers >= policy.most_answers:
        return f"this site has given {answers} answers, the most that its policy allows"
    return None


def _allows(allowed: Scalar | tuple[Scalar, ...] | Range, value: object) -> bool:
    if isinstance(allowed, Range):
        return allowed.allows(value)
    choices = allowed if isinstance(allowed, tuple) else (allowed,)
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in choices)


def _listed(allowed: Scalar | tuple[Scalar, ...] | Range) -> str:
    if isinstance(allowed, tuple):
        return ", ".join(map(str, allowed)) or "none"
    return str(allowed) if isinstance(allowed, Range | str) else json.dumps(allowed)
