"""What the curves say, in plain words: each sentence names its number, and a threshold below decides between two."""

from __future__ import annotations

from collections.abc import Sequence

from flowexp.diagnostics.condition_number import LevelCondition
from flowexp.diagnostics.curve import Curve
from flowexp.diagnostics.gradient_share import LevelGradient
from flowexp.diagnostics.integration_lag import LevelLag
from flowexp.diagnostics.jacobian import LevelJacobian
from flowexp.diagnostics.probe import ProbeCurve
from flowexp.diagnostics.ssc_calibration import SamplerScore, SSCProposal
from flowexp.diagnostics.velocity_norms import LevelNorms

STANDARD_ERRORS = 2.0  # a difference of fewer standard errors is no difference
DEFICIT = 0.02  # a mean |v| / |v*| within 2 % of 1 is no deficit; batches of 1,000 images scatter by less than that
OFF = 0.01  # a best scale within 1 % of 1 is that of an optimal field
LAG = 0.01  # of t; half a step of 50
CHANCE = 1.0  # a lag below the largest one that samples of the exact marginals show is chance
LOW_NOISE = 0.1  # levels that count as low noise: LCF's T_min is 0.02 to 0.2
FLAT = 1.1  # a gain that changes by less than 10 % is flat
SCALES = {"proposal": "the proposal", "vd": "VD's 1.1 to 1", "late": "late injection", "mean": "the proposal's mean"}


def verdict(
    probe: ProbeCurve | None = None,
    norms: Curve[LevelNorms] | None = None,
    lag: Curve[LevelLag] | None = None,
    condition: Curve[LevelCondition] | None = None,
    jacobian: Curve[LevelJacobian] | None = None,
    gradient: Curve[LevelGradient] | None = None,
) -> list[str]:
    """Sentences about whatever was measured: the low-noise pathology first (LCF), then the velocity deficit (VD)."""
    return [
        *(probe_verdict(probe) if probe is not None else []),
        *(condition_verdict(condition) if condition is not None else []),
        *(jacobian_verdict(jacobian) if jacobian is not None else []),
        *(gradient_verdict(gradient) if gradient is not None else []),
        *(norms_verdict(norms) if norms is not None else []),
        *(lag_verdict(lag) if lag is not None else []),
    ]


def probe_verdict(probe: ProbeCurve) -> list[str]:
    """A dip of more than 2 standard errors is the pathology of LCF Fig. 4; its onset is where the fall exceeds that."""
    margin = STANDARD_ERRORS * (probe.dip_se or 0.0)
    if probe.dip <= margin:
        beyond = "" if probe.num_test is None else f", within {STANDARD_ERRORS:g} standard errors ({_points(margin)})"
        return [f"no low-noise pathology: dip of {_points(probe.dip)} from the peak at t = {probe.t_peak:g}{beyond}"]
    fallen = [t for t, share in probe.along(probe.tap_peak) if t < probe.t_peak and probe.peak - share > margin]
    sure = "" if probe.num_test is None else f" (standard error {_points(probe.dip_se or 0.0)})"
    return [
        f"low-noise pathology: dip of {_points(probe.dip)}{sure}, onset t = {max(fallen):g}; "
        f"peak {100 * probe.peak:.1f} % at t = {probe.t_peak:g}, block {probe.tap_peak}"
    ]


def condition_verdict(condition: Curve[LevelCondition]) -> list[str]:
    """What the target demands at the cleanest level with noise, and how much of it the network's velocity shows."""
    noisy = [point for point in condition if point.t > 0]
    if not noisy:
        return []
    point = noisy[0]
    met = point.noise_network / point.noise_exact
    return [
        f"condition number: the target demands {point.noise_exact:.3g} at t = {point.t:g}, "
        f"the network's velocity has {point.noise_network:.3g} ({_percent(met)})"
    ]


def jacobian_verdict(jacobian: Curve[LevelJacobian]) -> list[str]:
    """Reallocation (LCF Proposition 5): towards clean data G_noise grows by 10 % or more and G_sem does not."""
    low, rest = jacobian.data_end, [point for point in jacobian if point.t > LOW_NOISE]
    if low.t > LOW_NOISE or not rest:
        return []
    start = rest[0]
    noise, semantic = low.g_noise / start.g_noise, low.g_sem / start.g_sem
    change = f"from t = {start.t:g} to {low.t:g} G_noise changes by {noise:.2f} times, G_sem by {semantic:.2f} times"
    if noise > FLAT and semantic < FLAT:
        return [f"Jacobian reallocation to noise directions: {change}"]
    return [f"no Jacobian reallocation: {change}"]


