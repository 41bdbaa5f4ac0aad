"""Every diagnostic as a monitor: a table, a picture and named numbers, of held-out images and the EMA weights."""

from __future__ import annotations

import pytest

from flowexp.callbacks.curves import (
    ConditionNumber,
    CrossTerms,
    EncoderJacobian,
    GradientShare,
    IntegrationLag,
    VelocityNorms,
)
from flowexp.callbacks.ssc_calibration import SSCCalibration
from flowexp.diagnostics import velocity_norms, verdict

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


@pytest.mark.parametrize("name", MONITORS)
def test_a_diagnostic_leaves_a_table_and_named_numbers(name, module, datamodule):
    found = measure(MONITORS[name](), module, datamodule)
    assert found.name == name and found.rows
    assert found.scalars and all(key.startswith(f"{name}/") for key in found.scalars)
    assert found.protocol["seed"] == 0
    if name != "cross_terms":
        assert found.figure is not None


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


def test_what_monitors_found_gives_a_verdict(module, datamodule):
    norms, jacobian = MONITORS["velocity_norms"](), MONITORS["jacobian"]()
    for monitor in (norms, jacobian):
        measure(monitor, module, datamodule)
    sentences = verdict(norms=norms.found, jacobian=jacobian.found)
    assert any("velocity deficit" in sentence for sentence in sentences)


def test_a_conditional_network_is_diagnosed_under_its_labels(conditional_module, datamodule):
    assert measure(MONITORS["velocity_norms"](), conditional_module, datamodule).rows


@pytest.mark.slow
def test_calibration_runs_every_control_on_the_same_noise(module, datamodule):
    monitor = SSCCalibration(
        {"name": "efficientnet_lite", "input_size": 48}, num_samples=24, solvers=["euler"], num_steps=[2, 3],
        constants=[1.05], num_images=60, max_dim=4, num_resamples=20,
    )  # fmt: skip
    sampler = module.sampler
    found = measure(monitor, module, datamodule)
    assert module.sampler is sampler
    assert {row["scale"] for row in found.rows} == {"plain", "vd", "late", "constant_1.05", "proposal", "mean"}
    assert {row["num_steps"] for row in found.rows} == {2, 3}
    plain = [row for row in found.rows if row["scale"] == "plain"]
    assert all(row["difference"] == row["low"] == row["high"] == 0 for row in plain)
    assert found.figure is not None and found.scalars["ssc/s0"] >= 1


@pytest.mark.parametrize("wrong", [{"levels": []}, {"num_images": 1}, {"levels": [2000]}])
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValueError):
        VelocityNorms(**wrong)
