"""What the curves show: each verdict bears its numbers, and a threshold below decides between two.

Where the numbers decide nothing (a network at chance, a probe that has not converged, too few images or samples, values
that are not finite) a verdict is undecided, and its evidence is the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flowexp.measuring.diagnostics.condition_number import LevelCondition
from flowexp.measuring.diagnostics.curve import Curve
from flowexp.measuring.diagnostics.gradient_share import LevelGradient
from flowexp.measuring.diagnostics.integration_lag import WINDOW, LevelLag
from flowexp.measuring.diagnostics.jacobian import LevelJacobian
from flowexp.measuring.diagnostics.probe_curve import ProbeCurve
from flowexp.measuring.diagnostics.ssc_calibration import (
    MEAN,
    PLAIN,
    PROPOSAL,
    ControlledSampler,
    SamplerScore,
    SSCProposal,
)
from flowexp.measuring.diagnostics.velocity_norms import LevelNorms
from flowexp.records.verdict import Verdict

STANDARD_ERRORS = 2.0  # a difference of fewer standard errors is no difference
CHANCE_ERRORS = 3.0  # the best of some ten accuracies exceeds chance by 2 standard errors in one network of five
COARSE_DIP = 0.05  # the dips of LCF Fig. 4 are of a few points: where fewer than 5 would not show, none is no result
FEWEST_TEST = 30  # test images; the standard error of a share of fewer is no guide
DEFICIT = 0.02  # a mean |v| / |v*| within 2 % of 1 is no deficit; batches of 1,000 images scatter by less than that
COARSE_DISTANCE = 0.1  # of a distance: SSC's gains in VD Table 1 are of 18 to 24 %
COARSE_SCALE = 0.02  # a best scale known less exactly cannot be called an optimal field's
OFF = 0.01  # a best scale within 1 % of 1 is that of an optimal field
LAG = 0.01  # of t; half a step of 50
COARSE_LAG = 0.05  # chance beyond that hides the lags of real samplers, which are of 0.01 to 0.1
UNRELATED = 0.05  # a cosine below is that of a velocity which does not know its target
CHANCE = 1.0  # a lag below the largest one that samples of the exact marginals show is chance
LOW_NOISE = 0.1  # levels that count as low noise: LCF's T_min is 0.02 to 0.2
FLAT = 1.1  # a gain that changes by less than 10 % is flat
READING_NAMES = {"converged": "converged probe", "paper": "the paper's probe", "knn": "nearest neighbours"}
NO_VERDICT = "no verdict"  # the head of one that is about the whole measurement
PATHOLOGY = "low-noise pathology"
CONDITION = "condition number"
REALLOCATION = "Jacobian reallocation"
VELOCITY_DEFICIT = "velocity deficit"
VELOCITY_SCALE = "scale of the velocity"
INTEGRATION_LAG = "integration lag"
CONTROLS = "SSC beside its controls"
SCALES = {PROPOSAL: "the proposal", "vd": "VD's 1.1 to 1", "late": "late injection", MEAN: "the proposal's mean"}


def verdict(
    probe: ProbeCurve | None = None,
    norms: Curve[LevelNorms] | None = None,
    lag: Curve[LevelLag] | None = None,
    condition: Curve[LevelCondition] | None = None,
    jacobian: Curve[LevelJacobian] | None = None,
    gradient: Curve[LevelGradient] | None = None,
) -> list[Verdict]:
    """Verdicts on whatever was measured: the low-noise pathology first (LCF), then the velocity deficit (VD)."""
    return [
        *(probe_verdict(probe) if probe is not None else []),
        *(condition_verdict(condition) if condition is not None else []),
        *(jacobian_verdict(jacobian) if jacobian is not None else []),
        *(gradient_verdict(gradient) if gradient is not None else []),
        *(norms_verdict(norms) if norms is not None else []),
        *(lag_verdict(lag) if lag is not None else []),
    ]


def probe_verdict(probe: ProbeCurve) -> list[Verdict]:
    """A dip of more than 2 standard errors is the pathology of LCF Fig. 4; its onset is where the fall exceeds that."""
    margin = _margin(probe)
    if reason := _undecidable(probe) or _not_converged(probe):
        return [Verdict(PATHOLOGY, "undecided", reason, head=NO_VERDICT)]
    numbers = {"dip": probe.dip, "margin": margin, "peak": probe.peak, "t_peak": probe.t_peak}
    if probe.dip <= margin and margin > COARSE_DIP:
        reason = (
            f"with {probe.num_test} test images a dip of {_points(margin)} (2 standard errors) would not show, and "
            f"here it is {_points(probe.dip)}"
        )
        return [Verdict(PATHOLOGY, "undecided", reason, NO_VERDICT, numbers)]
    if probe.dip <= margin:
        beyond = f", within {STANDARD_ERRORS:g} standard errors ({_points(margin)})"
        evidence = f"dip of {_points(probe.dip)} from the peak at t = {probe.t_peak:g}{beyond}"
        return [Verdict(PATHOLOGY, "none", evidence, numbers=numbers)]
    onset = max(t for t, share in probe.along(probe.tap_peak) if t < probe.t_peak and probe.peak - share > margin)
    evidence = (
        f"dip of {_points(probe.dip)} (standard error {_points(probe.dip_se or 0.0)}), onset t = {onset:g}; "
        f"peak {100 * probe.peak:.1f} % at t = {probe.t_peak:g}, block {probe.tap_peak}"
    )
    return [Verdict(PATHOLOGY, "finding", evidence, numbers=numbers | {"onset": onset})]


def readings_verdict(curves: Mapping[str, ProbeCurve]) -> list[Verdict]:
    """The verdicts on one set of features read in several ways, by the reading's name, the most trusted first.

    A dip that the paper's probe shows where it has not converged, and the converged reading does not, is the probe's.
    """
    first, *others = curves
    verdicts = probe_verdict(curves[first])
    for reading in others:
        if reading == "paper" and first == "converged" and _is_artefact(curves[reading], curves[first]):
            verdicts.append(_artefact(curves[reading], curves[first]))
        else:
            name = READING_NAMES[reading]
            verdicts += [replace(each, evidence=f"{each.evidence} ({name})") for each in probe_verdict(curves[reading])]
    return verdicts


def _is_artefact(short: ProbeCurve, converged: ProbeCurve) -> bool:
    """Whether a probe that stopped early has a dip that the converged one of the same features has not."""
    return bool(_not_converged(short)) and short.dip > _margin(short) and converged.dip <= _margin(converged)


def _artefact(short: ProbeCurve, converged: ProbeCurve) -> Verdict:
    evidence = (
        f"{_points(short.dip)} in the paper's probe, {_points(converged.dip)} in the converged one of the same "
        f"features; the paper's reaches {100 * short.at_clean:.1f} % at the cleanest level, the converged one "
        f"{100 * converged.at_clean:.1f} %, so that its curve shows the scale of features too"
    )
    numbers = {"dip": short.dip, "converged_dip": converged.dip}
    return Verdict(PATHOLOGY, "none", evidence, head="a dip of the unconverged probe alone", numbers=numbers)


def _margin(probe: ProbeCurve) -> float:
    """A dip that the choice of test images can make; shares of 0 and 1 have a standard error of 0, and so 4 / N."""
    return max(STANDARD_ERRORS * (probe.dip_se or 0.0), 4 / (probe.num_test or math.inf))


def _undecidable(probe: ProbeCurve) -> str:
    """Why a curve of accuracies cannot show a dip, or nothing."""
    if not all(map(math.isfinite, probe.accuracy.values())):
        return "an accuracy is not finite"
    levels = sorted({level for level, _ in probe.accuracy})
    if len(levels) < 2 or levels[0] > LOW_NOISE:
        listed = ", ".join(f"{level:g}" for level in levels)
        return f"a dip needs a level of at most {LOW_NOISE:g} and others above it, got {listed}"
    if probe.num_test is None:
        return "how many test images were scored is not known, and so no standard error"
    if probe.num_test < FEWEST_TEST:
        return f"{probe.num_test} test images are too few for a standard error"
    return _at_chance(probe, probe.num_test)


def _at_chance(probe: ProbeCurve, num_test: int) -> str:
    """The reason where the best accuracy is at chance, or nothing."""
    if probe.num_classes is None and probe.chance is None:
        return ""
    chance = probe.chance if probe.chance is not None else 1 / (probe.num_classes or 1)
    if probe.peak > chance + CHANCE_ERRORS * math.sqrt(chance * (1 - chance) / num_test):
        return ""
    of = "" if probe.num_classes is None else f" of {probe.num_classes} classes"
    return f"accuracy is at chance ({100 * probe.peak:.1f} %{of})"


def _not_converged(probe: ProbeCurve) -> str:
    """The reason where a linear probe stopped before its minimum: its curve then shows the scale of features too."""
    short = [cell for cell, fit in sorted(probe.fits.items()) if not fit.converged]
    if not short:
        return ""
    fit, (t, tap) = probe.fits[short[0]], short[0]
    chance, more = "", "max_train_images"
    if fit.over_chance is not None:  # of the paper's reading; a logistic regression has no epochs to raise
        chance, more = (
            f" ({fit.over_chance:.1f} times what chance explains, in square)",
            "epochs, lr or max_train_images",
        )
    return (
        f"the linear probe has not converged at {len(short)} of {len(probe.fits)} places, so that its curve shows how "
        f"large features are, too: at t = {t:g}, block {tap}, {100 * fit.gradient_left:.0f} % of its gradient are "
        f"left{chance} at a train accuracy of {100 * fit.train_accuracy:.1f} %; raise {more}"
    )


def condition_verdict(condition: Curve[LevelCondition]) -> list[Verdict]:
    """What the target demands at the cleanest level with noise, and how much of it the network's velocity shows."""
    noisy = [point for point in condition if point.t > 0]
    if not noisy:
        return []
    point = noisy[0]
    numbers = {"t": point.t, "target": point.noise_exact, "network": point.noise_network}
    if not _finite(point.noise_exact, point.noise_network):
        reason = f"the network's is {point.noise_network:g} at t = {point.t:g}"
        return [Verdict(CONDITION, "undecided", reason, numbers=numbers)]
    evidence = (
        f"the target demands {point.noise_exact:.3g} at t = {point.t:g}, the network's velocity has "
        f"{point.noise_network:.3g} ({_percent(point.noise_network / point.noise_exact)})"
    )
    return [Verdict(CONDITION, "finding", evidence, numbers=numbers)]


