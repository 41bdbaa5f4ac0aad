"""A published model: three lines to load it, the numbers of the network it came from, and no code of others."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import flowexp
from flowexp.flow.interpolants import GVP, Linear
from flowexp.flow.parameterization import Parameterization, VelocityNetwork
from flowexp.flow.randomness import SampleNoise
from flowexp.flow.sampler import Sampler
from flowexp.integrations.published import PublishedModel
from flowexp.integrations.starting_weights import read_source

BACKBONE = {"name": "dit_nano2", "resolution": 8, "channels": 1, "num_classes": 10, "depth": 2, "width": 32, "heads": 2}


def model(**parts: Any) -> PublishedModel:
    made = PublishedModel(**{"backbone": BACKBONE, "sampler": {"solver": "heun", "num_steps": 3}, **parts})
    for parameter in made.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return made.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("export")
    model().save_pretrained(path)
    return path


def test_three_lines_give_the_network_that_was_saved(folder: Path) -> None:
    saved = PublishedModel.from_pretrained(folder)

    import flowexp

    model = flowexp.load(folder)
    images = model.sample(4, seed=1).images

    assert images.shape == (4, 1, 8, 8) and not model.training
    x, t, label = torch.randn(2, 1, 8, 8), torch.rand(2), torch.tensor([3, 10])
    assert torch.equal(model.velocity(x, t, label), saved.backbone(x, t, label))


def test_neither_hydra_nor_lightning_is_imported(folder: Path) -> None:
    code = f"""if True:
        import sys, flowexp
        model = flowexp.load({str(folder)!r})
        model.sample(2), model.features(model.sample(2).images, 0.3, 1)
        heavy = ("hydra", "omegaconf", "pytorch_lightning", "sklearn", "diffusers", "transformers")
        print(*(name for name in heavy if name in sys.modules))
    """
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


def test_it_samples_as_the_sampler_does_with_the_parts_of_its_config(tmp_path: Path) -> None:
    parts = {"interpolant": {"name": "gvp"}, "parameterization": {"prediction": "data", "clamp": 0.1}}
    model(**parts).save_pretrained(tmp_path)
    published = flowexp.load(tmp_path)
    network = VelocityNetwork(published.backbone, GVP(), Parameterization("data", clamp=0.1))
    labels = torch.tensor([5, 6, 7])
    expected = Sampler("heun", num_steps=4, s0=1.1).sample(network, GVP(), [5, 6, 7], (1, 8, 8), 2, labels).images
    assert torch.equal(published.sample([5, 6, 7], seed=2, num_steps=4, s0=1.1).images, expected)
    of_a_class = published.sample(2, label=4).images
    expected = Sampler("heun", num_steps=3).sample(network, GVP(), range(2), (1, 8, 8), 0, torch.tensor([4, 4])).images
    assert torch.equal(of_a_class, expected)


def test_features_are_the_tokens_of_noised_images(folder: Path) -> None:
    published, images = flowexp.load(folder), torch.randn(3, 1, 8, 8)
    noise = SampleNoise(7, range(3), (1, 8, 8)).draw()
    t = torch.full((3,), 0.25)
    expected = published.backbone.features(Linear().interpolate(images, noise, t), t, taps=[2])[2]
    assert torch.equal(published.features(images, 0.25, tap=2, seed=7), expected)
    assert torch.equal(published.features(images), published.backbone.features(images, 0 * t, taps=[1])[1])


def test_what_is_pushed_is_what_is_saved(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`push_to_hub` of the mixin writes a folder and uploads it: here the upload is a copy."""
    import huggingface_hub.hub_mixin as hub

    class Api:
        def __init__(self, token: str | None = None) -> None: ...

        def create_repo(self, repo_id: str, **_: Any) -> Any:
            return type("Url", (), {"repo_id": repo_id})()

        def upload_folder(self, *, folder_path: str, **_: Any) -> str:
            shutil.copytree(folder_path, tmp_path / "pushed")
            return "done"

    monkeypatch.setattr(hub, "HfApi", Api)
    flowexp.load(folder).push_to_hub("somebody/digits")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "pushed" / name).read_bytes() == (folder / name).read_bytes()
    pulled = flowexp.load(tmp_path / "pushed")
    assert torch.equal(pulled.sample(2).images, flowexp.load(folder).sample(2).images)


@pytest.fixture
def offline_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the hub on a machine without a network, in the layout that huggingface_hub gives it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_name_at_the_hub_is_a_model_and_a_beginning_of_trainings(folder: Path, offline_hub: Path) -> None:
    model_folder = offline_hub / "models--somebody--digits"
    commit = "0123456789abcdef0123456789abcdef01234567"
    shutil.copytree(folder, model_folder / "snapshots" / commit)
    (model_folder / "refs").mkdir()
    (model_folder / "refs/main").write_text(commit)
    expected = flowexp.load(folder)
    assert torch.equal(flowexp.load("somebody/digits").sample(2).images, expected.sample(2).images)
    weights = read_source("hub:somebody/digits").weights
    assert all(torch.equal(weights[name], value) for name, value in expected.backbone.state_dict().items())


@pytest.mark.parametrize("name", ["nobody/nothing", "no such name"])
@pytest.mark.usefixtures("offline_hub")
def test_what_the_hub_has_not_is_said_in_a_sentence(name: str) -> None:
    for load in (flowexp.load, lambda name: read_source(f"hub:{name}")):
        with pytest.raises(ValueError, match=f"{name} is no folder here, and cannot be had from the Hugging Face hub"):
            load(name)


def damaged(folder: Path, to: Path, **changes: Any) -> Path:
    """A copy of an export with another config."""
    to.mkdir()
    (to / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text()) | changes
    (to / "config.json").write_text(json.dumps(config))
    return to


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backbone": {**BACKBONE, "name": "os.system"}}, "backbone.name must be one of"),
        ({"backbone": {**BACKBONE, "_target_": "os.system"}}, "there is no key backbone._target_"),
        ({"backbone": {"name": "dit_nano2"}}, "resolution"),
        ({"backbone": {**BACKBONE, "width": 64}}, "does not hold the weights"),
        ({"interpolant": {"name": "subprocess.run"}}, "interpolant must be one of"),
        ({"interpolant": {"name": "linear", "_target_": "os.system"}}, "_target_"),
        ({"parameterization": {"prediction": "evil"}}, "parameterization.prediction must be one of"),
        ({"sampler": {"solver": {"_target_": "os.system", "command": "true"}}}, "solver must be a name"),
        ({"sampler": {"solver": "builtins.eval"}}, "solver must be one of"),
        ({"sampler": {"solver_options": {"_target_": "os.system"}}}, "_target_"),
    ],
)
def test_a_config_is_data(folder: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        flowexp.load(damaged(folder, tmp_path / "other", **changes))


def test_a_folder_that_is_no_export_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json"):
        flowexp.load(tmp_path)


def test_cut_off_weights_are_named(folder: Path, tmp_path: Path) -> None:
    broken = damaged(folder, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is damaged"):
        flowexp.load(broken)


@pytest.mark.parametrize("label", [10, -1])
def test_a_class_that_there_is_not_is_refused(folder: Path, label: int) -> None:
    with pytest.raises(ValueError, match=r"label must lie in 0\.\.9"):
        flowexp.load(folder).sample(2, label=label)
