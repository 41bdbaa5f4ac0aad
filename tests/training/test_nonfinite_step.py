"""A failed step is kept whole: taken again it gives the same numbers, and says where they stop being finite."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowexp.backbones import create_backbone
from flowexp.objectives import FlowMatching, LocalContrastiveFlow
from flowexp.replay import replay, verdict
from flowexp.training.nonfinite_step import Extremes, Incident, gradient_norm, largest_gradients, path_of_incident
from flowexp.training.step_draws import StepKey


def module_with_weights() -> LocalContrastiveFlow:
    torch.manual_seed(0)
    backbone = create_backbone("dit_nano2", resolution=8, channels=1, depth=2, width=16, heads=2)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.2)
    return LocalContrastiveFlow(backbone=backbone, T_min=300)


def incident_of(module: FlowMatching, path) -> Incident:
    data = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    batch = module.draw(data, torch.zeros(6, dtype=torch.long), StepKey(3, 7))
    loss = module.losses(batch).loss
    loss.backward()
    losses, state = {"loss": loss.item()}, torch.get_rng_state()
    Incident(7, [batch], module.state_dict(), largest_gradients(module), losses, "32-true", state).save(path)
    return Incident.load(path)


def test_a_loaded_step_has_the_same_loss_and_gradients_in_a_fresh_module(tmp_path):
    incident = incident_of(module_with_weights(), tmp_path / "step.pt")
    fresh = module_with_weights()
    torch.nn.init.normal_(fresh.backbone.x_embedder.proj.weight)
    found = replay(incident, fresh)
    gradients = {place.place: place.gradient for place in found if place.gradient is not None}
    assert gradients == pytest.approx(incident.gradients)
    assert fresh.losses(incident.batches[0]).loss.item() == pytest.approx(incident.losses["loss"])
    assert verdict(found, incident).startswith("all is finite this time")


def test_the_first_place_that_is_not_finite_is_named(tmp_path):
    module = module_with_weights()
    with torch.no_grad():
        module.backbone.blocks[1].mlp.fc1.weight.fill_(float("inf"))
    incident = incident_of(module, tmp_path / "step.pt")
    found = replay(incident, module_with_weights())
    assert verdict(found, incident) == "the first value that is not finite is the output of backbone.blocks.1.mlp.fc1"


def test_a_norm_that_overflows_though_each_gradient_is_finite_is_named(tmp_path):
    module = module_with_weights()
    with torch.no_grad():
        module.backbone.final_layer.linear.weight.mul_(1e12)
    incident = incident_of(module, tmp_path / "step.pt")
    assert all(math.isfinite(value) for value in incident.gradients.values())
    fresh = module_with_weights()
    found = replay(incident, fresh)
    assert gradient_norm(fresh) == math.inf
    sentence = verdict(found, incident, gradient_norm(fresh))
    assert sentence.startswith("every gradient is finite, but the norm of all together overflows 32-bit floats")
    assert "lower optimizer.lr" in sentence


def of_rank(rank: int, path: Path, loss: float) -> Incident:
    """What process `rank` of three saves of a step that fails on one of them."""
    incident = incident_of(module_with_weights(), path)
    (batch,) = incident.batches
    key = replace(batch.key, rank=rank, world_size=3)
    gradients = dict.fromkeys(incident.gradients, math.nan)  # all processes share them
    changed = replace(incident, batches=[replace(batch, key=key)], gradients=gradients, losses={"loss": loss})
    changed.save(path)
    return changed


def test_a_failure_of_another_process_is_looked_for_there(tmp_path):
    first = of_rank(0, path_of_incident(tmp_path, 7, 0), 1.0)
    of_rank(1, path_of_incident(tmp_path, 7, 1), 1.0)
    of_rank(2, path_of_incident(tmp_path, 7, 2), math.nan)
    module = module_with_weights()
    found = replay(first, module)
    sentence = verdict(found, first, gradient_norm(module), path_of_incident(tmp_path, 7, 0))
    assert sentence == (
        f"all is finite on process 0: the failure is that of another one, replay {path_of_incident(tmp_path, 7, 2)}"
    )
    path_of_incident(tmp_path, 7, 2).unlink()
    assert str(path_of_incident(tmp_path, 7, 1)) in verdict(found, first, 1.0, path_of_incident(tmp_path, 7, 0))


@pytest.mark.parametrize(("value", "finite"), [(1.0, True), (math.nan, False), (math.inf, False), (None, True)])
def test_extremes_know_whether_they_are_finite(value, finite):
    assert Extremes("a", activation=value).is_finite() is finite


def test_another_file_is_refused_in_a_sentence(tmp_path):
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is no saved step: give a file nonfinite_step"):
        Incident.load(tmp_path / "other.pt")
