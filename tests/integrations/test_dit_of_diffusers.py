"""DiT and SiT as a pipeline of diffusers: the same outputs, the same weights back, or a sentence."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'flowexp[diffusers]'")

from diffusers import AutoencoderKL, DiffusionPipeline, DiTPipeline, DiTTransformer2DModel

from flowexp.backbones import create_backbone
from flowexp.flow.interpolants import GVP, Linear
from flowexp.flow.parameterization import Parameterization
from flowexp.flow.velocity import Conditional, Scaled
from flowexp.integrations.diffusers import FlowDiTTransformer2DModel, NoAutoencoder, save_pipeline
from flowexp.integrations.dit_weights import check_exportable, from_diffusers, to_diffusers, transformer_config
from flowexp.integrations.published import PublishedModel

SIZES = {"depth": 2, "width": 32, "heads": 2}
NAMES = ("dit_nano2", "sit_s2")


def keys(name: str = "dit_nano2", **options: Any) -> dict[str, Any]:
    return {"name": name, "resolution": 8, "channels": 3, "num_classes": 10, **SIZES, **options}


def network(name: str = "dit_nano2", **options: Any) -> Any:
    """A network in which no weight is 0."""
    backbone = create_backbone(**keys(name, **options))
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return backbone.eval()


def as_transformer(backbone: Any) -> Any:
    transformer = FlowDiTTransformer2DModel(**transformer_config(backbone))
    transformer.load_state_dict(to_diffusers(backbone))
    return transformer.eval()


@pytest.mark.parametrize("options", [{}, {"num_classes": None}, {"learn_sigma": True}], ids=str)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_outputs_are_equal(name: str, options: dict[str, Any]) -> None:
    backbone = network(name, **options)
    x, t = torch.randn(4, 3, 8, 8), torch.tensor([0.0, 0.31, 0.77, 1.0])
    label = torch.tensor([0, 3, 9, 10]) if backbone.num_classes else torch.zeros(4, dtype=torch.long)
    theirs = as_transformer(backbone)(x, timestep=1000 * t, class_labels=label).sample
    torch.testing.assert_close(theirs, backbone(x, t, label), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_bit_for_bit(name: str) -> None:
    backbone = network(name)
    back = from_diffusers(as_transformer(backbone).state_dict())
    own = backbone.state_dict()
    assert back.keys() == own.keys() - {"pos_embed"}
    assert all(torch.equal(value, own[key]) for key, value in back.items())


def test_an_unconditional_network_comes_back_without_classes() -> None:
    assert "y_embedder.embedding_table.weight" not in from_diffusers(to_diffusers(network(num_classes=None)))


def test_its_keys_are_those_of_diffusers_own_class_which_is_another_function_of_t() -> None:
    backbone = network()
    config = transformer_config(backbone)
    del config["time_scale"]
    own = DiTTransformer2DModel(**config).eval()
    own.load_state_dict(to_diffusers(backbone))  # every key, no other
    x, t, label = torch.randn(1, 3, 8, 8), torch.tensor([0.5]), torch.tensor([1])
    with torch.no_grad():
        difference = own(x, timestep=1000 * t, class_labels=label).sample - backbone(x, t, label)
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize("s0", [1.0, 1.2])
def test_the_pipeline_draws_what_euler_draws_on_its_levels(tmp_path: Path, s0: float) -> None:
    model = PublishedModel(backbone=keys(), sampler={"s0": s0})
    model.backbone.load_state_dict(network().state_dict())
    vae = AutoencoderKL(sample_size=8, block_out_channels=(4,), latent_channels=3, norm_num_groups=1).eval()
    vae.save_pretrained(tmp_path / "vae")
    save_pipeline(model.eval(), tmp_path / "pipeline", tmp_path / "vae")

    pipe = DiffusionPipeline.from_pretrained(tmp_path / "pipeline")
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe, DiTPipeline)
    drawn = pipe([3, 7], 1.0, torch.Generator().manual_seed(0), 4, output_type="pt").images

    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    field, levels = Scaled(Conditional(model.backbone, torch.tensor([3, 7])), s0), pipe.scheduler.sigmas
    with torch.no_grad():
        for level, after in pairwise(levels):
            x = x + (after - level) * field(x, level.expand(2))
        expected = pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample
    torch.testing.assert_close(drawn, (expected / 2 + 0.5).clamp(0, 1), rtol=1e-3, atol=1e-4)


def test_a_network_of_pictures_needs_no_autoencoder(tmp_path: Path) -> None:
    save_pipeline(PublishedModel(backbone=keys()), tmp_path)
    pipe = DiffusionPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe.vae, NoAutoencoder) and pipe.transformer.config.time_scale == 1000
    assert pipe([1], 1.0, num_inference_steps=2).images[0].size == (8, 8)


def test_a_network_of_latents_needs_an_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="draws latents of sd_vae_ft_ema: give autoencoder=FOLDER"):
        save_pipeline(PublishedModel(backbone=keys(), about={"space": "sd_vae_ft_ema"}), tmp_path)


def test_an_autoencoder_of_other_latents_is_refused(tmp_path: Path) -> None:
    AutoencoderKL(sample_size=8, block_out_channels=(4,), latent_channels=4, norm_num_groups=1).save_pretrained(
        tmp_path
    )
    with pytest.raises(ValueError, match="decodes 4 channels, and the network has 3"):
        save_pipeline(PublishedModel(backbone=keys()), tmp_path / "pipeline", tmp_path)


@pytest.mark.parametrize(
    ("backbone", "path", "prediction", "sentence"),
    [
        ({"name": "unet_nano"}, Linear(), "velocity", "another architecture"),
        ({"conditioning": "none", "num_classes": None}, Linear(), "velocity", "without t and label"),
        ({"self_conditioning": 1}, Linear(), "velocity", "self-conditioning"),
        ({"mlp_ratio": 2.0}, Linear(), "velocity", "MLPs that are not 4 times"),
        ({}, GVP(), "velocity", "the path gvp"),
        ({}, Linear(), "noise", "a prediction of noise"),
    ],
)
def test_what_diffusers_cannot_hold_is_named(
    backbone: dict[str, Any], path: Any, prediction: str, sentence: str
) -> None:
    made = create_backbone(**({**backbone, "resolution": 8, "channels": 3} if "name" in backbone else keys(**backbone)))
    with pytest.raises(ValueError, match=sentence):
        check_exportable(made, path, Parameterization(prediction))


def test_positions_that_were_resized_are_named() -> None:
    backbone = network()
    with torch.no_grad():
        backbone.pos_embed.mul_(1.1)
    with pytest.raises(ValueError, match="positions that are not"):
        check_exportable(backbone, Linear(), Parameterization())


def test_weights_of_another_transformer_are_named() -> None:
    with pytest.raises(ValueError, match="no weights of diffusers' DiT transformer"):
        from_diffusers({"transformer_blocks.0.attn.to_q.weight": torch.ones(1)})
