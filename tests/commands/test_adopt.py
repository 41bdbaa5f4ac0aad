"""Published weights become a run that every command takes."""

from __future__ import annotations

import json

import pytest
import torch

from flowexp.backbones import create_backbone

pytestmark = pytest.mark.slow

SMALL = ("backbone=sit_s2", "+backbone.depth=2", "+backbone.width=32", "+backbone.heads=2", "data=digits")


@pytest.fixture(scope="session")
def adopted(shell):
    network = create_backbone("sit_s2", resolution=8, channels=1, depth=2, width=32, heads=2, learn_sigma=True)
    torch.save(network.state_dict(), shell.folder / "sit.pt")
    shell.run("adopt", "file=sit.pt", *SMALL, "step=7", "run_dir=adopted").succeeded()
    return shell.folder / "adopted"


def test_an_adopted_run_can_be_sampled_and_says_where_it_comes_from(adopted, shell):
    shell.here("sample", "run=adopted", "num_samples=4", "sampler.num_steps=2").succeeded()
    origin = json.loads((adopted / "run.json").read_text())
    assert origin["adopted"]["file"] == "sit.pt" and len(origin["adopted"]["sha256"]) == 16


def test_weights_of_another_size_are_refused_in_a_sentence(adopted, shell):
    refused = shell.here("adopt", "file=sit.pt", "backbone=sit_s2", "data=digits", "run_dir=refused")
    assert refused.code == 2 and "these weights are not those of this network" in refused.err
