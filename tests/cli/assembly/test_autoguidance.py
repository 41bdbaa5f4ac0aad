from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowexp.backbones import create_backbone
from flowexp.cli.assembly import autoguidance
from flowexp.cli.assembly.autoguidance import guided_by
from flowexp.flow.interpolants import GVP
from flowexp.flow.sampler import Sampler
from flowexp.objectives import FlowMatching

LOADED: list[tuple[Path, Path | None]] = []


def module(**options) -> FlowMatching:
    """A network with random weights, whose average, after one step of it, is another one."""
    shape = {"resolution": 8, "channels": 1, "num_classes": None} | options.pop("shape", {})
    backbone = create_backbone("dit_nano4", **shape)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    built = FlowMatching(backbone, sampler=Sampler("euler", 2, autoguidance_scale=2.0), **options)
    built.on_train_start()
    assert built.ema is not None
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.1)
    return built


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> FlowMatching:
    """The module that any run folder holds, trained for 500 steps."""
    loaded = module()

    def load_run(path: Path, checkpoint: Path | None, with_data: bool) -> tuple[FlowMatching, object, int]:
        assert not with_data
        LOADED.append((path, checkpoint))
        return loaded, object(), 500

    LOADED.clear()
    monkeypatch.setattr(autoguidance, "load_run", load_run)
    return loaded


@pytest.mark.slow
def test_the_guide_is_the_ema_network_of_its_run(weak: FlowMatching):
    strong, x, t = module(), torch.randn(2, 1, 8, 8), torch.full((2,), 0.5)
    with weak.averaged():
        expected = weak.backbone(x, t)
    with torch.no_grad():
        raw = weak.backbone(x, t)
    with guided_by(strong, "outputs/run", "early.ckpt") as about, torch.no_grad():
        velocity = strong.guide(x, t, None)
    assert torch.equal(velocity, expected) and not torch.equal(velocity, raw)
    assert about == {"run": str(Path("outputs/run").absolute()), "step": 500, "weights": "ema"}
    assert [(Path("outputs/run"), Path("early.ckpt"))] == LOADED
    assert strong.guide is None


@pytest.mark.slow
def test_a_guide_does_not_become_a_part_of_the_network(weak: FlowMatching):
    strong = module()
    before = strong.state_dict().keys()
    with guided_by(strong, "run", None):
        assert strong.state_dict().keys() == before


@pytest.mark.slow
def test_without_a_guide_nothing_is_loaded(weak: FlowMatching):
    with guided_by(module(), None, None) as about:
        assert about is None
    assert LOADED == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strong", "guide", "message"),
    [
        ({}, (None, "early.ckpt"), r"guide_checkpoint=early.ckpt needs .* add guide=RUN"),
        (
            {"shape": {"channels": 3}},
            ("run", None),
            "must have backbone.channels of the run that it guides, 3; it has 1",
        ),
        ({"shape": {"num_classes": 10}}, ("run", None), "must have backbone.takes"),
        ({"interpolant": GVP()}, ("run", None), "must be trained on the path"),
    ],
)
def test_a_guide_that_does_not_fit_is_refused(weak: FlowMatching, strong: dict, guide: tuple, message: str):
    with pytest.raises(ValueError, match=message), guided_by(module(**strong), *guide):
        pass


@pytest.mark.slow
def test_a_guide_that_is_not_used_is_refused(weak: FlowMatching):
    strong = module()
    strong.sampler = Sampler("euler")
    with pytest.raises(ValueError, match=r"add sampler.autoguidance_scale=2"), guided_by(strong, "run", None):
        pass