def jacobian_verdict(jacobian: Curve[LevelJacobian]) -> list[Verdict]:
    """Reallocation (LCF Proposition 5): towards clean data G_noise grows by 10 % or more and G_sem does not."""
    low, rest = jacobian.data_end, [point for point in jacobian if point.t > LOW_NOISE]
    if low.t > LOW_NOISE or not rest:
        return []
    start, unknown = rest[0], f"no verdict on a {REALLOCATION}"
    if not all(_finite(gain) and gain > 0 for point in (low, start) for gain in (point.g_noise, point.g_sem)):
        return [Verdict(REALLOCATION, "undecided", "a gain is 0 or not finite", unknown)]
    noise, semantic = low.g_noise / start.g_noise, low.g_sem / start.g_sem
    off_noise = noise * math.hypot(low.g_noise_se / low.g_noise, start.g_noise_se / start.g_noise)
    off_semantic = semantic * math.hypot(low.g_sem_se / low.g_sem, start.g_sem_se / start.g_sem)
    numbers = {"noise": noise, "noise_se": off_noise, "semantic": semantic, "semantic_se": off_semantic}
    change = f"from t = {start.t:g} to {low.t:g} G_noise is multiplied by {noise:.3g}, G_sem by {semantic:.3g}"
    if _surely(noise - FLAT, off_noise) and _surely(FLAT - semantic, off_semantic):
        return [Verdict(REALLOCATION, "finding", change, f"{REALLOCATION} to noise directions", numbers)]
    if _surely(FLAT - noise, off_noise) or _surely(semantic - FLAT, off_semantic):
        return [Verdict(REALLOCATION, "none", change, numbers=numbers)]
    errors = f"with standard errors of {off_noise:.2f} and {off_semantic:.2f}; raise num_images or num_probes"
    return [Verdict(REALLOCATION, "undecided", f"{change}, {errors}", unknown, numbers)]


