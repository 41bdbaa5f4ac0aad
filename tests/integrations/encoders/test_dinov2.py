"""DINOv2 with random weights: what is checked is everything but the weights, which tests do not download."""

from __future__ import annotations

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from flowexp.integrations.encoders import DINOv2, create_encoder
from flowexp.integrations.encoders.dinov2 import Preprocess, load_dinov2


@pytest.fixture(scope="module")
def small():
    """The same architecture, narrow, so that tests are fast; positions are those of a grid of 37, as published."""
    with pytest.MonkeyPatch.context() as patch:
        build = timm.create_model
        patch.setattr(timm, "create_model", lambda name, **o: build(name, embed_dim=24, depth=2, num_heads=2, **o))
        yield


@pytest.fixture(scope="module")
def weights(small, tmp_path_factory):
    torch.manual_seed(0)
    state = timm.create_model("vit_base_patch14_dinov2", num_classes=0).state_dict()
    path = tmp_path_factory.mktemp("dinov2") / "model.safetensors"
    save_file({name: torch.randn_like(value) * 0.2 for name, value in state.items()}, path)
    return path


def images(num=3, side=20) -> torch.Tensor:
    return torch.randint(0, 256, (num, 3, side, side), dtype=torch.uint8)


def test_features_are_the_class_token_behind_the_last_normalisation(weights):
    encoder, pictures = DINOv2(weights, input_size=56), images()
    network = load_dinov2(weights)[0].eval()
    options = {"intermediates_only": True, "output_fmt": "NLC", "return_prefix_tokens": True}
    _, class_token = network.forward_intermediates(Preprocess(antialias=True)(pictures, 56), **options)[-1]
    expected = network.norm(class_token)[:, 0]
    torch.testing.assert_close(encoder(pictures), expected.detach(), rtol=1e-4, atol=1e-4)
    assert encoder.distance_name == "frechet/dinov2"


def test_weights_of_metas_release_are_the_same_network(weights, tmp_path):
    """Their file is PyTorch's, and has a mask token besides."""
    saved = {**load_file(weights), "mask_token": torch.zeros(1, 24)}
    torch.save(saved, tmp_path / "dinov2_vitb14_pretrain.pth")
    theirs, ours = load_dinov2(tmp_path / "dinov2_vitb14_pretrain.pth")[0], load_dinov2(weights)[0]
    assert all(torch.equal(theirs.state_dict()[name], value) for name, value in ours.state_dict().items())


def test_pictures_are_normalised_before_they_are_resized():
    pictures = images(2, 28)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = (pictures / 255 - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(Preprocess(antialias=False)(pictures, 28), by_hand)
    torch.testing.assert_close(
        Preprocess(antialias=False)(pictures, 56),
        torch.nn.functional.interpolate(by_hand, (56, 56), mode="bicubic", antialias=False),
    )


class Constants(TorchFunctionMode):
    """Counts tensors that are made of Python numbers, each of which an accelerator would be sent, and waited for."""

    made = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.made += getattr(func, "__name__", "") in ("tensor", "new_tensor", "as_tensor")
        return func(*args, **(kwargs or {}))


def test_pictures_are_prepared_without_sending_anything_to_the_device():
    preprocess, pictures = Preprocess(antialias=False), images(2, 28)
    with Constants() as constants:
        preprocess(pictures, 56)
    assert constants.made == 0
    assert preprocess.to("meta")(pictures.to("meta"), 56).device.type == "meta"
    assert not preprocess.state_dict()  # checkpoints of DINOv2 stay those of timm


def test_the_protocol_names_the_weights_by_content(weights, tmp_path):
    protocol = DINOv2(weights, input_size=28).protocol()
    assert len(protocol["weights_sha256"]) == 16 and protocol["input_size"] == 28


def test_a_size_between_patches_is_refused():
    with pytest.raises(ValueError, match="multiple of 14, got 225"):
        create_encoder("dinov2", input_size=225)


def test_without_weights_and_network_one_sentence_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))  # and HF_HUB_OFFLINE, by conftest
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    with pytest.raises(ValueError, match=r"put model\.safetensors of timm/vit_base.* or choose efficientnet_lite"):
        DINOv2()


def test_a_file_that_is_missing_damaged_or_of_another_network_is_named(small, tmp_path):
    with pytest.raises(ValueError, match=r"no DINOv2 weights at .*nowhere"):
        DINOv2(tmp_path / "nowhere")
    (tmp_path / "damaged.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="damaged"):
        DINOv2(tmp_path / "damaged.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="weights of another network"):
        DINOv2(tmp_path / "other.safetensors")
