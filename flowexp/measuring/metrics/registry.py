"""Metrics by name. One file adds one: a function of `Work` under `@metric("name", ...)`, chosen as `file.name`."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from flowexp.flow.choices import nearest
from flowexp.flow.randomness import keyed_generator
from flowexp.measuring.metrics.collecting import Needs, Statistics
from flowexp.measuring.metrics.frechet import distance_of
from flowexp.measuring.metrics.neighbours import Device
from flowexp.measuring.metrics.options import MetricOptions


@dataclass(frozen=True)
class Work:
    """What one metric is computed from.

    Arguments:
        plan: the options.
        samples, reference: the statistics that `Needs` declares.
        seed: decides random subsets.
        stream: a number for each metric, so that it draws the same whatever other metrics are chosen.
        device: where arithmetic is to be done; stored features lie on the CPU.
    """

    plan: MetricOptions
    samples: Statistics
    reference: Statistics
    seed: int = 0
    stream: int = 0
    device: Device = "cpu"

    def generator(self) -> torch.Generator:
        """The random stream of the metric."""
        return keyed_generator(self.seed, self.stream)

    def distance(self, output: str) -> float:
        """The Frechet distance of an output's moments."""
        return distance_of(self.reference.moments[output].to(self.device), self.samples.moments[output])

    def sampled(self) -> Tensor:
        """Stored features of the samples (N, D)."""
        assert self.samples.features is not None  # as `Needs` declares
        return self.samples.features

    def features(self) -> tuple[Tensor, Tensor]:
        """Stored features of the samples (N, D) and of the reference (M, D)."""
        assert self.reference.features is not None  # as `Needs` declares
        return self.sampled(), self.reference.features


Scores = Callable[[Work], dict[str, float]]
Options = Callable[[MetricOptions], Mapping[str, Any]]


@dataclass(frozen=True)
class RegisteredMetric:
    """A metric: its scores by name, what it needs of samples and reference, and what decides it beside those.

    Arguments:
        stream: see `Work`.
        options: from the plan, for the card.
        fewest: the least number of samples, and of reference images where it needs their features.
        lowered_by: the plan's option that lowers it; empty where none does.
        gives: the names of its scores; None where they are not known beforehand.
    """

    name: str
    scores: Scores
    samples: Needs
    reference: Needs
    stream: int
    options: Options
    fewest: Callable[[MetricOptions], int]
    lowered_by: str = ""
    gives: tuple[str, ...] | None = None


METRICS: dict[str, RegisteredMetric] = {}


def metric(
    name: str,
    samples: Needs,
    reference: Needs | None = None,
    options: Options = lambda plan: {},
    fewest: Callable[[MetricOptions], int] = lambda plan: 2,
    stream: int | None = None,
    lowered_by: str = "",
    gives: tuple[str, ...] | None = None,
) -> Callable[[Scores], Scores]:
    """Registers a function that gives scores by name as the metric `name`.

    samples, reference: what one pass over either must leave; None needs no reference.
    options: plain values of the plan, or of the function's file, that decide the scores: they go on the number's card.
    fewest: how many samples it needs, and how many reference images where it takes their features.
    stream: of the random subsets; None makes it from the name.
    lowered_by: the plan's option that lowers `fewest`, for the message about too few.
    gives: the names of the scores, which callbacks may watch by name; with None any name is taken for one of them.
    """

    def register(scores: Scores) -> Scores:
        known = METRICS.get(name)
        if known is not None and known.scores.__module__ != scores.__module__:
            raise ValueError(f"there is a metric {name} already, of {known.scores.__module__}: choose another name")
        own = 1000 + zlib.crc32(name.encode()) if stream is None else stream
        METRICS[name] = RegisteredMetric(
            name, scores, samples, reference or Needs(), own, options, fewest, lowered_by, gives
        )
        return scores

    return register


def find_metric(name: str) -> RegisteredMetric:
    """The metric called `name`; for `file.name` or `package.file.name` that file is imported first.

    Raises:
        ValueError: there is no such metric, module, or metric in it.
    """
    module, _, last = name.rpartition(".")
    if module:
        _import(module, name)
    if last not in METRICS or (module and METRICS[last].scores.__module__ != module):
        raise ValueError(
            f"metrics must be some of {', '.join(METRICS)}, or file.name of one's own "
            f"(@flowexp.measuring.metrics.metric), got {name}{nearest(last, METRICS)}"
        )
    return METRICS[last]


def _import(module: str, name: str) -> None:
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"the metric {name} could not be imported ({error}): is its file in this folder?") from error
