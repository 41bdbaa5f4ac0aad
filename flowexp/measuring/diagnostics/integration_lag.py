"""Integration lag: whether a sampler's states are at the noise level of their schedule (VD Fig. 3, Table 11).

VD shows the FLD alone, the Frechet distance of states from clean data in the space the network works in. It falls
along every path, for an exact sampler too, and a sampler that is merely ahead of its schedule scores better. So the FLD
of the exact marginals stands beside it, and the level whose marginal a state looks like.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.randomness import keyed_generator
from flowexp.flow.sampler import Sampler
from flowexp.flow.velocity import Network
from flowexp.measuring.diagnostics.curve import Curve, LevelPoint
from flowexp.measuring.diagnostics.noised import Prepare, noised_batches
from flowexp.measuring.diagnostics.projection import Projection, create_projection
from flowexp.measuring.metrics import FeatureMoments, Moments, distance_of, moments_of

WINDOW = 0.25  # how far from the level of the schedule a state is searched
RESAMPLES = 20  # of the exact marginals, for the standard error of a lag: it is then known to a sixth
_STEP = 0.02  # between the levels of a resample's parabola
_GRID = 8  # intervals on each side; searched twice, the second time between neighbours


@dataclass(frozen=True)
class LevelLag(LevelPoint):
    """The states of a sampler that has reached level t.

    fld: their Frechet distance from clean data. fld_marginal: that of alpha data + sigma noise at t, from equally many
    images. excess: fld / fld_marginal - 1; VD's corrections are differences of fld between two samplers.
    t_effective: the level, at most 0.25 away, whose exact marginal is nearest to the states. lag: t_effective - t;
    behind is positive (noisier than the schedule), ahead is negative. lag_marginal: what the samples of the exact
    marginal show as their lag, which is chance. misfit: the Frechet distance that remains at t_effective, which no
    shift along the path explains.
    null_lags: what resamples of the exact marginal show as their lag, each the same images and noise at every level, as
    a sampler's states are of the same noise; empty where nothing was resampled.
    """

    fld: float
    fld_marginal: float
    excess: float
    t_effective: float
    lag: float
    lag_marginal: float
    misfit: float
    null_lags: tuple[float, ...] = ()

    def row(self) -> dict[str, Any]:
        fields = {key: value for key, value in super().row().items() if key != "null_lags"}
        return fields | {"unbiased_lag": self.unbiased_lag, "lag_se": self.lag_se}

    @property
    def lag_se(self) -> float:
        """Standard error of `unbiased_lag`, NaN without resamples: of two sets of samples, the states and the exact."""
        if len(self.null_lags) < 2:
            return math.nan
        return math.sqrt(2) * statistics.stdev(self.null_lags)

    @property
    def unbiased_lag(self) -> float:
        """lag less lag_marginal: the bias of so few samples is the same in both."""
        return self.lag - self.lag_marginal

    @property
    def unbiased_level(self) -> float:
        """The level that the states look like, without that bias."""
        return self.t + self.unbiased_lag


def integration_lag(
    sampler: Sampler,
    network: Network,
    interpolant: Interpolant,
    images: Tensor,
    num_samples: int,
    seed: int,
    labels: Tensor | None = None,
    num_levels: int = 20,
    max_dim: int | None = 256,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    prepare: Prepare | None = None,
    guide: Network | None = None,
    num_resamples: int = RESAMPLES,
    at: Sequence[float] | None = None,
) -> Curve[LevelLag]:
    """The lag of a sampler at `num_levels` of the levels it reaches, the last one included.

    Of `images` (N, ...), in an order decided by the seed, the first num_samples make the exact marginals and all others
    are the clean data. So states and marginals are equally many, and neither shares an image with the data.

    labels: what the samples are conditioned on, (num_samples, ...). max_dim: see `create_projection`. guide: see
    `Sampler.sample`. prepare: see `noised_batches`. num_resamples: of the exact marginals, for `lag_se`; 0 is none.
    at: noise levels in place of num_levels, each the nearest that the sampler reaches.

    Raises ValueError for fewer than num_samples + 2 images.
    """
    if len(images) < num_samples + 2:
        raise ValueError(
            f"{num_samples} samples need {num_samples} images for the marginals and at least 2 as the data, "
            f"got {len(images)}: lower num_samples"
        )
    projection = create_projection(images[0].numel(), max_dim, seed)
    order = torch.randperm(len(images), generator=keyed_generator(seed)).to(images.device)
    own, data = images[order[:num_samples]], images[order[num_samples:]]
    states = state_moments(
        sampler, network, interpolant, range(num_samples), images.shape[1:], seed, projection, labels, batch_size,
        device, guide,
    )  # fmt: skip
    levels = _spread_out(sorted(states), num_levels) if at is None else _nearest_to(at, states)
    kept = {t: states[t] for t in levels}

    def moments(part: Tensor, level: float) -> Moments:
        return _marginal(interpolant, part, level, seed, projection, batch_size, device, prepare)

    clean = moments(data, 0.0)
    resampled = _Resampled(interpolant, _projected(own, projection, batch_size, device, prepare), clean, seed)
    found = []
    for t, state in kept.items():
        point = _point(t, state, moments(own, t), clean, interpolant, projection.noise_variance)
        lags = resampled.lags(t, t + point.lag_marginal, projection.noise_variance, num_resamples)
        found.append(replace(point, null_lags=lags))
    return Curve(found)


def state_moments(
    sampler: Sampler,
    network: Network,
    interpolant: Interpolant,
    indices: Sequence[int],
    shape: Sequence[int],
    seed: int,
    projection: Projection,
    labels: Tensor | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    guide: Network | None = None,
) -> dict[float, Moments]:
    """Moments of the projected states after every step of the sampler, by the level reached.

    The samples are those of `Sampler.sample` for these indices and this seed. A final jump counts as reaching 0.

    labels: (len(indices), ...) or None.
    """
    found: dict[float, FeatureMoments] = {}

    def add(t: float, x: Tensor) -> None:
        if t not in found:
            found[t] = FeatureMoments(projection.size).to(x.device)
        found[t].update(projection(x))

    for start in range(0, len(indices), batch_size):
        part = indices[start : start + batch_size]
        label = None if labels is None else labels[start : start + batch_size]
        samples = sampler.sample(network, interpolant, part, shape, seed, label, device, add, guide)
        if sampler.final_jump is not None:
            add(0.0, samples.images)
    return {t: moments.compute() for t, moments in found.items()}


def marginal_moments(interpolant: Interpolant, data: Moments, t: float, noise_variance: float = 1.0) -> Moments:
    """Moments of alpha data + sigma noise from those of the data: mean alpha m, covariance alpha^2 C + sigma^2 s I.

    noise_variance: s, of each number of the noise in the space of the moments.
    """
    level = torch.tensor([t], dtype=torch.float64, device=data.mean.device)
    alpha, sigma = interpolant.alpha(level), interpolant.sigma(level)
    noise = torch.eye(len(data.mean), dtype=torch.float64, device=data.mean.device) * noise_variance
    return Moments(alpha * data.mean, alpha.square() * data.covariance + sigma.square() * noise, data.count)


def effective_level(
    state: Moments, data: Moments, interpolant: Interpolant, t: float, noise_variance: float = 1.0
) -> tuple[float, float]:
    """The level near t whose exact marginal is nearest to `state`, and their Frechet distance.

    Searched on a grid within 0.25 of t, then on one between the best level's neighbours, then by a parabola.
    """

    def distances(levels: list[float]) -> list[float]:
        return [distance_of(state, marginal_moments(interpolant, data, level, noise_variance)) for level in levels]

    low, high = max(0.0, t - WINDOW), min(1.0, t + WINDOW)
    for _ in range(2):
        levels = torch.linspace(low, high, 2 * _GRID + 1, dtype=torch.float64).tolist()
        found = distances(levels)
        best = found.index(min(found))
        low, high = levels[max(0, best - 1)], levels[min(len(levels) - 1, best + 1)]
    if 0 < best < len(levels) - 1:
        below, here, above = found[best - 1 : best + 2]
        bend = below - 2 * here + above
        shift = (below - above) / (2 * bend) if bend > 0 else 0.0
        return levels[best] + shift * (levels[1] - levels[0]), here
    return levels[best], found[best]


def _point(
    t: float, state: Moments, marginal: Moments, clean: Moments, interpolant: Interpolant, noise_variance: float
) -> LevelLag:
    fld, exact = distance_of(state, clean), distance_of(marginal, clean)
    effective, misfit = effective_level(state, clean, interpolant, t, noise_variance)
    by_chance, _ = effective_level(marginal, clean, interpolant, t, noise_variance)
    excess = fld / exact - 1 if exact else float("nan")
    return LevelLag(t, fld, exact, excess, effective, effective - t, by_chance - t, misfit)


def _marginal(
    interpolant: Interpolant,
    images: Tensor,
    level: float,
    seed: int,
    projection: Projection,
    batch_size: int,
    device: torch.device | str,
    prepare: Prepare | None,
) -> Moments:
    """Moments of the projected images at a level, each with its noise."""
    moments = FeatureMoments(projection.size).to(device)
    for batch in noised_batches(images, level, seed, batch_size, device, prepare):
        moments.update(projection(interpolant.interpolate(batch.data, batch.noise, batch.t)))
    return moments.compute()


@dataclass(frozen=True, eq=False)
class _Resampled:
    """Samples of the exact marginals drawn anew: images (N, k) with repeats, and noise, both projected."""

    interpolant: Interpolant
    images: Tensor
    clean: Moments
    seed: int

    def lags(self, t: float, near: float, noise_variance: float, num: int) -> tuple[float, ...]:
        """What each of `num` draws shows as its lag at level t. A draw has one noise for all levels.

        near: the level that the exact marginal looks like; each draw's is at the bottom of a parabola about it.
        """
        middle = min(1.0 - _STEP, max(_STEP, near))
        levels = [middle - _STEP, middle, middle + _STEP]
        exact = [marginal_moments(self.interpolant, self.clean, level, noise_variance) for level in levels]
        draws = (self._moments(t, noise_variance, draw) for draw in range(num))
        return tuple(_bottom(levels, [distance_of(state, moments) for moments in exact]) - t for state in draws)

    def _moments(self, t: float, noise_variance: float, draw: int) -> Moments:
        generator = keyed_generator(self.seed, draw + 1)
        rows = torch.randint(len(self.images), (len(self.images),), generator=generator)
        noise = torch.randn(self.images.shape, generator=generator) * noise_variance**0.5
        level = torch.full((len(rows),), t, device=self.images.device)
        data = self.images[rows.to(self.images.device)]
        return moments_of(self.interpolant.interpolate(data, noise.to(data), level), device=data.device)


def _bottom(levels: list[float], values: list[float]) -> float:
    """Where the parabola through three equally spaced points is lowest, within [0, 1] and the lowest point if bent."""
    below, here, above = values
    bend = below - 2 * here + above
    if bend <= 0:
        return levels[values.index(min(values))]
    return min(1.0, max(0.0, levels[1] + (below - above) / (2 * bend) * (levels[1] - levels[0])))


def _projected(
    images: Tensor, projection: Projection, batch_size: int, device: torch.device | str, prepare: Prepare | None
) -> Tensor:
    """The images in the space of the moments, (N, k)."""
    parts = (part.to(device) for part in images.split(batch_size))
    return torch.cat([projection(part if prepare is None else prepare(part)) for part in parts])


def _nearest_to(wanted: Sequence[float], levels: Iterable[float]) -> list[float]:
    """The level nearest to each one wanted, once. Raises ValueError where none is wanted."""
    if not wanted:
        raise ValueError("integration_lag needs a noise level, and at has none: give some, or null for num_levels")
    reached = [*levels]
    return [*dict.fromkeys(min(reached, key=lambda level: abs(level - t)) for t in wanted)]


def _spread_out(levels: Iterable[float], num: int) -> list[float]:
    """`num` of the ascending levels, evenly by place, the first and the last among them."""
    levels = list(levels)
    if num < 1:
        raise ValueError(f"num_levels must be at least 1, got {num}")
    if len(levels) <= num:
        return levels
    places = {round(i * (len(levels) - 1) / max(1, num - 1)) for i in range(num)}
    return [levels[place] for place in sorted(places)]
