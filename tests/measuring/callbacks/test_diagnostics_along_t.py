"""Every diagnostic as a monitor: a table, a picture and named numbers, of held-out images and the EMA weights."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowexp.measuring.callbacks.diagnostics_along_t import (
    ConditionNumber,
    CrossTerms,
    EncoderJacobian,
    GradientShare,
    IntegrationLag,
    VelocityNorms,
)
from flowexp.measuring.diagnostics import velocity_norms

sys.path.append(str(Path(__file__).parent))
from processes import random_module

LEVELS = [0.05, 0.3, 0.7, 0.95]
MONITORS = {
    "velocity_norms": lambda: VelocityNorms(LEVELS, num_images=16),
    "condition_number": lambda: ConditionNumber(LEVELS, num_images=8),
    "gradient_share": lambda: GradientShare(LEVELS, num_images=8),
    "jacobian": lambda: EncoderJacobian(LEVELS, num_images=4, num_probes=1),
    "integration_lag": lambda: IntegrationLag(num_samples=20, num_images=60, num_levels=2, max_dim=8),
    "cross_terms": lambda: CrossTerms(num_images=16),
}


def measure(monitor, module, datamodule):
    with module.averaged():
        return monitor.measure(module, datamodule, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", MONITORS)
def test_a_diagnostic_leaves_a_table_and_named_numbers(name, module, datamodule):
    found = measure(MONITORS[name](), module, datamodule)
    assert found.name == name and found.rows
    assert found.scalars and all(key.startswith(f"{name}/") for key in found.scalars)
    assert found.protocol["seed"] == 0
    assert found.about.endswith(".") and set(found.maps) <= set(found.rows[0])
    if name != "cross_terms":
        assert found.figure is not None and found.maps


@pytest.mark.slow
def test_the_curve_is_the_diagnostic_of_the_test_images(module, datamodule):
    found = measure(VelocityNorms(LEVELS, num_images=16), module, datamodule)
    with module.averaged():
        expected = velocity_norms(
            module.velocity_network,
            module.interpolant,
            datamodule.test.subset(16).images,
            LEVELS,
            0,
            prepare=datamodule.to_data,
        )
    assert found.rows == expected.rows()
    assert found.scalars["velocity_norms/deficit_at_noise"] == expected.noise_end.deficit


@pytest.mark.slow
def test_every_panel_shows_columns_of_the_table(module, datamodule):
    for name in MONITORS.keys() - {"cross_terms"}:
        found = measure(MONITORS[name](), module, datamodule)
        columns = {column for panel in MONITORS[name]().panels for column in panel.lines}
        assert columns <= set(found.rows[0]), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["velocity_norms", "condition_number", "gradient_share", "integration_lag"])
def test_what_was_found_is_said_in_plain_words(name, module, datamodule):
    assert measure(MONITORS[name](), module, datamodule).verdicts


@pytest.mark.slow
def test_a_lag_names_its_sampler_and_the_guide_by_its_weights(module, datamodule):
    plain = measure(MONITORS["integration_lag"](), module, datamodule).protocol["sampler"]
    assert plain == module.sampler.protocol()
    module.sampler = replace(module.sampler, autoguidance_scale=2.0)
    guides = []
    for seed in (1, 1, 2):
        module.guide = random_module().velocity_network
        torch.manual_seed(seed)
        for parameter in module.guide.backbone.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        guides.append(measure(MONITORS["integration_lag"](), module, datamodule).protocol["sampler"]["guide"])
    assert guides[0] == guides[1] != guides[2] and len(guides[0]["weights"]) == 16


@pytest.mark.slow
def test_a_lag_follows_no_more_samples_than_half_of_the_images(module, datamodule):
    found = measure(IntegrationLag(num_images=20, num_levels=2, max_dim=8), module, datamodule)
    assert found.protocol["num_samples"] == 10 and found.rows


@pytest.mark.slow
def test_the_lag_that_counts_is_a_column_of_the_table(module, datamodule):
    found = measure(MONITORS["integration_lag"](), module, datamodule)
    assert [row["unbiased_lag"] for row in found.rows] == [row["lag"] - row["lag_marginal"] for row in found.rows]
    largest = max((row["unbiased_lag"] for row in found.rows), key=abs)
    assert found.scalars["integration_lag/largest"] == largest


@pytest.mark.slow
def test_a_conditional_network_is_diagnosed_under_its_labels(conditional_module, datamodule):
    assert measure(MONITORS["velocity_norms"](), conditional_module, datamodule).rows


@pytest.mark.parametrize("wrong", [{"levels": []}, {"num_images": 1}, {"levels": [2000]}])
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValueError):
        VelocityNorms(**wrong)


def test_norms_beside_the_exact_field_are_of_training_images(module, datamodule):
    found = measure(VelocityNorms([0.3, 0.9], num_images=16, exact_images=40), module, datamodule)
    assert found.protocol["images"].startswith("16 training images")
    assert found.protocol["exact_field"].startswith("40 training images")
    assert all(row["exact"] > 0 and row["from_exact"] > 0 for row in found.rows)


def test_an_exact_field_of_fewer_images_than_are_measured_is_refused():
    with pytest.raises(ValueError, match=r"exact_images must be at least num_images, 512.*got 100"):
        VelocityNorms(exact_images=100)
