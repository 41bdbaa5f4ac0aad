"""SiT's and REPA's weights give, in our network and on our axis, the velocity that they gave on theirs."""

from __future__ import annotations

import argparse
import pickle

import pytest
import torch

from flowexp.backbones import Backbone, create_backbone
from flowexp.integrations.sit_checkpoints import OfficialWeights, check_training, convention_of, convert, read_official

SHAPE = {"resolution": 8, "channels": 4, "num_classes": 10, "depth": 3, "width": 32, "heads": 2}


def network(**options) -> Backbone:
    torch.manual_seed(0)
    created = create_backbone("sit_s2", **SHAPE, **options)
    with torch.no_grad():
        for parameter in created.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return created


@pytest.mark.parametrize("learn_sigma", [True, False])
def test_sits_velocity_is_ours_at_the_reversed_time_with_the_other_sign(learn_sigma):
    official, ours = network(learn_sigma=learn_sigma), network()
    ours.load_state_dict(convert(official.state_dict(), ours, "sit"))
    x, label, t = torch.randn(5, 4, 8, 8), torch.arange(5), torch.tensor([0.0, 0.1, 0.5, 0.77, 1.0])
    torch.testing.assert_close(ours(x, t, label), -official(x, 1 - t, label), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours(x, t, label), official(x, t, label), atol=0.1)


def test_repas_weights_are_ours_without_projectors_and_with_todays_names():
    official, ours = network(), network()
    torch.nn.init.zeros_(ours.x_embedder.proj.weight)
    state = official.state_dict() | {"projectors.0.0.weight": torch.zeros(2, 2)}
    old = {name.replace("blocks.2.", "decoder_blocks.0."): value for name, value in state.items()}
    ours.load_state_dict(convert(old, ours, "repa"))
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9])
    assert torch.equal(ours(x, t), official(x, t))


def test_weights_of_another_network_are_refused_by_name():
    with pytest.raises(ValueError, match=r"not those of this network: missing \['blocks.2"):
        convert({k: v for k, v in network().state_dict().items() if "blocks.2" not in k}, network(), "sit")


@pytest.mark.parametrize("convention", ["sit", "repa"])
def test_a_network_that_reads_t_on_another_scale_is_refused(convention):
    """dit_s2 has the weights' names and shapes too, but multiplies t by 1000."""
    with pytest.raises(ValueError, match=r"read t in \[0, 1\], and this network reads 1000 t"):
        convert(network().state_dict(), create_backbone("dit_s2", **SHAPE), convention)


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="convention must be one of sit, repa, got 'edm'"):
        convert({}, network(), "edm")


SIT = {"model": "SiT-S/2", "path_type": "Linear", "prediction": "velocity", "loss_weight": None}
REPA = {"model": "SiT-S/2", "path_type": "cosine", "prediction": "v", "proj_coeff": 0.5, "encoder_depth": 8}


def saved(path, state, arguments=None, **more):
    """A file as SiT's and REPA's train.py write it."""
    content = {"model": {}, "ema": state, "opt": {"state": {}}, **more}
    torch.save(content | ({} if arguments is None else {"args": argparse.Namespace(**arguments)}), path)
    return path


@pytest.mark.parametrize(
    ("arguments", "more"), [(None, {}), (SIT, {}), (REPA, {"steps": 400_000})], ids=["no args", "SiT", "REPA"]
)
def test_training_checkpoints_are_read_with_their_arguments(tmp_path, arguments, more):
    state = {"a": torch.ones(2)}
    official = read_official(saved(tmp_path / "file.pt", state, arguments, **more))
    assert torch.equal(official.weights["a"], state["a"]) and official.arguments == (arguments or {})


def test_a_bare_state_dict_is_read(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "file.pt")
    assert torch.equal(read_official(tmp_path / "file.pt").weights["a"], torch.ones(2))


BARE = {"blocks.0.attn.qkv.weight": torch.ones(1)}
SHOWN = {
    "nothing": (OfficialWeights(BARE, ""), None),
    "projectors": (OfficialWeights(BARE | {"projectors.0.0.weight": torch.ones(1)}, ""), "repa"),
    "decoder blocks": (OfficialWeights(BARE | {"decoder_blocks.0.attn.qkv.weight": torch.ones(1)}, ""), "repa"),
    "REPA's arguments": (OfficialWeights(BARE, "", REPA), "repa"),
    "SiT's arguments": (OfficialWeights(BARE, "", SIT), "sit"),
}


@pytest.mark.parametrize("given", [None, "sit", "repa"])
@pytest.mark.parametrize(("official", "shown"), SHOWN.values(), ids=SHOWN)
def test_the_convention_is_what_the_file_shows_and_a_contradiction_is_refused(official, shown, given):
    if shown is None or given in (None, shown):
        assert convention_of(official, given) == (shown or given or "sit")
        return
    with pytest.raises(ValueError, match=f"convention={given} contradicts the file: it has .* convention={shown}"):
        convention_of(official, given)


