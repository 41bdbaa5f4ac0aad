from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from flowexp.integrations.encoders.vae import VAE

pytestmark = pytest.mark.slow  # importing diffusers takes ten seconds


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny autoencoder of Stable Diffusion's form: 4 channels at an eighth of the side."""
    if find_spec("diffusers") is None:
        pytest.skip("diffusers is not installed")
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    network = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), norm_num_groups=2, latent_channels=4, layers_per_block=1, **blocks
    )
    folder = tmp_path_factory.mktemp("vae")
    network.save_pretrained(folder)
    return folder


@pytest.fixture
def vae(weights: Path) -> VAE:
    return VAE("tiny", str(weights), batch_size=2)


def test_the_network_is_read_when_it_is_first_used_and_is_frozen(vae: VAE):
    assert "network" not in vars(vae)
    vae.encode(torch.zeros(1, 3, 16, 16))
    assert not vae.network.training and not any(weight.requires_grad for weight in vae.network.parameters())


def test_the_posterior_is_that_of_diffusers_whatever_the_batch(vae: VAE):
    images = torch.rand(5, 3, 16, 16) * 2 - 1
    mean, std = vae.encode(images)
    with torch.no_grad():
        expected = vae.network.encode(images).latent_dist
    assert mean.shape == std.shape == (5, 4, 2, 2)
    torch.testing.assert_close(mean, expected.mean)
    torch.testing.assert_close(std, expected.std)


def test_latents_are_decoded_to_pictures_of_eight_times_their_side(vae: VAE):
    latents = torch.randn(3, 4, 2, 2)
    with torch.no_grad():
        expected = vae.network.decode(latents).sample
    assert expected.shape == (3, 3, 16, 16)
    torch.testing.assert_close(vae.decode(latents), expected)


def test_autocast_around_it_changes_nothing(vae: VAE):
    latents = torch.randn(2, 4, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vae.decode(latents), VAE("tiny", vae.weights, batch_size=2).decode(latents))


def test_the_fingerprint_is_of_the_weights_not_of_their_place(vae: VAE, tmp_path: Path):
    vae.network.save_pretrained(tmp_path / "copy")
    copy = VAE("tiny", str(tmp_path / "copy"))
    assert copy.fingerprint == vae.fingerprint and len(vae.fingerprint) == 16
    other = VAE("tiny", str(tmp_path / "copy"))
    next(other.network.parameters()).data[0] += 1
    assert other.fingerprint != vae.fingerprint


@pytest.mark.parametrize("name", ["stabilityai/sd-vae-ft-mse", "nowhere/at_all"])
def test_weights_that_cannot_be_had_are_one_sentence(weights: Path, name: str):
    with pytest.raises(ValueError, match=rf"^{name} is neither a folder .*run `hf download {name}` .*give a folder$"):
        _ = VAE("sd", name).network


def test_a_folder_with_something_else_is_one_sentence(weights: Path, tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is neither a folder with such a network"):
        _ = VAE("sd", str(tmp_path)).network


def test_a_scale_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="scale must be positive, got 0"):
        VAE("sd", "x", scale=0)


def test_the_commands_encode_photographs_and_read_them_back(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The whole way: JPEGs, `flowexp.encode` with its config and a real AutoencoderKL, and the latents' dataset."""
    from hydra import compose, initialize_config_dir
    from PIL import Image

    from flowexp.cli.assembly import building
    from flowexp.cli.launch import config_folder
    from flowexp.data import ImageNet
    from flowexp.encode import run
    from flowexp.records.run_folder import RunFolder

    monkeypatch.setattr(ImageNet, "num_classes", 1)
    for split in ("train", "val"):
        (tmp_path / f"photos/{split}/n01440764").mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40, 30), (90 * number, 50, 10)).save(tmp_path / f"photos/{split}/n01440764/{number}.JPEG")
    small = [f"data.root={tmp_path}/photos", "data.resolution=16", "data.batch_size=2", f"vae.weights={weights}"]

    def composed(command: str, *overrides: str) -> Any:
        with initialize_config_dir(str(config_folder()), version_base="1.3"):
            return compose(command, [*overrides])

    encode = composed("encode", f"output={tmp_path}/cache", "shard_size=2", "run_dir=none", "device=cpu", *small)
    run(encode, RunFolder(tmp_path / "run"))
    train = composed(
        "train", "data=imagenet_latents_256", f"data.root={tmp_path}/cache", f"data.vae.weights={weights}",
        "data.pictures.resolution=16", f"data.pictures.root={tmp_path}/photos", "data.batch_size=2",
    )  # fmt: skip
    datamodule = building.build_datamodule(train)
    assert datamodule.train.images.shape == (3, 4, 2, 2)
    assert datamodule.to_pictures(datamodule.train.images).shape == (3, 3, 16, 16)
    assert datamodule.to_pictures(datamodule.train.images).dtype == torch.uint8