def gradient_verdict(gradient: Curve[LevelGradient]) -> list[str]:
    """The share of the gradient norms below t = 0.1, beside the share of levels there."""
    low = [point.share for point in gradient if point.t < LOW_NOISE]
    if not low:
        return []
    return [
        f"gradient: {_percent(sum(low))} of the gradient norms come from t < {LOW_NOISE:g}, "
        f"{_percent(len(low) / len(gradient))} of the levels"
    ]


def norms_verdict(norms: Curve[LevelNorms]) -> list[str]:
    """The deficit at both ends (2 % and more), and whether it is other than the optimal field's (1 % and more).

    Where the network overestimates, a deficit is its error's: v is too long for how little of v* it knows.
    """
    sentences = []
    for name, point in (("noise", norms.noise_end), ("data", norms.data_end)):
        found = f"{_percent(point.deficit)} at the {name} end (t = {point.t:g}, cosine {point.cosine:.2f})"
        sentences.append(f"velocity deficit: {found}" if point.deficit > DEFICIT else f"no velocity deficit: {found}")
    for key, size in (("underestimates", _underestimate), ("overestimates", _overestimate)):
        worst = max(norms, key=size)
        if size(worst) > OFF:
            found = f"the least velocity error is at {worst.best_scale:.3f} v (t = {worst.t:g})"
            sentences.append(f"the network {key}: {found}")
    if len(sentences) == 2:
        sentences.append("the deficit is an optimal field's: at no level has another scale less velocity error")
    return sentences


def _underestimate(point: LevelNorms) -> float:
    """How far the best scale exceeds 1 for sure."""
    return point.best_scale - 1 - STANDARD_ERRORS * point.best_scale_se


def _overestimate(point: LevelNorms) -> float:
    """How far the best scale falls short of 1 for sure."""
    return 1 - point.best_scale - STANDARD_ERRORS * point.best_scale_se


def lag_verdict(lag: Curve[LevelLag]) -> list[str]:
    """The largest lag on either side of the schedule, if it is 0.01 or more and beyond chance.

    A lag is what the states show less what as many samples of the exact marginal show: both have the bias of so few.
    """
    worst = max(lag, key=lambda point: abs(point.unbiased_lag))
    chance = CHANCE * max(abs(point.lag_marginal) for point in lag)
    size = abs(worst.unbiased_lag)
    if size < max(LAG, chance):
        return [f"no integration lag: states keep to their level within {size:.3f} in t, chance is {chance:.3f}"]
    side = "behind" if worst.unbiased_lag > 0 else "ahead of"
    return [
        f"integration lag: up to {size:.3f} in t {side} schedule, at t = {worst.t:g}; "
        f"FLD {worst.fld:.3g} against {worst.fld_marginal:.3g} of the exact marginal"
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def ssc_verdict(proposal: SSCProposal, scores: Sequence[SamplerScore]) -> list[str]:
    """What is proposed, and in how many comparisons each scale is surely better than none (an interval below 0).

    scores: named "solver-steps-scale", as `ssc_controls` names them, each compared with plain.
    """
    better: dict[str, list[bool]] = {}
    for score in scores:
        better.setdefault(score.name.split("-", 2)[2], []).append(score.better)
    better.pop("plain", None)
    if not any(map(any, better.values())):
        most = max(map(len, better.values()), default=0)
        found = (
            f"no scale is surely better than no SSC: neither the proposal nor a control, in {most} comparisons of each"
        )
        return [_proposed(proposal), found]
    told = ["proposal", *(scale for scale in better if scale not in ("proposal", "mean")), "mean"]
    if proposal.source == "none":
        told = told[1:-1]
    said = [f"{_scale(scale)} in {sum(better[scale])} of {len(better[scale])}" for scale in told if scale in better]
    return [_proposed(proposal), f"SSC beside its controls: surely better than no SSC are {', '.join(said)}"]


def _scale(name: str) -> str:
    return SCALES.get(name, name.replace("_", " "))


def _proposed(proposal: SSCProposal) -> str:
    if proposal.source == "none":
        return "SSC proposal: none; states are not behind their schedule"
    return (
        f"SSC proposal: s0 = {proposal.s0:.3f}, s1 = {proposal.s1:g}, profile {proposal.profile}, from the "
        f"{proposal.source}; the least velocity error at the noise end is at {proposal.s0_error:.3f}"
    )
