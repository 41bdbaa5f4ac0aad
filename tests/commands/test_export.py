"""Weights out and in by commands: a run is exported, loaded, fine-tuned, and begun from in other ways."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shells import Shell
from small_sit import SMALL

import flowexp
from flowexp.cli.assembly.rebuilding import load_run
from flowexp.training.checkpoints import latest_checkpoint, load_checkpoint

pytestmark = pytest.mark.slow

ONE_STEP = ("trainer.max_steps=1", "checkpoint.every_n_steps=1", "log_every_n_steps=1")


@pytest.fixture(scope="module")
def trained(shell: Shell, tiny: Any) -> Path:
    """A run of classes, of few steps, with samples that were measured."""
    words = (*tiny, "class_conditional=true", "trainer.max_steps=4", "ema=[0.5,0.9]")
    shell.here("train", *words, "run_dir=to_export").succeeded()
    return shell.folder / "to_export"


@pytest.fixture(scope="module")
def export(trained: Path, shell: Shell) -> Path:
    words = ("run=to_export", "to=an export", "license=mit", "sampler=heun", "sampler.num_steps=2", "num_samples=4")
    shell.here("export", *words).succeeded()
    return shell.folder / "an export"


def first_weights(run: Path) -> dict[str, torch.Tensor]:
    """The network's weights in a run of one step with a rate of nothing: those that it began from."""
    checkpoint = latest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    state = load_checkpoint(checkpoint)["state_dict"]
    return {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}


def test_an_export_draws_what_its_run_draws(trained: Path, export: Path) -> None:
    assert {file.name for file in export.iterdir()} == {"model.safetensors", "config.json", "README.md", "samples.png"}
    module, _, _ = load_run(trained, with_data=False)
    module.sampler = flowexp.load(export).sampler
    with module.averaged():
        expected = module.sample(range(6), seed=3).images
    assert torch.equal(flowexp.load(export).sample(6, seed=3).images, expected)


def test_the_card_says_the_license_and_no_place_of_this_machine(export: Path, shell: Shell) -> None:
    card, config = (export / "README.md").read_text(), (export / "config.json").read_text()
    assert 'license: "mit"' in card and "![samples](samples.png)" in card and "weights: ema 0.5" in card
    assert str(shell.folder) not in card + config
    assert json.loads(config)["sampler"]["solver"] == "heun"


def test_other_weights_of_the_run_are_chosen_by_ema(trained: Path, shell: Shell) -> None:
    shell.here("export", "run=to_export", "to=raw", "ema=raw", "num_samples=0").succeeded()
    raw, state = load_file(shell.folder / "raw/model.safetensors"), first_weights(trained)
    assert raw.keys() == state.keys() and all(torch.equal(value, raw[name]) for name, value in state.items())
    assert not (shell.folder / "raw/samples.png").exists()


def test_a_training_begins_from_an_export_or_a_run_with_other_classes_and_objective(
    export: Path, shell: Shell, tiny: Any
) -> None:
    words = (*tiny, *ONE_STEP, "optimizer.lr=1e-30", "ema=none", "objective=mafm")
    for number, init in enumerate(("an export", "to_export", "an export/model.safetensors")):
        begun = shell.here("train", *words, f"init={init}", f"run_dir=begun{number}").succeeded()
        assert "y_embedder.embedding_table.weight: unused" in begun.out
        assert "blocks.*.attn.qkv.weight (2): taken" in begun.out
        weights, ours = load_file(export / "model.safetensors"), first_weights(shell.folder / f"begun{number}")
        assert all(torch.equal(value, weights[name]) for name, value in ours.items())
        origin = json.loads((shell.folder / f"begun{number}/run.json").read_text())["init"]
        assert origin["fingerprint"] and origin["tensors"]["pos_embed"] == "taken"


