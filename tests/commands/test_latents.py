"""Latents through the public commands, from photographs to samples: encode, train, sample."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "data"))
from trees import put_coco, put_imagenet

pytestmark = pytest.mark.slow

SHRUNKEN = (
    "+backbone.depth=2", "+backbone.width=16", "+backbone.heads=2", "data.batch_size=4", "trainer.max_steps=2",
    "trainer.accelerator=cpu", "trainer.precision=32-true", "sampler.num_steps=2", "progress_bar=false",
    "callbacks.noise_levels.num_images=4", "callbacks.samples.num_samples=4", "callbacks.frechet.num_samples=4",
    "callbacks.frechet.max_reference=6", "callbacks.frechet.cache=null",
)  # fmt: skip
PROBE = ("callbacks.probe.levels=[0.1]", "callbacks.probe.readings=[converged]", "callbacks.probe.max_train_images=12")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny autoencoder of Stable Diffusion's form, as diffusers saves it."""
    autoencoder_kl = pytest.importorskip("diffusers.models.autoencoders.autoencoder_kl")
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    network = autoencoder_kl.AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), norm_num_groups=2, latent_channels=4, layers_per_block=1, **blocks
    )
    network.save_pretrained(folder := tmp_path_factory.mktemp("weights"))
    return folder


@pytest.fixture(scope="module")
def thousand_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's folders, of which all but three are links to those."""
    root = put_imagenet(tmp_path_factory.mktemp("imagenet"), per_class=1)
    for split in ("train", "val"):
        real = sorted((root / split).iterdir())
        for number in range(997):
            (root / split / f"n{number:08d}").symlink_to(real[number % 3])
    return root


def scalars(run: Path) -> dict[str, float]:
    return json.loads((run / "summary.json").read_text())["scalars"]


def side_of(picture: Path) -> int:
    with Image.open(picture) as opened:
        return opened.height


def test_imagenet_is_encoded_in_two_shares_trained_on_and_sampled(shell, thousand_classes: Path, weights: Path):
    small = (f"vae.weights={weights}", "device=cpu")
    pictures = ("data=imagenet", f"data.root={thousand_classes}", "data.resolution=16", "data.num_workers=1")
    shares = [
        shell.start("encode", *pictures, *small, f"shard={n}/2", "output=cache", "shard_size=600") for n in (0, 1)
    ]
    said = "".join(share.wait().succeeded().out for share in shares)
    assert "complete" in said
    latents = ("data=imagenet_latents_256", "data.root=cache", "data.pictures.resolution=16")
    places = (f"data.pictures.root={thousand_classes}", f"data.vae.weights={weights}")
    network = ("backbone=sit_s2", "class_conditional=true", "objective=lcf", "objective.T_min=300")
    shell.here("train", *latents, *places, *network, *SHRUNKEN, *PROBE, "run_dir=on_latents").succeeded()
    found = scalars(shell.folder / "on_latents")
    assert {"frechet/efficientnet_lite", "probe/peak", "noise_levels/loss"} <= set(found)
    assert all(np.isfinite(value) for value in found.values())
    shell.here("sample", "run=on_latents", "num_samples=3", "run_dir=drawn", "device=cpu").succeeded()
    assert np.load(shell.folder / "drawn/samples.npz")["arr_0"].shape == (3, 16, 16, 3)


def test_imagenet_at_512_has_latents_of_its_own(in_process, workdir: Path, weights: Path, monkeypatch):
    monkeypatch.setattr("flowexp.data.ImageNet.num_classes", 3)
    put_imagenet(workdir / "data/imagenet")
    made = (f"vae.weights={weights}", "device=cpu")
    assert in_process("encode", "data=imagenet", "data.resolution=512", "data.batch_size=4", *made) == 0
    network = ("data=imagenet_latents_512", f"data.vae.weights={weights}", "backbone=sit_b4")
    drawn = (
        "callbacks=samples",
        *(word for word in SHRUNKEN if "callbacks" not in word),
        "callbacks.samples.num_samples=1",
    )
    assert in_process("train", *network, *drawn, "run_dir=run") == 0
    assert side_of(workdir / "run/measurements/samples/step_00000002.png") >= 512


def test_captions_are_encoded_trained_on_and_sampled(in_process, workdir: Path, weights: Path, monkeypatch):
    monkeypatch.setattr("flowexp.data.COCO.num_images", {"train": 5, "val": 6})
    put_coco(workdir / "data/coco", val=6)
    made = ("data=coco", "text@data.text=words", "data.batch_size=4", f"vae.weights={weights}", "device=cpu")
    assert in_process("encode", *made) == 0
    latents = ("data=coco_latents_256", "text@data.pictures.text=words", f"data.vae.weights={weights}")
    run = ("backbone=mmdit_nano", *SHRUNKEN, "callbacks.probe=null", "run_dir=run")
    assert in_process("train", *latents, *run) == 0
    assert np.isfinite(scalars(workdir / "run")["frechet/efficientnet_lite"])
    assert in_process("sample", "run=run", "num_samples=3", "run_dir=drawn", "device=cpu") == 0
    assert np.load(workdir / "drawn/samples.npz")["arr_0"].shape == (3, 256, 256, 3)


def test_a_folder_of_ones_own_becomes_latents_by_its_classes(in_process, workdir: Path, weights: Path):
    root = workdir / "my, pictures = 1"
    for name, grey in {"dark/a b.png": 20, "dark/c.jpg": 40, "bright/é.png": 200, "bright/d.webp": 240}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 24), grey).save(root / name)
    where = (f"data.root={root}", "data.resolution=32", "data.batch_size=2")
    small = (f"vae.weights={weights}", "device=cpu", "batch_size=2", "output=latents", "run_dir=job")
    assert in_process("encode", "data=folder", *where, *small) == 0
    chosen = ("data=folder_latents", "data.root=latents", f"data.pictures.root={root}", "data.pictures.resolution=32")
    training = [word.replace("data.batch_size=4", "data.batch_size=2") for word in SHRUNKEN if "callbacks" not in word]
    assert (
        in_process(
            "train",
            *chosen,
            f"data.vae.weights={weights}",
            "class_conditional=true",
            *training,
            "callbacks=none",
            "run_dir=run",
        )
        == 0
    )
    assert in_process("sample", "run=run", "num_samples=2", "device=cpu", "run_dir=drawn") == 0
    assert side_of(workdir / "drawn/samples.png") > 32
