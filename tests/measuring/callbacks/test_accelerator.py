"""On an accelerator no measurement mixes devices; values are asked for, and pretended."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowexp.integrations.encoders import create_encoder
from flowexp.measuring.callbacks.diagnostics_along_t import (
    ConditionNumber,
    CrossTerms,
    EncoderJacobian,
    IntegrationLag,
    VelocityNorms,
)
from flowexp.measuring.callbacks.noise_levels import NoiseLevelMonitor
from flowexp.measuring.callbacks.sample_metrics import SampleMetrics
from flowexp.measuring.callbacks.samples import SampleGridMonitor

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[2])]
from pretended_accelerator import moved, pretended_accelerator
from processes import random_module

pytestmark = pytest.mark.slow

LEVELS = [0.05, 0.3]
MONITORS = {
    "velocity_norms": lambda: VelocityNorms(LEVELS, num_images=16),
    "cross_terms": lambda: CrossTerms(num_images=16),
    "condition_number": lambda: ConditionNumber(LEVELS, num_images=8),
    "jacobian": lambda: EncoderJacobian(LEVELS, num_images=4, num_probes=1),
    "integration_lag": lambda: IntegrationLag(num_samples=20, num_images=60, num_levels=2, max_dim=8),
    "noise_levels": lambda: NoiseLevelMonitor(num_images=16),
    "samples": lambda: SampleGridMonitor(num_samples=4),
}


@pytest.mark.parametrize("name", MONITORS)
def test_a_monitor_mixes_no_devices(name, datamodule):
    with pretended_accelerator(answers=2):
        module = moved(random_module())
        with module.averaged():
            assert MONITORS[name]().measure(module, datamodule, 0).name


def test_all_scores_of_samples_mix_no_devices(datamodule):
    encoder = create_encoder("efficientnet_lite", input_size=48)
    with pretended_accelerator(answers=2):
        module = moved(random_module())
        scores = SampleMetrics(
            encoder, metrics="all", num_samples=50, max_reference=50, cache=None, options={"kid_subset_size": 50}
        )
        with module.averaged():
            assert "frechet/efficientnet_lite" in scores.measure(module, datamodule, 0).scalars