def test_a_run_that_began_from_weights_goes_on_without_them(export: Path, shell: Shell, tiny: Any) -> None:
    shutil.copytree(export, shell.folder / "borrowed")
    words = (*tiny, "class_conditional=true", "init=borrowed", "run_dir=goes_on", "ckpt=auto", "checkpoint.keep=9")
    shell.here("train", *words, "trainer.max_steps=2").succeeded()
    shutil.rmtree(shell.folder / "borrowed")
    on = shell.here("train", *words, "trainer.max_steps=3").succeeded()
    assert "begins from" not in on.out and (shell.folder / "goes_on/checkpoints/step_00000003.ckpt").exists()


def test_a_dry_run_tells_each_tensor_too(export: Path, shell: Shell, tiny: Any) -> None:
    words = ("init=an export", "dry_run=true", "run_dir=planned", "parameterization=x")
    planned = shell.here("train", *tiny, *words).succeeded()
    assert "final_layer.linear.weight: taken" in planned.out
    assert "the prediction of those weights is velocity, and of this training data" in planned.out


def test_a_pipeline_of_diffusers_is_written_and_begun_from(trained: Path, shell: Shell, tiny: Any) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'flowexp[diffusers]'")
    shell.here("export", "run=to_export", "to=pipeline", "format=diffusers", "num_samples=0").succeeded()
    pipe = diffusers.DiffusionPipeline.from_pretrained(shell.folder / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    assert pipe([1, 2], 1.0, num_inference_steps=2, output_type="pt").images.shape == (2, 1, 8, 8)
    words = (*tiny, *ONE_STEP, "class_conditional=true", "init=pipeline", "optimizer.lr=1e-30", "ema=none")
    begun = shell.here("train", *words, "run_dir=from_pipeline").succeeded()
    assert "final_layer.linear.weight: taken" in begun.out


def test_ckpt_of_published_weights_says_what_begins_from_them(shell: Shell) -> None:
    from flowexp.backbones import create_backbone

    network = create_backbone("sit_s2", resolution=8, channels=1, depth=2, width=32, heads=2, learn_sigma=True)
    torch.save(network.state_dict(), shell.folder / "published.pt")
    shell.here("adopt", "file=published.pt", *SMALL, "step=7", "run_dir=of_others").succeeded()
    words = (*SMALL, *ONE_STEP, "callbacks=none", "progress_bar=false")
    refused = shell.here("train", *words, "ckpt=of_others", "run_dir=refused")
    assert refused.code == 2 and "Traceback" not in refused.err
    assert "holds weights alone" in refused.err and "`train init=" in refused.err
    for number, init in enumerate(("of_others", "published.pt")):
        begun = shell.here("train", *words, f"init={init}", f"run_dir=of_theirs{number}").succeeded()
        assert "final_layer.linear.weight: taken" in begun.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("export", "run=to_export", "to=somewhere", "format=onnx"), "format must be one of flowexp, diffusers"),
        (("export", "run=to_export", "to=to_export"), "holds a training run"),
        (("export", "run=to_export", "to=full"), "to=full holds notes.txt, which no export has"),
        (("export", "run=to_export", "to=x", "autoencoder=y"), "autoencoder is part of a pipeline"),
        (("export", "run=to_export", "to="), "to names a file or a folder, and is empty"),
        (("train", "init=nowhere"), "init="),
        (("train", "init=an export", "ckpt=to_export"), "both name weights to begin from"),
        (("train", "init=an export", "backbone=unet_nano"), "no tensor of init="),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(
    words: tuple[str, ...], sentence: str, export: Path, shell: Shell, tiny: Any
) -> None:
    (shell.folder / "full").mkdir(exist_ok=True)
    (shell.folder / "full/notes.txt").touch()
    small = [word for word in tiny if not word.startswith("+backbone")] if words[0] == "train" else []
    refused = shell.here(words[0], *small, *words[1:])
    assert refused.code == 2 and sentence in refused.err and "Traceback" not in refused.err