@pytest.mark.parametrize(
    ("arguments", "config", "sentence"),
    [
        (SIT, ("linear", "velocity"), None),
        (REPA, ("gvp", "velocity"), None),
        ({}, ("gvp", "eps"), None),
        (SIT | {"path_type": "VP"}, ("sbdm_vp", "velocity"), None),
        (SIT | {"prediction": "noise"}, ("linear", "eps"), None),
        (SIT | {"path_type": "GVP"}, ("linear", "velocity"), "trained with GVP, and interpolant is linear: give inter"),
        (REPA, ("linear", "velocity"), "trained with cosine, .*give interpolant=gvp"),
        (SIT | {"prediction": "noise"}, ("linear", "velocity"), "give parameterization=eps"),
        (SIT | {"prediction": "score"}, ("linear", "velocity"), "trained with score, .*no such choice"),
        ({"model": "DiT-XL/2"}, ("linear", "velocity"), "the weights are of DiT-XL/2"),
    ],
)
def test_a_config_of_another_path_or_prediction_than_the_training_is_refused(arguments, config, sentence):
    official = OfficialWeights(BARE, "", arguments)
    if sentence is None:
        check_training(official, *config)
        return
    with pytest.raises(ValueError, match=sentence):
        check_training(official, *config)


def test_predicted_noise_keeps_its_sign_where_the_velocity_turns():
    official, ours = network(), network()
    ours.load_state_dict(convert(official.state_dict(), ours, "sit", "eps"))
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9])
    torch.testing.assert_close(ours(x, t), official(x, 1 - t), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="trains velocity and eps"):
        convert(official.state_dict(), ours, "sit", "data")


@pytest.mark.parametrize(
    "state",
    [
        {"a": torch.ones(2)},
        {"encoder.conv.weight": torch.ones(2, 2), "t_embedder.mlp.0.weight": torch.ones(3)},
        network().state_dict() | {"final_layer.linear.bias": torch.ones(7)},
        network().state_dict() | {"t_embedder.mlp.0.weight": torch.ones(3)},
    ],
    ids=["another", "few", "head", "time"],
)
@pytest.mark.parametrize("convention", ["sit", "repa"])
def test_tensors_of_neither_code_are_refused_by_name(state, convention):
    with pytest.raises(ValueError, match="not those of this network: missing"):
        convert(state, network(), convention)


def test_weights_that_are_not_finite_are_refused_by_name():
    state = network().state_dict()
    state["blocks.1.mlp.fc1.bias"][0] = torch.nan
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.fc1\.bias have entries that are NaN"):
        convert(state, network(), "sit")


class Settings:
    """An object of a class that nobody should build from a file."""


DAMAGED = {
    "text": b"no weights",
    "html": b"<!DOCTYPE html><html>not found</html>",
    "email": b"extraordinary",
    "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "json": b'{"a": 1}',
    "empty": b"",
    "zeros": bytes(64),
    "zip": b"PK\x03\x04 truncated",
    "pickle": pickle.dumps({"a": 1}),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(range(64)),
    "utf-16": "weights".encode("utf-16"),
    **{f"byte {byte}": bytes([byte]) * 40 for byte in range(0, 256, 17)},
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_file_that_is_no_checkpoint_is_refused_in_a_sentence(tmp_path, content):
    (tmp_path / "broken.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.pt (is damaged or is no file of plain weights|must hold tensors)"):
        read_official(tmp_path / "broken.pt")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.99])
def test_a_checkpoint_that_was_cut_short_is_refused_in_a_sentence(tmp_path, cut):
    whole = saved(tmp_path / "file.pt", network().state_dict(), SIT).read_bytes()
    (tmp_path / "file.pt").write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises(ValueError, match="is damaged or is no file of plain weights"):
        read_official(tmp_path / "file.pt")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.ones(2)], "must hold tensors by name, a state dict, and holds a list"),
        (torch.ones(2), "and holds a Tensor"),
        ({}, "and holds nothing"),
        ({"ema": {}, "model": {}}, "and holds nothing"),
        ({"ema": None}, "and holds a NoneType"),
        ({"ema": {"decay": 0.999, "a": torch.ones(1)}}, "its 'decay' is a float"),
        ({"state_dict": {"a": torch.ones(1)}}, "its 'state_dict' is a dict: save the state dict alone"),
        ({3: torch.ones(1)}, "its 3 is a Tensor"),
    ],
)
def test_a_file_of_other_things_than_tensors_by_name_is_refused(tmp_path, content, sentence):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=sentence):
        read_official(tmp_path / "other.pt")


def test_no_object_but_a_namespace_is_built_from_a_file(tmp_path):
    torch.save({"ema": {"a": torch.ones(1)}, "args": Settings()}, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=r"holds an object of .*Settings, which is not read"):
        read_official(tmp_path / "file.pt")


@pytest.mark.parametrize("key", ["model", "opt"])
def test_arguments_are_those_of_a_training_alone(tmp_path, key):
    """A bare state dict has none, whatever a weight is called."""
    torch.save({"args": torch.ones(1), key: torch.ones(1)}, tmp_path / "file.pt")
    assert read_official(tmp_path / "file.pt").arguments == {}
