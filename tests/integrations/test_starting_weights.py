"""Weights to begin from: the same network's are taken whole, another's as far as they fit, and each tensor is told."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from flowexp.backbones import create_backbone
from flowexp.integrations.published import PublishedModel
from flowexp.integrations.sit_checkpoints import convert
from flowexp.integrations.starting_weights import Source, fit, in_lines, read_source, source_of

KEYS = {"resolution": 8, "channels": 1, "num_classes": 10, "depth": 2, "width": 32, "heads": 2}


def network(name: str = "dit_nano2", **options: Any) -> Any:
    """A network in which no trained weight is 0."""
    backbone = create_backbone(name, **{**KEYS, **options})
    for parameter in backbone.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    return backbone


def of(backbone: Any) -> Source:
    return source_of("somewhere", backbone, "linear", "velocity")


def fates(told: list[Any]) -> dict[str, str]:
    return {each.name: each.what for each in told}


def test_the_same_network_is_taken_whole() -> None:
    trained, fresh = network(), network()
    told = fit(fresh, of(trained))
    assert set(fates(told).values()) == {"taken"} and len(told) == len(fresh.state_dict())
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in fresh.state_dict().items())


def test_other_classes_keep_no_class_and_draw_the_others_anew() -> None:
    trained, fresh = network(), network(num_classes=4)
    before = fresh.y_embedder.embedding_table.weight.clone()
    told = fit(fresh, of(trained))
    table = fresh.y_embedder.embedding_table.weight
    assert torch.equal(table[-1], trained.y_embedder.embedding_table.weight[-1]) and torch.equal(
        table[:-1], before[:-1]
    )
    assert fates(told).pop("y_embedder.embedding_table.weight") == "resized"
    assert "y_embedder.embedding_table.weight: resized, no class taken, 4 classes new, 10 unused" in in_lines(told)


def test_another_resolution_resizes_the_positions() -> None:
    trained, fresh = network(), network(resolution=16)
    told = fit(fresh, of(trained))
    grid = trained.pos_embed.reshape(4, 4, 32).permute(2, 0, 1)[None]
    expected = F.interpolate(grid, (8, 8), mode="bicubic").flatten(2).mT
    torch.testing.assert_close(fresh.pos_embed.detach(), expected)
    assert fates(told)["pos_embed"] == "resized" and [*fates(told).values()].count("taken") == len(told) - 1


def test_other_channels_leave_the_two_ends_as_they_were_drawn() -> None:
    trained, fresh = network(), network(channels=3)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    told = fit(fresh, of(trained))
    left = {name for name, what in fates(told).items() if what == "left"}
    assert left == {"x_embedder.proj.weight", "final_layer.linear.weight", "final_layer.linear.bias"}
    assert all(torch.equal(fresh.state_dict()[name], before[name]) for name in left)
    assert "x_embedder.proj.weight: left, 32 x 1 x 2 x 2 among the weights, 32 x 3 x 2 x 2 here" in in_lines(told)


def test_a_network_without_classes_tells_what_it_has_no_use_for() -> None:
    told = fit(network(num_classes=None), of(network()))
    assert fates(told)["y_embedder.embedding_table.weight"] == "unused"
    told = fit(network(), of(network(num_classes=None)))
    assert fates(told)["y_embedder.embedding_table.weight"] == "left"


def test_blocks_share_a_line() -> None:
    lines = in_lines(fit(network(depth=3), of(network())))
    assert "blocks.*.attn.qkv.weight (2): taken" in lines
    assert "blocks.*.attn.qkv.weight: left, not among the weights" in lines


def test_nothing_that_fits_is_refused() -> None:
    with pytest.raises(ValueError, match="no tensor of init=somewhere fits backbone"):
        fit(network(num_classes=None), of(create_backbone("unet_nano", resolution=8, channels=1)))


def test_another_scale_of_t_is_refused() -> None:
    with pytest.raises(ValueError, match="read 1 t, and backbone dit_nano2 reads 1000 t: choose a backbone sit_"):
        fit(network(), of(network("sit_s2")))


# --- where they come from ---------------------------------------------------------------------------------------------


def test_an_export_is_read(tmp_path: Path) -> None:
    model = PublishedModel(
        backbone={"name": "dit_nano2", **KEYS}, interpolant={"name": "gvp"}, parameterization={"prediction": "data"}
    )
    model.save_pretrained(tmp_path)
    source = read_source(str(tmp_path))
    assert (source.time_scale, source.path, source.prediction) == (1000, "gvp", "data")
    assert all(torch.equal(value, source.weights[name]) for name, value in model.backbone.state_dict().items())


def test_a_file_of_safetensors_is_read_and_known_by_its_content(tmp_path: Path) -> None:
    weights = dict(network().state_dict())
    save_file(weights, tmp_path / "weights.safetensors")
    source = read_source(str(tmp_path / "weights.safetensors"))
    assert source.fingerprint == Source("elsewhere", weights).fingerprint
    changed = {**weights, "final_layer.linear.bias": weights["final_layer.linear.bias"] + 1}
    assert source.fingerprint != Source("elsewhere", changed).fingerprint


@pytest.mark.parametrize(
    ("arguments", "convention"),
    [({"path_type": "Linear", "loss_weight": None}, "sit"), ({"path_type": "linear", "proj_coeff": 0.5}, "repa")],
)
def test_sit_and_repa_begin_on_our_axis(tmp_path: Path, arguments: dict[str, Any], convention: str) -> None:
    official = network("sit_s2", learn_sigma=True)
    content = {"ema": official.state_dict(), "args": argparse.Namespace(**arguments)}
    torch.save(content, tmp_path / "their.pt")
    source, fresh = read_source(str(tmp_path / "their.pt")), network("sit_s2")
    expected = convert(official.state_dict(), network("sit_s2"), convention)
    assert set(fates(fit(fresh, source)).values()) == {"taken"}
    assert all(torch.equal(value, expected[name]) for name, value in fresh.state_dict().items())
    assert [*fates(fit(network("sit_s2", resolution=16, num_classes=3), source)).values()].count("resized") == 2


def test_a_pipeline_of_diffusers_is_read_where_it_is_ours(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'flowexp[diffusers]'")
    from flowexp.integrations.diffusers import save_pipeline

    model, fresh = PublishedModel(backbone={"name": "dit_nano2", **KEYS}), network()
    save_pipeline(model, tmp_path)
    told = fates(fit(fresh, read_source(str(tmp_path))))
    assert told.pop("pos_embed") == "left" and set(told.values()) == {"taken"}
    assert all(torch.equal(value, model.backbone.state_dict()[name]) for name, value in fresh.state_dict().items())
    file = tmp_path / "transformer/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "DiTTransformer2DModel"}))
    with pytest.raises(ValueError, match="holds diffusers' DiTTransformer2DModel"):
        read_source(str(tmp_path))


@pytest.mark.parametrize("where", ["nothing", "."])
def test_what_holds_no_weights_is_refused_by_name(where: str, workdir: Path) -> None:
    with pytest.raises(ValueError, match=f"init={where} is no run, no export"):
        read_source(where)


def test_a_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    torch.save({"ema": {"w": torch.nn.Linear(1, 1)}}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="is not read"):
        read_source(str(tmp_path / "evil.pt"))
