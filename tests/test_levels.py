"""A number means the same at every key: noise levels are in [0, 1], and T_min alone counts of 1000."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from omegaconf import OmegaConf

from flowexp.backbones import create_backbone
from flowexp.cli.composing import Configs, config_folder
from flowexp.flow.interpolants import Linear
from flowexp.flow.sampler import Sampler
from flowexp.measuring.callbacks.diagnostics_along_t import (
    ConditionNumber,
    EncoderJacobian,
    GradientShare,
    VelocityNorms,
)
from flowexp.measuring.callbacks.probe import ProbeMonitor
from flowexp.measuring.diagnostics import velocity_norms
from flowexp.objectives import LocalContrastiveFlow
from flowexp.objectives.lcf import threshold

MONITORS = [ProbeMonitor, VelocityNorms, ConditionNumber, GradientShare, EncoderJacobian]
# What T_min meant in each experiment before it was told apart from levels.
THRESHOLDS = {
    "cifar10_fm_contrast": 0.02, "cifar10_lcf": 0.02, "cifar10_truncated_fm": 0.02, "digits_lcf": 0.1,
    "fashion_fm_contrast": 0.1, "fashion_lcf": 0.1, "fashion_truncated_fm": 0.1, "imagenet_pixel_lcf": 0.2,
    "tinyimagenet_lcf": 0.1,
}  # fmt: skip


def lcf(**threshold) -> LocalContrastiveFlow:
    return LocalContrastiveFlow(
        backbone=create_backbone("dit_nano2", resolution=8, channels=1, depth=1, width=8, heads=1), **threshold
    )


@pytest.mark.parametrize("monitor", MONITORS)
@pytest.mark.parametrize("levels", [[0, 0.5, 1], [0.0, 0.5, 1.0], [1, 0, 0.5, 1.0]])
def test_a_monitor_reads_one_as_pure_noise_however_it_is_spelt(monitor, levels):
    assert monitor(levels=levels).levels == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("monitor", MONITORS)
@pytest.mark.parametrize("levels", [[0, 20], [0.5, -0.1], [math.nan], ["0.5"], [True]])
def test_a_monitor_refuses_other_levels_and_names_its_key_and_the_unit(monitor, levels):
    with pytest.raises(ValueError, match=r"each of callbacks\.\w+\.levels must be a noise level in \[0, 1\]"):
        monitor(levels=levels)


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({}, 0.02),
        ({"T_min": 1}, 0.001),
        ({"T_min": 1.0}, 0.001),
        ({"T_min": 0}, 0.0),
        ({"T_min": 20}, 0.02),
        ({"T_min": 20.0}, 0.02),
        ({"T_min": 1000}, 1.0),
        ({"t_min": 0.02}, 0.02),
        ({"t_min": 1}, 1.0),
        ({"t_min": 0}, 0.0),
        ({"T_min": None, "t_min": 0.3}, 0.3),
    ],
)
def test_t_min_is_of_a_thousand_and_a_level_has_a_key_of_its_own(given, level):
    assert lcf(**given, regress_below=True).t_min == level


def test_a_t_min_below_one_means_what_it_says_and_warns_of_the_unit():
    with pytest.warns(UserWarning, match=r"T_min=0.5 counts of 1000 and is the noise level 0.0005.*t_min=0.5"):
        assert lcf(T_min=0.5).t_min == 0.0005
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lcf(T_min=1), lcf(T_min=0), lcf(t_min=0.0005)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"T_min": 20, "t_min": 0.02}, "give objective.T_min, of 1000, or objective.t_min, .*null for the other"),
        ({"T_min": 0, "t_min": 0}, "give objective.T_min"),
        ({"t_min": 20}, r"objective.t_min must be a noise level in \[0, 1\].*20 of 1000 is 0.02"),
        ({"T_min": 1001}, "objective.T_min counts noise levels of 1000"),
        ({"T_min": "20"}, "objective.T_min counts noise levels of 1000"),
    ],
)
def test_both_keys_at_once_or_a_number_out_of_range_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        lcf(**given)


def test_a_diagnostic_takes_the_integer_one_for_pure_noise():
    """As a tensor of integers, t would be 0 or 1 alone."""
    images = torch.randn(4, 1, 2, 2)

    def network(x, t, label=None):
        assert t.dtype == torch.float32
        return x

    first, second = (velocity_norms(network, Linear(), images, levels, seed=0) for levels in ([0.5, 1], [0.5, 1.0]))
    assert first == second and first.levels == [0.5, 1.0]
    with pytest.raises(ValueError, match="noise level in"):
        velocity_norms(network, Linear(), images, [20], seed=0)


def test_an_interval_is_the_same_protocol_however_it_is_spelt():
    assert Sampler(guidance_interval=[0, 1]).protocol() == Sampler().protocol()
    assert repr(Sampler(guidance_interval=[0, 1]).protocol()) == repr(Sampler().protocol())


@pytest.mark.parametrize(("name", "level"), THRESHOLDS.items())
def test_an_experiment_keeps_the_threshold_that_it_had(name, level):
    config = Configs().compose("train", [f"experiment={name}"])
    assert threshold(config.objective.T_min, config.objective.t_min) == level
    assert config.sampler.final_jump is None


def test_the_yamls_of_monitors_have_levels_and_no_time_steps():
    yamls = [OmegaConf.load(file) for file in (config_folder() / "callbacks").glob("*.yaml")]
    levels = [level for yaml in yamls for level in yaml.get("levels", [])]
    assert levels and all(isinstance(level, float) and 0 <= level <= 1 for level in levels)
