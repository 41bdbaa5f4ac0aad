"""Published weights become a run that every command takes."""

from __future__ import annotations

import argparse
import json

import pytest
import torch
from small_sit import SMALL

from flowexp.backbones import create_backbone
from flowexp.cli.assembly.rebuilding import load_run

pytestmark = pytest.mark.slow

CLASSES = (*SMALL, "class_conditional=true")
SIT = {"model": "SiT-S/2", "path_type": "Linear", "prediction": "velocity", "loss_weight": None}
REPA = {"model": "SiT-S/2", "path_type": "linear", "prediction": "v", "proj_coeff": 0.5, "encoder_depth": 1}
X, T, LABEL = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.5, 0.9]), torch.arange(3)


def official(**options):
    """A network of SiT's or REPA's code with weights that are not zero."""
    torch.manual_seed(0)
    created = create_backbone(
        "sit_s2", resolution=8, channels=1, num_classes=10, depth=2, width=32, heads=2, learn_sigma=True, **options
    )
    with torch.no_grad():
        for parameter in created.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return created.eval()


def training_file(path, network, arguments, **more):
    """What train.py of SiT (arguments SIT) or REPA saves."""
    state = network.state_dict()
    torch.save({"model": state, "ema": state | more, "opt": {}, "args": argparse.Namespace(**arguments)}, path)
    return f"file={path.name}"


def velocity_of(run):
    module, _, _ = load_run(run, with_data=False)
    with torch.no_grad():
        return module.velocity_network(X, T, LABEL)


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
    assert origin["adopted"]["convention"] == "sit"


def test_weights_of_another_size_are_refused_in_a_sentence(adopted, shell):
    refused = shell.here(
        "adopt", "file=sit.pt", "backbone=sit_s2", "data=digits", "class_conditional=false", "run_dir=refused"
    )
    assert refused.code == 2 and "these weights are not those of this network" in refused.err


@pytest.mark.parametrize(
    ("whose", "arguments", "given", "more"),
    [
        ("sit", SIT, (), {}),
        ("repa", REPA, (), {}),
        ("repa", REPA, ("convention=repa",), {"projectors.0.0.weight": torch.zeros(2, 2)}),
    ],
    ids=["SiT", "REPA", "REPA with projectors"],
)
def test_a_training_checkpoint_gives_the_velocity_that_its_own_code_gives(shell, whose, arguments, given, more):
    network, name = official(), f"{whose}_{len(more)}"
    file = training_file(shell.folder / f"{name}.pt", network, arguments, **more)
    shell.here("adopt", file, *CLASSES, *given, f"run_dir={name}").succeeded()
    with torch.no_grad():
        theirs = -network(X, 1 - T, LABEL) if whose == "sit" else network(X, T, LABEL)
    ours = velocity_of(shell.folder / name)
    torch.testing.assert_close(ours, theirs[:, : ours.shape[1]], rtol=1e-3, atol=1e-3)


def test_bare_weights_of_repa_are_adopted_as_repas_or_refused(shell):
    """Their projectors tell them from SiT's, whose velocity at the same t points the other way."""
    network = official()
    torch.save(network.state_dict() | {"projectors.0.0.weight": torch.zeros(2, 2)}, shell.folder / "last.pt")
    shell.here("adopt", "file=last.pt", *CLASSES, "run_dir=last").succeeded()
    with torch.no_grad():
        torch.testing.assert_close(velocity_of(shell.folder / "last"), network(X, T, LABEL), rtol=1e-3, atol=1e-3)
    refused = shell.here("adopt", "file=last.pt", *CLASSES, "convention=sit", "run_dir=as_sit")
    assert refused.code == 2 and "convention=sit contradicts the file" in refused.err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"extraordinary weights", "is damaged or is no file of plain weights"),
        (None, "there is no file"),
        ({"a": torch.ones(2)}, "these weights are not those of this network: missing"),
        ({"ema": official().state_dict(), "args": argparse.Namespace(path_type="GVP")}, "give interpolant=gvp"),
    ],
    ids=["text", "missing", "neither", "another path"],
)
def test_other_files_are_refused_in_a_sentence(shell, content, sentence):
    path = shell.folder / "other.pt"
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    refused = shell.here("adopt", "file=other.pt", *CLASSES, "run_dir=other")
    assert refused.code == 2 and sentence in refused.err and "Traceback" not in refused.err
