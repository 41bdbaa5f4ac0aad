"""SSC's scale from what was measured, and the samplers that must be run beside it (VD section 4.2, Tables 5 and 7)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from flowexp.flow.profiles import PROFILES, Profile, create_profile
from flowexp.flow.randomness import keyed_generator
from flowexp.flow.sampler import Sampler
from flowexp.flow.time import progress
from flowexp.measuring.diagnostics.curve import Curve
from flowexp.measuring.diagnostics.integration_lag import LevelLag
from flowexp.measuring.diagnostics.velocity_norms import LevelNorms
from flowexp.measuring.metrics import Moments, distance_of, moments_of

DECAYING = tuple(name for name in PROFILES if name != "constant")
CONSTANTS = (1.02, 1.04, 1.05, 1.06, 1.08)
SOLVERS = ("euler", "euler_maruyama")
NUM_STEPS = (50, 250)
# VD's 1.1 fills a quarter of the deficit of latents with unit scale, |v*| / |v| = sqrt(2) at the noise end.
SHARE = 0.25
MAX_S0 = 1.3
STANDARD_ERRORS = 2.0  # a scale within as many of 1 may be chance, and is not proposed
NOISE_HALF = 0.5  # SSC corrects the deficit of the noise end; that of the data end is useful (VD section 3.4)
PLAIN, PROPOSAL, MEAN = "plain", "proposal", "mean"  # scales: none, the proposal, the constant of its mean
LAG_RANGE = (0.1, 0.9)  # levels whose lag counts: at the ends a lag has no room, or no time to build up


Key = TypeVar("Key")


@dataclass(frozen=True)
class ControlledSampler:
    """A sampler of the calibration: a solver with its steps, and one of the scales that are compared.

    scale: PLAIN (none), "vd", "late", "constant_1.05", PROPOSAL or MEAN, as `ssc_controls` makes them.
    """

    solver: str
    num_steps: int
    scale: str

    def __str__(self) -> str:
        return f"{self.solver}-{self.num_steps}-{self.scale}"

    def plain(self) -> ControlledSampler:
        """The control without SSC that has the same solver and steps."""
        return replace(self, scale=PLAIN)


@dataclass(frozen=True)
class SSCProposal:
    """A scale for SSC, with what speaks for it.

    s0, s1, profile: as `Sampler` takes them. source: "lag", "deficit" or "none", what s0 was taken from.
    s0_deficit: s0 that fills `share` of the deficit. s0_full: that which fills all of it, |v| = |v*| at the noise end.
    s0_lag: that which undoes the measured lag, None without one. s0_error: that with the least velocity error at the
    noise end (`best_scale`); at 1 the network does not underestimate, and any other scale departs from its field.
    misfit: the deficit's root mean square distance from the profile's best multiple, as a share of the deficit.
    s0_se: standard error of what s0 was to be taken from (`s0_lag`, or else `s0_deficit`), over the choice of samples;
    None where the measurement has none. Within 2 of them of 1 nothing is proposed.
    """

    s0: float
    s1: float
    profile: str
    source: str
    s0_deficit: float
    s0_full: float
    s0_lag: float | None
    s0_error: float
    misfit: float
    s0_se: float | None = None

    @property
    def mean_scale(self) -> float:
        """The scale's mean over the path, which is what most of VD Table 5's gain follows."""
        return self.s1 + (self.s0 - self.s1) * create_profile(self.profile).area

    def rows(self) -> list[dict[str, Any]]:
        """The proposal as a table of one row."""
        return [{**vars(self), "mean_scale": self.mean_scale}]


def calibrate_ssc(
    norms: Curve[LevelNorms],
    lag: Curve[LevelLag] | None = None,
    share: float = SHARE,
    profiles: Sequence[str] = DECAYING,
    max_s0: float = MAX_S0,
) -> SSCProposal:
    """A first guess of SSC's s0 and profile; s1 is 1. It is a value to try; the controls decide whether it helps.

    The profile is the one with the multiple nearest to the deficit |v*| / |v| - 1 over the noise half of the path.
    The size comes from the lag where one is given: that is the harm which SSC claims to repair, while the deficit is
    there for an exact field too, at a best scale of 1. No lag, or one ahead of schedule, proposes no correction, and
    neither does one within 2 standard errors. With norms alone, s0 fills `share` of the deficit. s0 is limited to
    [1, max_s0].

    share: 0.25 gives VD's 1.1 on data of unit scale. norms: at least two levels with t >= 0.5.
    """
    levels, deficit = _noise_half(norms)
    fits = {name: _fit(create_profile(name)(progress(levels)), deficit) for name in profiles}
    profile = min(fits, key=lambda name: fits[name][1])
    s0_deficit = 1 + share * max(0.0, fits[profile][0])
    s0_lag, s0_se = None, share * _deficit_se(norms, create_profile(profile))
    if lag is not None:
        s0_lag, s0_se = _scale_of_lag(lag, create_profile(profile))
    wanted = s0_deficit if s0_lag is None else s0_lag
    s0 = 1.0 if wanted - 1 <= STANDARD_ERRORS * (0.0 if math.isnan(s0_se) else s0_se) else min(max_s0, wanted)
    source = "none" if s0 == 1 else "deficit" if s0_lag is None else "lag"
    end, error = norms.noise_end, None if math.isnan(s0_se) else s0_se
    return SSCProposal(
        s0, 1.0, profile, source, s0_deficit, 1 / end.ratio, s0_lag, end.best_scale, fits[profile][1], error
    )


def _noise_half(norms: Curve[LevelNorms]) -> tuple[Tensor, Tensor]:
    """Levels, and |v*| / |v| - 1 there."""
    points = [point for point in norms if point.t >= NOISE_HALF]
    if len(points) < 2:
        raise ValueError(f"calibration needs at least 2 levels with t >= {NOISE_HALF}, got {norms.levels}")
    levels = torch.tensor([point.t for point in points], dtype=torch.float64)
    return levels, torch.tensor([1 / point.ratio - 1 for point in points], dtype=torch.float64)


def _fit(shape: Tensor, values: Tensor) -> tuple[float, float]:
    """The multiple of `shape` nearest to `values`, and the root mean square of what remains over that of `values`."""
    size = (shape @ values) / (shape @ shape)
    return float(size), float((values - size * shape).norm() / values.norm())


def _deficit_se(norms: Curve[LevelNorms], profile: Profile) -> float:
    """Standard error of the multiple of `profile` that is nearest to the deficit; all levels err together at worst."""
    levels, _ = _noise_half(norms)
    shape = profile(progress(levels))
    errors = torch.tensor([p.ratio_se / p.ratio**2 for p in norms if p.t >= NOISE_HALF], dtype=torch.float64)
    return float((shape.abs() @ errors) / (shape @ shape))


def _scale_of_lag(lag: Curve[LevelLag], profile: Profile) -> tuple[float, float]:
    """1 + a, for the scale 1 + a g that would have undone the lag, and its standard error, NaN without resamples.

    To first order progress made = progress due x mean scale. At progress p the mean of g so far is G(p) / p; a is the
    least-squares slope of p / p_effective - 1 against it. The slopes of what the resamples show scatter as one set of
    samples does; the states and the exact marginals are two.
    """
    low, high = LAG_RANGE
    points = [point for point in lag if low <= point.t <= high and point.unbiased_level < 1]
    if not points:
        raise ValueError(f"a lag is read at levels between {low} and {high}, got {lag.levels}")
    due = torch.tensor([progress(point.t) for point in points], dtype=torch.float64)
    fractions = torch.linspace(0, 1, 257, dtype=torch.float64)
    mean_shape = torch.trapezoid(profile(due[:, None] * fractions), fractions, dim=1)

    def slope(lags: Sequence[float]) -> float:
        made = torch.tensor([progress(p.t + lag) for p, lag in zip(points, lags, strict=True)], dtype=torch.float64)
        return _fit(mean_shape, due / made - 1)[0]

    null = [slope(lags) for lags in zip(*(point.null_lags for point in points), strict=True)]
    error = math.sqrt(2) * statistics.stdev(null) if len(null) > 1 else math.nan
    return 1 + slope([point.unbiased_lag for point in points]), error


def ssc_controls(
    sampler: Sampler,
    proposal: SSCProposal | None = None,
    constants: Iterable[float] = CONSTANTS,
    solvers: Iterable[str] = SOLVERS,
    num_steps: Iterable[int] = NUM_STEPS,
) -> dict[ControlledSampler, Sampler]:
    """All samplers to compare: each solver and number of steps with each scale.

    Scales: PLAIN (none), vd (1.1 -> 1 linear), late (1 -> 1.1), the constants, and, where one is given, proposal and
    mean (the constant with the proposal's mean). Without the constants, the late scale and more steps a gain of SSC
    cannot be told from any faster clock, or from the error of a coarse solver (VD Table 5: late injection recovers 87 %
    of the gain in FID, constant 1.05 97 %). Draw all of them with one seed and the same indices: then each sample has
    the same noise in all, and `compare_samplers` can pair them.

    sampler: what all of them share (guidance, ssc_target, final_jump).
    """
    scales: dict[str, tuple[float, float, str]] = {
        PLAIN: (1.0, 1.0, "linear"),
        "vd": (1.1, 1.0, "linear"),
        "late": (1.0, 1.1, "linear"),
    }
    scales |= {f"constant_{value:g}": (value, value, "constant") for value in constants}
    if proposal is not None:
        scales[PROPOSAL] = (proposal.s0, proposal.s1, proposal.profile)
        scales[MEAN] = (proposal.mean_scale, proposal.mean_scale, "constant")
    return {
        ControlledSampler(solver, steps, name): replace(
            sampler, solver=solver, num_steps=steps, solver_options={}, s0=s0, s1=s1, profile=profile
        )
        for solver in solvers
        for steps in num_steps
        for name, (s0, s1, profile) in scales.items()
    }


@dataclass(frozen=True)
class SamplerScore(Generic[Key]):
    """One sampler in a comparison; a lower distance is better.

    distance: of its samples from the reference. difference: from the baseline's distance; low, high: where it lies
    with the given confidence, over the choice of samples. better: whether high < 0.
    """

    sampler: Key
    distance: float
    difference: float
    low: float
    high: float
    better: bool


def compare_samplers(
    features: Mapping[Key, Tensor],
    reference: Moments,
    baseline: Key | Callable[[Key], Key],
    num_resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[SamplerScore[Key]]:
    """Frechet distances of several samplers from one reference, with paired bootstrap intervals of their differences.

    Each resample draws the same rows of every sampler, so that the noise they share cancels. A resample has fewer
    distinct samples, which raises every Frechet distance alike; so the interval is the basic one (2 d - quantiles),
    about the difference, and there is none about a distance itself. A resample costs N D^2 for each sampler: project
    features to a few hundred numbers first (`create_projection`).

    features: (N, D) by sampler, row i of each from the same noise and label. baseline: a sampler, or a function from a
    sampler to its baseline (`ControlledSampler.plain`).
    """
    counts = {len(rows) for rows in features.values()}
    if len(counts) != 1:
        raise ValueError(f"pairs need equally many samples of every sampler, got {sorted(counts)}")
    partner = {sampler: baseline(sampler) if callable(baseline) else baseline for sampler in features}
    if missing := set(partner.values()) - set(features):
        lacking = ", ".join(sorted(map(str, missing)))
        raise ValueError(f"no features of the baseline {lacking}, only of {', '.join(map(str, features))}")
    whole = _distances(features, reference, None, device)
    num = counts.pop()
    drawn = [
        _distances(features, reference, torch.randint(num, (num,), generator=keyed_generator(seed, place)), device)
        for place in range(num_resamples)
    ]
    return [_score(sampler, other, whole, drawn, confidence) for sampler, other in partner.items()]


def _distances(
    features: Mapping[Key, Tensor], reference: Moments, rows: Tensor | None, device: torch.device | str
) -> dict[Key, float]:
    reference = reference.to(device)
    return {sampler: distance_of(reference, moments_of(all_of, rows, device)) for sampler, all_of in features.items()}


def _score(
    sampler: Key, other: Key, whole: dict[Key, float], drawn: list[dict[Key, float]], confidence: float
) -> SamplerScore[Key]:
    difference = whole[sampler] - whole[other]
    resampled = torch.tensor([distances[sampler] - distances[other] for distances in drawn], dtype=torch.float64)
    tails = torch.tensor([(1 + confidence) / 2, (1 - confidence) / 2], dtype=torch.float64)
    low, high = (2 * difference - resampled.quantile(tails)).tolist()
    return SamplerScore(sampler, whole[sampler], difference, low, high, high < 0)
