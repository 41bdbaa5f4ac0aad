"""Self-distillation against loops; the slow copy; what a resumed run needs."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch

from flowexp.cli.composing import Configs
from flowexp.flow.losses import view_contrastive_error
from flowexp.flow.randomness import keyed_generator
from flowexp.objectives.terms import SelfDistillation
from flowexp.objectives.terms.views import crop_and_flip
from flowexp.training.step_draws import StepKey


@pytest.fixture
def make_term(backbone):
    def make(**options) -> SelfDistillation:
        term = SelfDistillation(**{"tap": 2, "hidden": 12, "dim": 6, **options})
        term.attach(backbone)
        return term

    return make


def cosine(u: list[float], v: list[float]) -> float:
    product = sum(a * b for a, b in zip(u, v, strict=True))
    return product / math.sqrt(sum(a * a for a in u) * sum(b * b for b in v))


def info_nce(queries: list[list[float]], keys: list[list[float]], tau: float) -> list[float]:
    errors = []
    for i, query in enumerate(queries):
        kernel = [math.exp(cosine(query, key) / tau) for key in keys]
        errors.append(-math.log(kernel[i] / sum(kernel)))
    return errors


def test_the_contrast_of_views_is_info_nce_loop_by_loop():
    queries, keys = torch.randn(2, 5, 4, dtype=torch.float64)
    error = view_contrastive_error(queries, keys, tau=0.3)
    assert error.tolist() == pytest.approx(info_nce(queries.tolist(), keys.tolist(), 0.3))


def test_the_term_is_the_symmetric_contrast_of_two_views(backbone, make_term, make_step):
    """Row by row: network and predictor on one view, copy without predictor on the other, and the reverse."""
    term, step = make_term(tau=0.02, t=0.1), make_step()
    with torch.no_grad():
        for parameter in [*term.student.parameters(), *term.copy["projector"].parameters()]:
            parameter.normal_(std=3.0)  # so far apart that views cannot stand for each other
    queries, keys = [], []
    for view in (0, 1):
        generator = step.batch.key.for_term(view)
        images = crop_and_flip(step.batch.data, 0.125, generator)
        xt = 0.9 * images + 0.1 * torch.randn(images.shape, generator=generator)
        q, k = [], []
        for i in range(len(xt)):
            row, t = xt[i : i + 1], torch.tensor([0.1])
            h = backbone.features(row, t, taps=[2])[2][0].mean(dim=0)
            q.append(term.student["predictor"](term.student["projector"](h)).tolist())
            h = term.copy["trunk"].features(row, t, taps=[2])[2][0].mean(dim=0)
            k.append(term.copy["projector"](h).tolist())
        queries.append(q)
        keys.append(k)
    errors = info_nce(queries[0], keys[1], 0.02) + info_nce(queries[1], keys[0], 0.02)
    same_view = info_nce(queries[0], keys[0], 0.02) + info_nce(queries[1], keys[1], 0.02)
    assert term(step).item() == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    assert term(step).item() != pytest.approx(sum(same_view) / len(errors), rel=2e-3), "the views are alike"


def test_it_trains_the_blocks_up_to_the_tap_and_its_own_heads_but_not_the_copy(make_term, make_step, reached):
    term = make_term()
    found = reached(term(make_step()), term)
    own = {"term.student.projector", "term.student.predictor"}
    assert found == {"blocks.0", "blocks.1", "x_embedder", "t_embedder"} | own
    assert all(p.grad is not None for p in term.parameters() if p.requires_grad), "DDP waits for every parameter"
    assert all(p.grad is None and not p.requires_grad for p in term.copy.parameters())


def test_the_copy_begins_as_the_network_and_follows_it_with_momentum(backbone, make_term):
    term = make_term(momentum=0.9)
    names = [name for name, _ in term.copy["trunk"].named_parameters()]
    assert any(name.startswith("blocks.1.") for name in names)
    assert not any(name.startswith("blocks.2.") for name in names)
    before = deepcopy(dict(term.copy.named_parameters()))
    with torch.no_grad():
        for parameter in [*backbone.parameters(), *term.student.parameters()]:
            parameter.add_(1.0)
    term.after_step(backbone)
    for name, parameter in term.copy.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.1, msg=name)


def test_a_copy_that_never_moves_and_one_that_is_the_network(backbone, make_term):
    for momentum, moved in ((1.0, 0.0), (0.0, 1.0)):
        term = make_term(momentum=momentum)
        before = deepcopy(list(term.copy.parameters()))
        with torch.no_grad():
            for parameter in [*backbone.parameters(), *term.student.parameters()]:
                parameter.add_(1.0)
        term.after_step(backbone)
        for old, new in zip(before, term.copy.parameters(), strict=True):
            torch.testing.assert_close(new, old + moved)


def test_a_resumed_run_has_the_same_copy(make_term, make_step):
    term, other, step = make_term(), make_term(), make_step()
    with torch.no_grad():
        for parameter in term.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    assert not torch.equal(other(step), term(step))
    other.load_state_dict(term.state_dict())
    assert torch.equal(other(step), term(step))


def test_the_views_are_those_of_the_step_and_of_no_generator_with_a_state(make_term, make_step):
    term = make_term()
    again, later = make_step(), make_step(key=StepKey(seed=3, step=8))
    loss = term(again)
    torch.rand(5)
    assert torch.equal(term(make_step()), loss)
    assert not torch.equal(term(later), loss)


def test_crops_are_shifted_images_padded_with_their_edge():
    images = torch.arange(64.0).view(1, 1, 8, 8).expand(200, 2, 8, 8)
    views = crop_and_flip(images, 0.25, keyed_generator(0))
    assert views.shape == images.shape
    padded = torch.nn.functional.pad(images[:1], (2, 2, 2, 2), mode="replicate")
    crops = [padded[0, :, y : y + 8, x : x + 8] for y in range(5) for x in range(5)]
    possible = {tuple(crop.flatten().tolist()) for c in crops for crop in (c, c.flip(2))}
    drawn = {tuple(view.flatten().tolist()) for view in views}
    assert drawn <= possible and len(drawn) > 40, "50 crops and mirrored crops, all images drawn apart"


def test_without_shift_half_the_views_are_mirrored():
    images = torch.randn(1, 1, 4, 4).expand(400, 1, 4, 4)
    views = crop_and_flip(images, 0.0, keyed_generator(0))
    same = (views == images).flatten(1).all(dim=1)
    assert torch.equal(views[~same], images[~same].flip(3))
    assert 150 < same.sum() < 250


def test_no_view_is_mirrored_where_the_data_may_not_be(make_term, make_step):
    images = torch.randn(1, 1, 4, 4).expand(100, 1, 4, 4)
    assert torch.equal(crop_and_flip(images, 0.0, keyed_generator(0), flip=False), images)
    term = make_term(flip=True)
    mirrored = term(make_step())
    term.flip = False
    assert not torch.equal(term(make_step()), mirrored)


@pytest.mark.parametrize(("data", "mirrored"), [("digits", False), ("fashion_mnist", False), ("cifar10", True)])
def test_the_views_of_a_run_are_mirrored_where_its_data_are(data, mirrored):
    config = Configs().compose("train", [f"data={data}", "terms=self_distillation"])
    assert config.terms.self_distillation.flip is mirrored


@pytest.mark.parametrize("options", [{"t": 1.5}, {"momentum": -0.1}, {"tau": 0.0}, {"shift_frac": 2.0}, {"tap": 9}])
def test_wrong_settings_are_refused(make_term, options):
    with pytest.raises(ValueError, match=r"must|needs"):
        make_term(**options)
