"""The papers' counts and choices by name: `callbacks=lcf`, `callbacks=vd`."""

from __future__ import annotations

import pytest

from flowexp.cli.composing import Configs


@pytest.mark.parametrize(
    "name, num_samples, labels, metrics",
    [
        ("lcf", 7500, "balanced", ["frechet"]),
        ("vd", 50_000, "random", ["frechet", "sfid", "inception_score", "precision_recall"]),
    ],
)
def test_a_papers_protocol_has_its_number_of_samples_and_its_scores(name, num_samples, labels, metrics):
    callbacks = Configs().compose("evaluate", [f"callbacks={name}", "encoder=inception", "run=RUN"]).callbacks
    chosen = callbacks.frechet
    assert (chosen.num_samples, chosen.labels, list(chosen.metrics)) == (num_samples, labels, metrics)
    assert chosen.encoder.name == "inception" and chosen.max_reference is None
    assert ("probe" in callbacks) == (name == "lcf")  # VD measures none
    if name == "lcf":
        assert callbacks.probe.protocol == "lcf" and callbacks.probe.epochs is None
