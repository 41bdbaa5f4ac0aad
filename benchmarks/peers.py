"""The same work by flowexp and by what people would use instead: distances, classifiers, training steps and samples."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from typing import Any

import torch
from sklearn.linear_model import LogisticRegressionCV
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance

from benchmarks import peer_steps
from benchmarks.sampling import samples
from benchmarks.sizes import Size
from benchmarks.steps import Training
from benchmarks.table import Promise, Result, Row, compare
from benchmarks.timing import Comparison, Contestant, stopwatch
from flowexp.data import Digits
from flowexp.flow.sampler import Sampler
from flowexp.measuring.diagnostics.logistic_regression import PENALTIES, fit_logistic
from flowexp.measuring.metrics.frechet import distance_of
from flowexp.measuring.metrics.moments import moments_of


def peers(size: Size, rounds: int) -> Result:
    """Distances, a classifier, a step and samples, against torch-fidelity, torchmetrics, scikit-learn, torchcfm and
    diffusers.

    Distances are Frechet's of two sets of stored features, from the features to the number, on the CPU. The classifier
    is the logistic regression of the converged probe on the digits' pixels, five penalties and the choice among them.
    A step of flow matching with the network of 12 x 384 x 6 has draws, loss, backward, clipping, AdamW and EMA, on one
    batch and without a Trainer; torchcfm's is that of its example for CIFAR-10, diffusers' that of its examples for
    Stable Diffusion 3, with uniform times. Samples are those of Euler in 20 steps with the same network: of torchdyn,
    which torchcfm's example takes, and of diffusers' scheduler.
    """
    rows = [
        *distances(size, rounds),
        *classifiers(size, rounds),
        *training_steps(size, rounds),
        *samplers(size, rounds),
    ]
    missing = [peer for peer in EXTRAS if not is_installed(peer)]
    return Result(rows, [f"{peer} left out: pip install 'flowexp[{EXTRAS[peer]}]'" for peer in missing])


def distances(size: Size, rounds: int) -> list[Row]:
    """The Frechet distance of two sets of features."""
    one, other = (torch.randn(2 * size.feature_dim, size.feature_dim) for _ in range(2))
    works = {
        "Frechet distance": lambda: our_distance(one, other),
        "torch-fidelity": lambda: torch_fidelitys_distance(one, other),
        "torchmetrics": lambda: torchmetrics_distance(one, other),
    }
    timings = Comparison({name: stopwatch(work) for name, work in works.items()}).run(rounds)
    return [compare(timings, "Frechet distance", peer, Promise(1.0)) for peer in ("torch-fidelity", "torchmetrics")]


def our_distance(one: Tensor, other: Tensor) -> float:
    """By flowexp."""
    return distance_of(moments_of(one), moments_of(other))


def torch_fidelitys_distance(one: Tensor, other: Tensor) -> float:
    """By torch-fidelity: SciPy's square root of a matrix."""
    statistics = [fid_features_to_statistics(features) for features in (one, other)]
    return next(iter(fid_statistics_to_metric(*statistics, verbose=False).values()))


def torchmetrics_distance(one: Tensor, other: Tensor) -> float:
    """By torchmetrics: eigenvalues of a product that is not symmetric."""
    metric = FrechetInceptionDistance(feature=_AsTheyAre(one.shape[1])).set_dtype(torch.float64)
    metric.update(one, real=True)
    metric.update(other, real=False)
    return float(metric.compute())


class _AsTheyAre(nn.Module):
    """A feature network for features that are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def classifiers(size: Size, rounds: int) -> list[Row]:
    """Logistic regression on the digits, to convergence, the penalty chosen on a held-out fifth."""
    train, _ = Digits().load()
    pixels, labels = train.images[: size.fit_images].flatten(1).float(), train.labels[: size.fit_images]
    works: dict[str, Contestant] = {
        "logistic regression": stopwatch(lambda: fit_logistic(pixels, labels, num_classes=10)),
        "scikit-learn": stopwatch(lambda: scikit_learns_fit(pixels, labels)),
    }
    return [compare(Comparison(works).run(rounds), "logistic regression", "scikit-learn")]


def scikit_learns_fit(features: Tensor, labels: Tensor) -> LogisticRegressionCV:
    """The same choice among the same penalties by scikit-learn."""
    standard = ((features - features.mean(0)) / features.std(0).clamp_min(1e-6)).numpy()
    held_out = len(labels) // 5
    split = [(range(held_out, len(labels)), range(held_out))]
    strengths = [1 / (penalty * (len(labels) - held_out)) for penalty in PENALTIES]
    options = {"Cs": strengths, "cv": split, "scoring": "neg_log_loss", "tol": 1e-3, "max_iter": 1000}
    options |= {"l1_ratios": (0,), "use_legacy_attributes": False}  # the defaults of scikit-learn's next version
    return LogisticRegressionCV(**options).fit(standard, labels.numpy())


def training_steps(size: Size, rounds: int) -> list[Row]:
    """One step of flow matching, each peer on a copy of the same network and on the same batch."""
    training = Training.of(size)
    works = {"FM step": training.fm_step()}
    for peer, step in STEPS.items():
        if is_installed(peer):
            works[peer] = step(deepcopy(training.network), training.data, size)
    timings = Comparison({name: stopwatch(work, size.device, size.steps) for name, work in works.items()}).run(rounds)
    return [compare(timings, "FM step", peer, Promise(1.02)) for peer in works if peer in STEPS]


def samplers(size: Size, rounds: int) -> list[Row]:
    """One batch of samples by Euler."""
    network = size.create_network().eval()
    works: dict[str, Callable[[], Any]] = {"Euler": samples(Sampler("euler", size.solver_steps), network, size)}
    works |= {peer: draw(network, size) for peer, draw in SAMPLERS.items() if is_installed(peer)}
    timings = Comparison({name: stopwatch(work, size.device) for name, work in works.items()}).run(rounds)
    return [compare(timings, "Euler", peer, Promise(1.02)) for peer in works if peer in SAMPLERS]


STEPS = {"torchcfm": peer_steps.torchcfm_step, "diffusers": peer_steps.diffusers_step}
SAMPLERS = {"torchcfm": peer_steps.torchcfm_samples, "diffusers": peer_steps.diffusers_samples}
EXTRAS = {"torchcfm": "bench", "diffusers": "diffusers"}  # in which each of them is


def is_installed(package: str) -> bool:
    """Whether it can be imported."""
    return find_spec(package) is not None