def gradient_verdict(gradient: Curve[LevelGradient]) -> list[Verdict]:
    """The share of the gradient norms below t = 0.1, beside the share of levels there."""
    low = [point.share for point in gradient if point.t < LOW_NOISE]
    if not low:
        return []
    if not _finite(*low):
        return [Verdict("gradient", "undecided", "its norm is 0 or not finite")]
    share, levels = sum(low), len(low) / len(gradient)
    evidence = f"{_percent(share)} of the gradient norms come from t < {LOW_NOISE:g}, {_percent(levels)} of the levels"
    return [Verdict("gradient", "finding", evidence, numbers={"share": share, "share_of_levels": levels})]


def norms_verdict(norms: Curve[LevelNorms]) -> list[Verdict]:
    """The deficit at both ends (2 % and more), and whether it is other than the optimal field's (1 % and more).

    Where the network overestimates, a deficit is its error's: v is too long for how little of v* it knows.
    """
    known = [point for point in norms if _knows(point)]
    if not known:
        end = norms.noise_end
        reason = (
            "the network's velocity does not know its target at any level "
            f"(t = {end.t:g}: length {end.velocity:.3g}, cosine {end.cosine:.2f})"
        )
        numbers = {"t": end.t, "length": end.velocity, "cosine": end.cosine}
        return [Verdict(VELOCITY_DEFICIT, "undecided", reason, numbers=numbers)]
    ends = [_deficit(name, point) for name, point in (("noise", norms.noise_end), ("data", norms.data_end))]
    sizes = (("underestimates", _underestimate), ("overestimates", _overestimate))
    wrong = [_wrong_scale(key, worst) for key, size in sizes if size(worst := max(known, key=size)) > OFF]
    return [*ends, *(wrong or [_optimal(norms, len(known))])]


