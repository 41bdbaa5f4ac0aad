"""REPA's term against loops, with a teacher small enough to follow."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowexp.data.sets.images import to_uint8
from flowexp.integrations.encoders import TEACHERS, Teacher
from flowexp.objectives.terms import RepresentationAlignment, repa
from flowexp.objectives.terms.repa import resample


class Patches(Teacher):
    """Three numbers of each patch: its mean, its square and its largest colour."""

    name = "patches"
    dim = 3
    asked: list[tuple[int, int]]

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1 / 255))
        self.asked = []

    def read(self, images: Tensor, side: int) -> Tensor:
        self.asked.append((len(images), side))
        patches = images.float().unflatten(2, (side, -1)).unflatten(4, (side, -1)).permute(0, 2, 4, 1, 3, 5)
        patches = (self.scale * patches).flatten(3).flatten(1, 2)
        return torch.stack([patches.mean(dim=2), patches.square().mean(dim=2), patches.amax(dim=2)], dim=2)

    def protocol(self) -> dict:
        return {"teacher": self.name}


@pytest.fixture
def make_term(backbone, monkeypatch):
    monkeypatch.setitem(TEACHERS, "patches", Patches)

    def make(**options) -> RepresentationAlignment:
        term = RepresentationAlignment(**{"teacher": "patches", "tap": 2, "hidden": 8, **options})
        term.attach(backbone)
        return term

    return make


def teacher_of(term: RepresentationAlignment) -> Patches:
    teacher = term._teacher[0]
    assert isinstance(teacher, Patches)
    return teacher


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def linear(layer: torch.nn.Linear, x: list[float]) -> list[float]:
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w * a for w, a in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def test_it_is_repas_projection_loss_loop_by_loop(make_term, make_step):
    term, step = make_term(), make_step(2, num=2)
    first, _, second, _, third = term.projector
    cosines = []
    for i in range(2):
        teacher = Patches().tokens(to_uint8(step.batch.data[i : i + 1]), 4)[0].tolist()
        for token, target in zip(step.features[2].tokens[i].tolist(), teacher, strict=True):
            h = [silu(x) for x in linear(first, token)]
            z = linear(third, [silu(x) for x in linear(second, h)])
            norms = math.sqrt(sum(a * a for a in z) * sum(b * b for b in target))
            cosines.append(sum(a * b for a, b in zip(z, target, strict=True)) / norms)
    assert term(step).item() == pytest.approx(-sum(cosines) / len(cosines), rel=1e-4)


def test_it_trains_the_blocks_up_to_the_tap_and_all_of_the_projector(make_term, make_step, reached):
    term = make_term()
    found = reached(term(make_step(2)), term)
    assert found == {"blocks.0", "blocks.1", "x_embedder", "t_embedder", "term.projector"}
    assert all(parameter.grad is not None for parameter in term.parameters())


def test_the_teacher_is_neither_trained_nor_saved(make_term, make_step):
    term = make_term()
    term(make_step(2)).backward()
    assert not teacher_of(term).tokens(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), 4).requires_grad
    assert teacher_of(term).scale.grad is None
    assert all(name.startswith("projector") for name in term.state_dict())


def test_a_network_is_sampled_without_its_teacher(make_term, monkeypatch):
    monkeypatch.setattr(repa, "create_teacher", lambda *a, **k: pytest.fail("loaded before the first step"))
    assert make_term(teacher="dinov2_vitb14").projector[-1].out_features == 768


def test_the_projector_is_repas_for_sit_b_with_dinov2():
    """7.34 M parameters for a width of 768."""
    assert sum(p.numel() for p in repa.projector(768, 2048, 768).parameters()) == pytest.approx(7.34e6, rel=1e-3)


def test_only_the_rows_that_reached_the_block_are_shown_to_the_teacher(make_term, make_step):
    term, step = make_term(), make_step(2, rows=[4, 1, 0])
    loss = term(step)
    assert teacher_of(term).asked == [(3, 4)]
    each = [term(make_step(2, rows=[i])) for i in (4, 1, 0)]
    torch.testing.assert_close(loss, torch.stack(each).mean())


def test_the_teacher_sees_the_clean_pictures_and_not_the_latents(make_term, make_step):
    term, pixels = make_term(), torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)
    step = make_step(2, channels=4, pixels=pixels)
    expected = repa.alignment_error(term.projector(step.features[2].tokens), Patches().tokens(pixels, 4)).mean()
    torch.testing.assert_close(term(step), expected)
    with pytest.raises(ValueError, match="needs pictures, and the data has 4 channels"):
        term(make_step(2, channels=4))


def test_a_grid_of_the_teachers_own_is_resampled(make_term, make_step):
    term, step = make_term(grid=2), make_step(2)
    loss = term(step)
    assert teacher_of(term).asked == [(6, 2)]
    coarse = Patches().tokens(to_uint8(step.batch.data), 2)
    expected = repa.alignment_error(term.projector(step.features[2].tokens), resample(coarse, 4)).mean()
    torch.testing.assert_close(loss, expected)


def test_resampling_keeps_what_is_linear_in_the_place_and_the_order_of_rows():
    x, y = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="xy")
    tokens = torch.stack([x.flatten(), y.flatten()], dim=1)[None]
    inner = resample(tokens, 4)[0].unflatten(0, (4, 4))[1:3, 1:3]
    torch.testing.assert_close(inner[..., 0], torch.tensor([[2.5, 4.5], [2.5, 4.5]]))
    torch.testing.assert_close(inner[..., 1], torch.tensor([[2.5, 2.5], [4.5, 4.5]]))
    assert resample(tokens, 8) is tokens
    with pytest.raises(ValueError, match="square grid, got 63"):
        resample(tokens[:, :63], 4)


def test_tokens_from_the_cache_are_the_teachers_but_for_rounding(make_term, make_step, tmp_path):
    step = make_step(2)
    term, cached = make_term(), make_term(cache=tmp_path)
    cached.load_state_dict(term.state_dict())
    for _ in range(2):
        torch.testing.assert_close(cached(step), term(step), rtol=1e-3, atol=1e-3)
    assert teacher_of(cached).asked == [(6, 4)]


@pytest.mark.parametrize(("options", "match"), [({"teacher": "clip"}, "dinov2_vitb14"), ({"tap": 0}, r"1\.\.4")])
def test_wrong_settings_are_refused(make_term, options, match):
    with pytest.raises(ValueError, match=match):
        make_term(**options)


def test_by_default_it_reads_the_block_that_lcf_reads(make_term, backbone):
    assert make_term(tap=None).taps == (backbone.default_tap,)


def test_tokens_on_a_coarser_grid_are_weighted_by_a_triangle_twice_as_wide():
    """Antialiased: of four tokens in a row, the first of two takes 3/7, 3/7 and 1/7. Without, 1/2 and 1/2."""
    row = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    tokens = row.expand(4, 4).reshape(1, 16, 1)
    found = resample(tokens, 2).reshape(2, 2)
    expected = torch.tensor([(3 * 1 + 3 * 10 + 100) / 7, (10 + 3 * 100 + 3 * 1000) / 7])
    torch.testing.assert_close(found, expected.expand(2, 2))


@pytest.mark.parametrize("form", ["hard", "sigmoid", "snr"])
def test_a_weight_over_t_is_va_repas_loop_by_loop(make_term, make_step, form):
    term, step = make_term(weight=form, tau=0.6, sharpness=15.0), make_step(2)
    weights = {
        "hard": lambda t: float(t < 0.6),
        "sigmoid": lambda t: 1 / (1 + math.exp(-15.0 * (0.6 - t))),
        "snr": lambda t: ((1 - t) / t) ** 2 / (((1 - t) / t) ** 2 + (0.4 / 0.6) ** 2),
    }
    total = norm = 0.0
    for i, t in enumerate(step.t.tolist()):
        tokens = term.projector(step.features[2].tokens[i])
        teacher = Patches().tokens(to_uint8(step.batch.data[i : i + 1]), 4)[0]
        cosine = torch.nn.functional.cosine_similarity(tokens, teacher, dim=-1).mean().item()
        total, norm = total - weights[form](t) * cosine, norm + weights[form](t)
    assert term(step).item() == pytest.approx(total / norm, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "match"), [({"weight": "soft"}, "weight"), ({"tau": 1.0}, "tau"), ({"sharpness": 0.0}, "sharpness")]
)
def test_a_weight_that_there_is_not_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        RepresentationAlignment(**options)
