"""Self-alignment against loops: which block learns from which, at which noise, and whom it trains."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from flowexp.flow.interpolants import GVP, Linear
from flowexp.objectives.terms import SelfAlignment
from flowexp.training.step_draws import StepKey


@pytest.fixture
def make_term(backbone):
    def make(**options) -> SelfAlignment:
        term = SelfAlignment(**{"tap": 1, "teacher_tap": 3, **options})
        term.attach(backbone)
        with torch.no_grad():  # the copy has moved on
            for parameter in term.copy.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return term

    return make


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=["linear", "gvp"])
def test_it_is_the_authors_loss_loop_by_loop(make_term, make_step, path):
    term, step = make_term(t_max=0.3, beta=0.1, interpolant=path), make_step(1, num=3)
    drawn = torch.rand(3, generator=StepKey(seed=3, step=7).for_term(3)).tolist()
    total, count = 0.0, 0
    for i in range(3):
        t = torch.tensor([max(0.0, step.t[i].item() - 0.3 * drawn[i])])
        xt = path.interpolate(step.batch.data[i : i + 1], step.batch.noise[i : i + 1], t)
        teacher = term.copy.features(xt, t, taps=[3])[3].flatten().tolist()
        first, _, second = term.projector
        hidden = torch.nn.functional.silu(first(step.features[1].tokens[i]))
        for a, b in zip(second(hidden).flatten().tolist(), teacher, strict=True):
            d = abs(a - b)
            total += d * d / (2 * 0.1) if d < 0.1 else d - 0.05
            count += 1
    assert term(step).item() == pytest.approx(total / count, rel=1e-4)


def test_it_trains_the_blocks_up_to_the_tap_and_the_projector_alone(make_term, make_step, reached):
    term = make_term()
    assert reached(term(make_step(1)), term) == {"blocks.0", "x_embedder", "t_embedder", "term.projector"}
    assert not any(parameter.requires_grad for parameter in term.copy.parameters())


def test_by_default_a_third_of_the_depth_learns_from_two_thirds(backbone):
    term = SelfAlignment()
    assert term.taps == ()
    term.attach(backbone)
    assert (term.taps, term.teacher_tap) == ((1,), 3) and len(term.copy.blocks) == 3
    assert term.projector[0].out_features == 2 * 16, "the authors' head: d -> 2 d -> d"


def test_only_the_rows_that_reached_the_block_are_compared(make_term, make_step):
    term, some, everyone = make_term(), make_step(1, rows=[4, 0, 2]), make_step(1)
    tapped = everyone.features[1]
    alone = replace(tapped, tokens=tapped.tokens[[4, 0, 2]], rows=torch.tensor([4, 0, 2]))
    torch.testing.assert_close(term(some), term(replace(everyone, features={1: alone})))


def test_the_copy_follows_the_network(make_term, backbone):
    term = make_term(momentum=0.75)
    before = copy.deepcopy(dict(term.copy.named_parameters()))
    term.after_step(backbone)
    live = dict(backbone.named_parameters())
    for name, parameter in term.copy.named_parameters():
        torch.testing.assert_close(parameter, 0.75 * before[name] + 0.25 * live[name])


def test_the_copy_is_given_the_labels_that_the_network_was_given(make_step):
    from flowexp.backbones import create_backbone

    network = create_backbone("dit_nano2", resolution=8, channels=1, depth=4, width=16, heads=2, num_classes=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    term = SelfAlignment(tap=1, teacher_tap=3)
    term.attach(network)
    step = make_step(1)
    labels = [replace(step, batch=replace(step.batch, label=torch.full((6,), label))) for label in (0, 3)]
    assert term(labels[0]).item() != term(labels[1]).item()


@pytest.mark.parametrize(
    ("options", "match"),
    [({"t_max": 1.5}, "t_max"), ({"beta": 0.0}, "beta"), ({"tap": 5}, r"1\.\.4"), ({"teacher_tap": 0}, r"1\.\.4")],
)
def test_wrong_settings_are_refused(backbone, options, match):
    with pytest.raises(ValueError, match=match):
        SelfAlignment(**options).attach(backbone)