def _wrong_scale(key: str, point: LevelNorms) -> Verdict:
    evidence = f"the least velocity error is at {point.best_scale:.3f} v (t = {point.t:g})"
    numbers = {"t": point.t, "best_scale": point.best_scale}
    return Verdict(VELOCITY_SCALE, "finding", evidence, f"the network {key}", numbers)


def _knows(point: LevelNorms) -> bool:
    """Whether lengths compare at a level: a velocity that is 0 or unrelated to its target has no deficit."""
    return _finite(point.ratio, point.cosine, point.best_scale) and point.cosine >= UNRELATED


def _deficit(name: str, point: LevelNorms) -> Verdict:
    room = STANDARD_ERRORS * point.ratio_se
    size = f"{_percent(point.deficit)} at the {name} end (t = {point.t:g}, cosine {point.cosine:.2f})"
    numbers = {"t": point.t, "deficit": point.deficit, "room": room, "cosine": point.cosine}
    if not _knows(point):
        reason, head = (
            f"there v does not know its target ({size})",
            f"no verdict on the {VELOCITY_DEFICIT} at the {name} end",
        )
        return Verdict(VELOCITY_DEFICIT, "undecided", reason, head, numbers)
    if not (room <= DEFICIT or _surely(point.deficit - DEFICIT, point.ratio_se)):  # NaN, of a single image, too
        reason = f"{size}, known to {100 * room:.1f} % only; raise num_images"
        return Verdict(VELOCITY_DEFICIT, "undecided", reason, numbers=numbers)
    return Verdict(VELOCITY_DEFICIT, "finding" if point.deficit > DEFICIT else "none", size, numbers=numbers)


def _optimal(norms: Curve[LevelNorms], num_known: int) -> Verdict:
    """The verdict where no level's best scale is surely other than 1."""
    errors = [point.best_scale_se for point in norms]
    room = STANDARD_ERRORS * max(errors) if _finite(*errors) else math.inf
    about, numbers = VELOCITY_SCALE, {"room": room}
    if num_known == len(norms) and room <= COARSE_SCALE:
        evidence = "at no level has another scale less velocity error"
        return Verdict(about, "none", evidence, "the deficit is an optimal field's", numbers)
    reason = f"the scale with the least velocity error is known to {100 * room:.1f} % only; raise num_images"
    return Verdict(about, "undecided", reason, "no verdict on whose deficit it is", numbers)


def _underestimate(point: LevelNorms) -> float:
    """How far the best scale exceeds 1 for sure."""
    return point.best_scale - 1 - STANDARD_ERRORS * point.best_scale_se


def _overestimate(point: LevelNorms) -> float:
    """How far the best scale falls short of 1 for sure."""
    return 1 - point.best_scale - STANDARD_ERRORS * point.best_scale_se


