"""What the numbers of a measurement show, as data; it becomes a sentence where a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast, get_args

State = Literal["finding", "none", "undecided"]
HEADS: dict[str, str] = {"finding": "{}", "none": "no {}", "undecided": "no verdict on the {}"}


@dataclass(frozen=True)
class Verdict:
    """A judgement about one thing, with its evidence. `str(verdict)` is the sentence `head: evidence`.

    Arguments:
        about: what is judged, such as "velocity deficit".
        state: "finding" where the numbers show it; "none" where they show that there is nothing to act on; "undecided"
            where they can show neither.
        evidence: the numbers in words, or the reason for no decision.
        head: the claim; made of `about` and `state` where it is not given.
        numbers: what the evidence rests on, by name. They take no part in comparisons: NaN differs from itself, and
            the evidence has them in words.

    Raises:
        ValueError: a state of another name.
    """

    about: str
    state: State = "finding"
    evidence: str = ""
    head: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.state not in get_args(State):
            raise ValueError(f"a verdict's state is one of {', '.join(get_args(State))}, got {self.state!r}")
        if not self.head:
            object.__setattr__(self, "head", HEADS[self.state].format(self.about))

    def __str__(self) -> str:
        return f"{self.head}: {self.evidence}" if self.evidence else self.head

    @property
    def is_calm(self) -> bool:
        """Whether it needs no attention: all but a finding."""
        return self.state != "finding"

    def data(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, value: Any) -> Verdict:
        """A verdict from its `data()`; a plain sentence, as a diagnostic of one's own may give it, is a finding."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            return cls(about=str(value))
        about, state, evidence, head = (str(value.get(name, "")) for name in ("about", "state", "evidence", "head"))
        return cls(about, cast("State", state), evidence, head, value.get("numbers") or {})
