"""What a recipe decides about a paper: claims with a rule that is written before the run, and how each one ends.

A recipe's yaml has `claims`, by name: `claim` (what the paper says, and where), `rule` (what is compared, in which
direction, beyond how many standard errors over seeds), `not_testable` where no small run can decide it, and `beside`,
what other runs say of it, which the report shows with the verdict. Its Python file has
`judge(tables) -> {name: Judgement}` for those that can be tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean, stdev
from typing import Any, Literal

State = Literal["supported", "refuted", "not testable at this scale"]
UNTESTABLE: State = "not testable at this scale"
STANDARD_ERRORS = 2.0  # over seeds; a difference of fewer is none
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Effect:
    """A difference over seeds, in units of the smallest one that matters.

    Arguments:
        mean: over seeds; from 1 on it matters.
        standard_error: of the mean, over seeds.
        claimed: whether the claim is that there is such a difference; else that there is none.
    """

    mean: float
    standard_error: float
    claimed: bool = True


@dataclass(frozen=True)
class Judgement:
    """How a claim ended.

    Arguments:
        evidence: the numbers, or the reason why nothing can be said.
        effect: the difference that decided; None where there is none, or where any would matter.
    """

    state: State
    evidence: str
    effect: Effect | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, the rule that decides it, and how it ended at one budget."""

    name: str
    claim: str
    rule: str
    state: str
    evidence: str
    effect: Effect | None = None

    def data(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def judge_difference(values: Sequence[float], matters: float, unit: str = "", scale: float = 1.0) -> Judgement:
    """Whether a difference, one value for each seed, is above zero.

    Supported beyond 2 standard errors over seeds and of at least `matters`; refuted where 2 standard errors exclude a
    difference of `matters`; else not testable. matters: the smallest difference worth the name, in the values' unit.
    unit, scale: of the numbers in the evidence.
    """
    if len(values) < FEWEST_SEEDS or not all(map(math.isfinite, values)):
        given = f"{len(values)}" if len(values) < FEWEST_SEEDS else "numbers that are not finite"
        return Judgement(UNTESTABLE, f"because the rule needs {FEWEST_SEEDS} seeds, and here are {given}")
    middle, error = mean(values), stdev(values) / math.sqrt(len(values))
    said = f"{scale * middle:.3g}{unit} (standard error {scale * error:.2g}, {len(values)} seeds)"
    effect = Effect(round(middle / matters, 3), round(error / matters, 3)) if matters > 0 else None
    least = f"{scale * matters:g}{unit if scale * matters != 1 else unit.removesuffix('s')}"
    evidence = {
        "supported": said,
        "refuted": f"{said}; {least} would count",
        UNTESTABLE: f"because {said} neither shows nor excludes {least}",
    }
    state = state_of(middle, error, matters)
    return Judgement(state, evidence[state], effect)


def state_of(middle: float, error: float, matters: float, standard_errors: float = STANDARD_ERRORS) -> State:
    """How the claim ends that a difference of this mean and standard error over seeds is above zero."""
    if middle - standard_errors * error > 0 and middle >= matters:
        return "supported"
    return "refuted" if middle + standard_errors * error < matters else UNTESTABLE


def judge_points(values: Sequence[float], matters: float = 0.01) -> Judgement:
    """`judge_difference` of accuracies or other shares, one for each seed, told in points."""
    return judge_difference(values, matters, " points", 100)


def judge_share(values: Sequence[float], matters: float = 0.02) -> Judgement:
    """`judge_difference` of relative differences, such as the share by which a distance is lower, told in percent."""
    return judge_difference(values, matters, " %", 100)


def denied(judgement: Judgement) -> Judgement:
    """The end of a claim that there is no such difference: what supports the difference refutes the claim."""
    opposite: dict[State, State] = {"supported": "refuted", "refuted": "supported"}
    effect = judgement.effect and replace(judgement.effect, claimed=not judgement.effect.claimed)
    return Judgement(opposite.get(judgement.state, judgement.state), judgement.evidence, effect)


def provided(condition: Judgement, what: str, judgement: Judgement) -> Judgement:
    """The end of a claim about something that must be there first: not testable where `condition` is not supported.

    what: the thing, such as "dip of FM". Where there is none, nothing keeps it, and nothing removes it.
    """
    if condition.state == "supported":
        return judgement
    return Judgement(UNTESTABLE, f"because a {what} is not shown: {condition.evidence.removeprefix('because ')}")


def differences(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """The first numbers less the second ones, of the seeds that both have."""
    return [a - b for a, b in zip(first, second, strict=False)]


def decide(claims: Mapping[str, Mapping[str, Any]], judgements: Mapping[str, Judgement]) -> list[Claim]:
    """Every claim of a recipe with its end.

    Raises:
        ValueError: a claim without judgement, or a judgement without claim.
    """
    tested = {name for name, claim in claims.items() if not claim.get("not_testable")}
    if tested != {*judgements}:
        raise ValueError(f"claims {', '.join(sorted(tested ^ {*judgements}))} need a rule in the yaml and a judgement")
    ends = {
        name: judgements.get(name) or Judgement(UNTESTABLE, f"because {claim['not_testable']}")
        for name, claim in claims.items()
    }
    return [
        Claim(name, str(claim["claim"]), str(claim.get("rule", "")), end.state, end.evidence, end.effect)
        for (name, claim), end in zip(claims.items(), ends.values(), strict=True)
    ]
