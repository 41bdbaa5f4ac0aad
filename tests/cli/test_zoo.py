"""The networks that come with flowexp: each is whole, trained, and a run like any other."""

import pytest
import torch
from torch import Tensor

import flowexp
from flowexp.cli import zoo as runs
from flowexp.cli.assembly.rebuilding import load_run
from flowexp.data import FashionMNIST
from flowexp.integrations.starting_weights import read_source
from flowexp.records import zoo
from flowexp.records.run_folder import RunFolder


def test_the_zoo_has_one_network_of_each_method():
    assert zoo.names() == ["fashion_fm", "fashion_lcf", "fashion_mafm"]


def test_a_name_that_the_zoo_has_not_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"there is no zoo:fashion_mf.*fashion_fm"):
        flowexp.load("zoo:fashion_mf")


@pytest.fixture(scope="module")
def images(fashion_mnist: FashionMNIST) -> Tensor:
    """Test images (64, 1, 28, 28) that no network has trained on."""
    return fashion_mnist.test.images[:64].float() / 127.5 - 1


@pytest.mark.parametrize("name", zoo.names())
def test_a_network_of_the_zoo_knows_its_data(name: str, images: Tensor):
    """In the middle of the path it explains most of the velocity's variance."""
    model = flowexp.load(f"zoo:{name}")
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        error = (model((images + noise) / 2, torch.full((64,), 0.5)) - (noise - images)).square().mean()
    assert error < 0.25 * (noise - images).var(), error


def test_the_card_of_a_network_tells_how_it_was_trained():
    assert "objective: mafm (lam 0.2, profile linear, form rms_squared)" in _card("fashion_mafm")
    assert "objective: lcf (T_min 100, tau 0.5, lam 1.0" in _card("fashion_lcf")


def _card(name: str) -> str:
    return (zoo.find(name) / "README.md").read_text(encoding="utf-8")


def test_a_run_of_the_zoo_has_the_weights_of_its_export(tmp_path):
    run = RunFolder(runs.unpack("zoo:fashion_lcf", tmp_path))
    module, _, step = load_run(run.path, with_data=False)
    assert (module.objective, step, run.trained_step()) == ("lcf", 3000, 3000)
    with module.averaged():
        ours = module.backbone.state_dict()
    theirs = flowexp.load("zoo:fashion_lcf").backbone.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert all(torch.equal(ours[name], value) for name, value in read_source("zoo:fashion_lcf").weights.items())


def test_a_run_is_unpacked_once_and_mended_where_it_is_of_another_network(tmp_path):
    run = RunFolder(runs.unpack("zoo:fashion_fm", tmp_path))
    checkpoint = next(run.checkpoints.iterdir())
    first = checkpoint.stat().st_mtime_ns
    runs.unpack("zoo:fashion_fm", tmp_path)
    assert checkpoint.stat().st_mtime_ns == first
    run.origin_file.write_text('{"adopted": {"fingerprint": "of another"}}')
    runs.unpack("zoo:fashion_fm", tmp_path)
    assert checkpoint.stat().st_mtime_ns > first and run.origin()["adopted"]["file"] == "zoo:fashion_fm"
