"""Backbones are listed by name and built in Python, without Hydra."""

from __future__ import annotations

import importlib

import pytest
import torch
from omegaconf import OmegaConf

from flowexp.backbones import create_backbone, list_backbones, register_backbone
from flowexp.cli.composing import Configs

SIT_TOTAL_AND_TRAINABLE = {  # 4 channels, 32 x 32 latents, 1000 classes, learn_sigma=True; SiT's 33, 130, 458 and 675 M
    "sit_s2": (32_963_360, 32_865_056),
    "sit_b2": (130_512_416, 130_315_808),
    "sit_l2": (458_102_816, 457_840_672),
    "sit_xl2": (675_129_632, 674_834_720),
}
SIT_TOTAL_WITHOUT_SIGMA = {
    "sit_s2": 32_957_200,
    "sit_b2": 130_500_112,
    "sit_l2": 458_086_416,
    "sit_xl2": 675_111_184,
}


def counts(name: str, **options) -> tuple[int, int]:
    """Total and trainable number of parameters; on the meta device, where large networks weigh nothing."""
    with torch.device("meta"):
        parameters = list(create_backbone(name, **options).parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def test_every_promised_name_is_listed_and_sorted():
    sit = [f"sit_{size}{patch}" for size in ("s", "b", "l", "xl") for patch in (2, 4)]
    dit = ["dit_s2", "dit_b2", "dit_nano2", "dit_nano4", "dit_tiny2", "dit_tiny4"]
    others = ["unet_76m", "unet_nano", "mmdit_repa", "mmdit_nano", "mmdit_nano4"]
    assert list_backbones() == sorted(sit + dit + others)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIT_TOTAL_AND_TRAINABLE)
def test_sit_has_the_parameter_counts_of_the_official_code(name: str):
    options = {"resolution": 32, "channels": 4, "num_classes": 1000}
    assert counts(name, **options, learn_sigma=True) == SIT_TOTAL_AND_TRAINABLE[name]
    total, trainable = counts(name, **options)
    assert total == SIT_TOTAL_WITHOUT_SIGMA[name]
    assert total - trainable == 256 * create_width(name), "the only frozen parameter is the positional embedding"


def create_width(name: str) -> int:
    with torch.device("meta"):
        return create_backbone(name, resolution=8, channels=1).width


@pytest.mark.parametrize(("name", "resolution", "millions"), [("dit_s2", 32, 21.3), ("dit_b2", 64, 85.0)])
def test_dit_without_conditioning_has_the_parameter_counts_of_lcf_table_1(name, resolution, millions):
    _, trainable = counts(name, resolution=resolution, channels=3, conditioning="none")
    assert round(trainable / 1e6, 1) == millions


@pytest.mark.parametrize(("name", "millions"), [("dit_s2", 32.5), ("dit_b2", 129.5)])
def test_dit_with_adaln_zero_is_half_as_large_again_as_lcf_table_1(name, millions):
    """Which is why Table 1's counts cannot include a modulation per block."""
    _, trainable = counts(name, resolution=32, channels=3)
    assert trainable / 1e6 == pytest.approx(millions, abs=0.2)


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list():
    with pytest.raises(ValueError, match=r"must be one of .*sit_xl4, .*got 'dit_s3'; did you mean dit_s2"):
        create_backbone("dit_s3", resolution=8, channels=1)


def test_a_name_cannot_be_registered_twice():
    with pytest.raises(ValueError, match="'dit_s2' is registered already"):
        register_backbone("dit_s2")(lambda **options: None)


def test_overrides_change_the_architecture_and_nothing_else():
    network = create_backbone("dit_s2", resolution=8, channels=1, depth=3)
    assert (network.name, network.depth, network.width, network.default_tap) == ("dit_s2", 3, 384, 2)


@pytest.mark.slow
def test_every_name_has_a_config_and_every_config_builds_its_name():
    assert Configs().names("backbone") == list_backbones()
    for name in list_backbones():
        config = OmegaConf.to_container(Configs().compose("train", [f"backbone={name}"]).backbone)
        assert isinstance(config, dict)
        module, function = config.pop("_target_").rsplit(".", 1)
        build = getattr(importlib.import_module(module), function)
        text = name.startswith("mmdit")
        with torch.device("meta"):
            network = build(**config, resolution=8, channels=1, num_classes=None if text else 3)
        assert network.name == name
        assert network.takes == ("text" if text else "class")
        kind = {"text_length": 77, "text_dim": 768} if text else {"conditioning": "adaln_zero"}
        assert config == {"name": name, "label_dropout": 0.1, **kind}