def lag_verdict(lag: Curve[LevelLag]) -> list[Verdict]:
    """The largest lag on either side of the schedule, if it is 0.01 or more and beyond chance.

    A lag is what the states show less what as many samples of the exact marginal show: both have the bias of so few.
    """
    if not _finite(*(point.unbiased_lag for point in lag)):
        return [Verdict(INTEGRATION_LAG, "undecided", "a lag is not finite")]
    worst = max(lag, key=lambda point: abs(point.unbiased_lag))
    chance = CHANCE * max(abs(point.lag_marginal) for point in lag)
    size = abs(worst.unbiased_lag)
    numbers = {"t": worst.t, "lag": worst.unbiased_lag, "chance": chance}
    if abs(worst.lag) >= WINDOW:
        reason = f"at t = {worst.t:g} the states look like no level within {WINDOW:g} of theirs"
        return [Verdict(INTEGRATION_LAG, "undecided", reason, numbers=numbers)]
    if size < chance and chance > COARSE_LAG:
        reason = (
            f"it is {size:.3f} in t, and so few samples of the exact marginals show {chance:.3f} by chance; raise "
            "num_samples"
        )
        return [Verdict(INTEGRATION_LAG, "undecided", reason, numbers=numbers)]
    if size < max(LAG, chance):
        evidence = f"states keep to their level within {size:.3f} in t, chance is {chance:.3f}"
        return [Verdict(INTEGRATION_LAG, "none", evidence, numbers=numbers)]
    side = "behind" if worst.unbiased_lag > 0 else "ahead of"
    evidence = (
        f"up to {size:.3f} in t {side} schedule, at t = {worst.t:g}; "
        f"FLD {worst.fld:.3g} against {worst.fld_marginal:.3g} of the exact marginal"
    )
    return [Verdict(INTEGRATION_LAG, "finding", evidence, numbers=numbers)]


def _finite(*values: float) -> bool:
    return all(map(math.isfinite, values))


def _surely(value: float, error: float) -> bool:
    """Whether a value is above 0 by more than 2 standard errors; not where its error is NaN."""
    return value > STANDARD_ERRORS * error


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"


def ssc_verdict(proposal: SSCProposal, scores: Sequence[SamplerScore[ControlledSampler]]) -> list[Verdict]:
    """What is proposed, and in how many comparisons each scale is surely better than none (an interval below 0).

    scores: of the samplers of `ssc_controls`, each compared with the plain one.
    """
    better: dict[str, list[bool]] = {}
    for score in scores:
        better.setdefault(score.sampler.scale, []).append(score.better)
    better.pop(PLAIN, None)
    room = min((abs(s.high - s.low) / (2 * s.distance) for s in scores if _compared(s)), default=0.0)
    counts = {scale: float(sum(wins)) for scale, wins in better.items()}
    if any(counts.values()):
        beside = Verdict(
            CONTROLS, "finding", f"surely better than no SSC are {_wins(proposal, better)}", numbers=counts
        )
    elif room > COARSE_DISTANCE:
        reason = f"differences are known to {_percent(room)} of the distance at best; raise num_samples"
        beside = Verdict(CONTROLS, "undecided", reason, f"no verdict on {CONTROLS}", {"room": room})
    else:
        most = max(map(len, better.values()), default=0)
        evidence = f"neither the proposal nor a control, in {most} comparisons of each"
        beside = Verdict(CONTROLS, "none", evidence, "no scale is surely better than no SSC", counts)
    return [_proposed(proposal), beside]


def _wins(proposal: SSCProposal, better: dict[str, list[bool]]) -> str:
    """In how many comparisons each scale is surely better, the proposal first and its mean last."""
    controls = [scale for scale in better if scale not in (PROPOSAL, MEAN)]
    scales = controls if proposal.source == "none" else [PROPOSAL, *controls, MEAN]
    return ", ".join(
        f"{_scale(scale)} in {sum(better[scale])} of {len(better[scale])}" for scale in scales if scale in better
    )


def _compared(score: SamplerScore[ControlledSampler]) -> bool:
    """Whether a score is a difference from plain, and not plain itself."""
    return score.sampler.scale != PLAIN and score.distance > 0


def _scale(name: str) -> str:
    return SCALES.get(name, name.replace("_", " "))


def _proposed(proposal: SSCProposal) -> Verdict:
    about, error = "SSC proposal", "" if proposal.s0_se is None else f" (standard error {proposal.s0_se:.3f})"
    wanted = proposal.s0_deficit if proposal.s0_lag is None else proposal.s0_lag
    if proposal.source == "none":
        behind = wanted > 1 and proposal.s0_se is not None
        chance = f"the {wanted:.3f} that was measured is within chance of 1{error}"
        reason = chance if behind else "states are not behind their schedule"
        return Verdict(about, "none", f"none; {reason}", about, {"s0": proposal.s0, "measured": wanted})
    evidence = (
        f"s0 = {proposal.s0:.3f}{error}, s1 = {proposal.s1:g}, profile {proposal.profile}, from the "
        f"{proposal.source}; the least velocity error at the noise end is at {proposal.s0_error:.3f}"
    )
    return Verdict(about, "finding", evidence, numbers={"s0": proposal.s0, "s1": proposal.s1, "measured": wanted})
