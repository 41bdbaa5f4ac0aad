"""LCF's contrast against loops transcribed from the paper, and where its gradient goes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowexp.flow.distances import squared_distances
from flowexp.flow.losses import feature_vectors, local_contrastive_error

DENOMINATORS = ["alg1", "eq14", "infonce"]
every_denominator = pytest.mark.parametrize("denominator", DENOMINATORS)


def problem(num_anchors=3, num_rows=7, dim=5, dtype=torch.float64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """anchors, positives, contrasts, own: the anchors are some rows of the batch, in no order."""
    contrasts = torch.randn(num_rows, dim, dtype=dtype)
    own = torch.randperm(num_rows)[:num_anchors]
    anchors = contrasts[own].clone().requires_grad_()
    return anchors, anchors.detach() + 0.3 * torch.randn(num_anchors, dim, dtype=dtype), contrasts, own


def square_norm(u: list[float], v: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(u, v, strict=True))


def algorithm_1(z: list, a: dict, i: int, tau: float) -> float:
    """Line 7: the sum runs over j = 1..B."""
    total = sum(math.exp(-square_norm(z[i], z[j]) / tau) for j in range(len(z)))
    return -math.log(math.exp(-square_norm(z[i], a[i]) / tau) / total)


def equation_14(z: list, a: dict, i: int, tau: float) -> float:
    """The sum runs over j != i."""
    total = sum(math.exp(-square_norm(z[i], z[j]) / tau) for j in range(len(z)) if j != i)
    return -math.log(math.exp(-square_norm(z[i], a[i]) / tau) / total)


def info_nce(z: list, a: dict, i: int, tau: float) -> float:
    """The classification of the positive among the positive and all other samples."""
    positive = math.exp(-square_norm(z[i], a[i]) / tau)
    total = sum(math.exp(-square_norm(z[i], z[j]) / tau) for j in range(len(z)) if j != i)
    return -math.log(positive / (positive + total))


@pytest.mark.parametrize(
    ("denominator", "paper"), [("alg1", algorithm_1), ("eq14", equation_14), ("infonce", info_nce)]
)
@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_it_is_the_papers_formula_loop_by_loop(denominator, paper, tau):
    anchors, positives, contrasts, own = problem()
    z = contrasts.tolist()
    a = dict(zip(own.tolist(), positives.tolist(), strict=True))
    options = {"tau": tau, "denominator": denominator}
    error = local_contrastive_error(anchors, positives, contrasts, own, distance_scale="sum", **options)
    assert error.tolist() == pytest.approx([paper(z, a, i, tau) for i in own.tolist()])


@every_denominator
def test_the_mean_distance_is_the_sum_at_a_temperature_times_the_dimension(denominator):
    inputs = problem(dim=5)
    by_mean = local_contrastive_error(*inputs, tau=0.5, denominator=denominator)
    by_sum = local_contrastive_error(*inputs, tau=2.5, denominator=denominator, distance_scale="sum")
    torch.testing.assert_close(by_mean, by_sum)


@every_denominator
def test_the_gradient_is_that_of_the_written_out_formula_with_every_contrast_held_fixed(denominator):
    anchors, positives, contrasts, own = problem()
    (gradient,) = torch.autograd.grad(
        local_contrastive_error(anchors, positives, contrasts, own, denominator=denominator).sum(), anchors
    )
    for row, i in enumerate(own.tolist()):
        z = anchors.detach()[row].requires_grad_()
        near = (z - positives[row]).square().mean() / 0.5
        weights = [-(z - contrasts[j]).square().mean() / 0.5 for j in range(7) if j != i]
        weights += {"alg1": [torch.zeros((), dtype=z.dtype)], "eq14": [], "infonce": [-near]}[denominator]
        (near + torch.stack(weights).logsumexp(0)).backward()
        torch.testing.assert_close(gradient[row], z.grad)


@every_denominator
def test_positives_and_contrasts_get_no_gradient(denominator):
    anchors, positives, contrasts, own = problem()
    positives.requires_grad_()
    contrasts.requires_grad_()
    local_contrastive_error(anchors, positives, contrasts, own, denominator=denominator).sum().backward()
    assert anchors.grad.any()
    assert positives.grad is None
    assert contrasts.grad is None


def test_algorithm_1_is_never_below_the_distance_to_the_positive():
    """Its self term is exp(0) = 1, so the error is at least d / tau; eq. 14 has no floor."""
    anchors, positives, contrasts, own = problem()
    near = (anchors - positives).square().mean(dim=1) / 0.5
    assert (local_contrastive_error(anchors, positives, contrasts, own) >= near).all()
    far = contrasts + 100 * torch.arange(7)[:, None]
    assert (local_contrastive_error(far[own], far[own], far, own, denominator="eq14") < -1000).all()
    assert (local_contrastive_error(far[own], far[own], far, own) == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_anchors_distance_to_itself_is_exactly_zero_and_has_no_gradient(dtype):
    """On its positive and with the other sample out of sight, all that could show is the rounding of large features."""
    anchor = (1000 + torch.randn(1, 4096)).to(dtype).requires_grad_()
    contrasts = torch.cat([-2 * anchor, anchor]).detach()
    error = local_contrastive_error(anchor, anchor.detach(), contrasts, torch.tensor([1]))
    assert error.item() == 0
    error.sum().backward()
    assert not anchor.grad.any()


def test_an_anchors_own_row_is_never_read():
    anchors, positives, contrasts, own = problem()
    one_anchor = [x[:1] for x in (anchors, positives)]
    expected = local_contrastive_error(*one_anchor, contrasts, own[:1], denominator="eq14")
    changed = contrasts.index_fill(0, own[:1], 7.0)
    torch.testing.assert_close(local_contrastive_error(*one_anchor, changed, own[:1], denominator="eq14"), expected)


@every_denominator
def test_no_anchor_gives_no_error_that_is_still_in_the_graph(denominator):
    features = torch.randn(4, 6, requires_grad=True)
    low = torch.zeros(0, dtype=torch.int64)
    error = local_contrastive_error(features[low], features[low], features, low, denominator=denominator)
    assert error.shape == (0,)
    error.sum().backward()
    assert torch.equal(features.grad, torch.zeros(4, 6))


@every_denominator
def test_features_far_apart_give_no_infinities(denominator):
    anchors, positives, contrasts, own = problem(dtype=torch.float32)
    scaled = [(1e4 * x.detach()).requires_grad_() for x in (anchors, positives, contrasts)]
    error = local_contrastive_error(*scaled, own, denominator=denominator)
    error.sum().backward()
    assert error.isfinite().all()
    assert scaled[0].grad.isfinite().all()


def test_autocast_changes_nothing():
    inputs = problem(dim=512, dtype=torch.float32)
    expected = local_contrastive_error(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(local_contrastive_error(*inputs), expected)


def test_bf16_features_are_widened():
    anchors, positives, contrasts, own = problem(dtype=torch.bfloat16)
    error = local_contrastive_error(anchors, positives, contrasts, own)
    assert error.dtype == torch.float32
    wide = [x.float() for x in (anchors, positives, contrasts)]
    assert torch.equal(error, local_contrastive_error(*wide, own))


def test_distances_by_matrix_product_are_distances():
    a, b = torch.randn(3, 9, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    torch.testing.assert_close(squared_distances(a, b), (a[:, None] - b).square().sum(dim=2))


def test_distances_survive_a_large_common_part():
    """Features share their positional embedding; without centring float32 would lose these distances altogether."""
    common, spread = 100 * torch.randn(20_000), 0.1 * torch.randn(6, 20_000)
    exact = (spread[:2, None].double() - spread.double()).square().sum(dim=2)
    rows = (common + spread).float()
    held = (rows[:2, None].double() - rows.double()).square().sum(dim=2)  # what rounding of the rows has left
    torch.testing.assert_close(squared_distances(rows[:2], rows).double(), held, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(held, exact, rtol=1e-3, atol=1e-2)


def test_squared_distances_are_never_negative():
    rows = torch.randn(200, 300)
    distances = squared_distances(rows, rows)
    assert (distances >= 0).all()
    assert (distances.diagonal() == 0).any(), "rounding left none below zero, so this tests nothing"


def test_feature_vectors_flatten_or_average_the_tokens():
    tokens = torch.randn(2, 3, 4).bfloat16()
    assert torch.equal(feature_vectors(tokens), tokens.float().reshape(2, 12))
    assert torch.equal(feature_vectors(tokens, pooling="mean"), tokens.float().mean(dim=1))
    assert feature_vectors(tokens).dtype == torch.float32
    assert feature_vectors(tokens.double()).dtype == torch.float64


def test_normalized_feature_vectors_have_length_one_and_zero_stays_finite():
    tokens = torch.randn(2, 3, 4)
    lengths = feature_vectors(tokens, normalize=True).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(2))
    assert not feature_vectors(torch.zeros(1, 3, 4), normalize=True).any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"denominator": "all"}, "denominator must be one of alg1, eq14, infonce, got 'all'"),
        ({"distance_scale": "max"}, "distance_scale must be one of mean, sum, got 'max'"),
    ],
)
def test_an_unknown_choice_is_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        local_contrastive_error(*problem(), **options)
    with pytest.raises(ValueError, match="pooling must be one of flatten, mean, got 'max'"):
        feature_vectors(torch.randn(1, 2, 3), pooling="max")


@pytest.mark.parametrize("denominator", ["eq14", "infonce"])
def test_without_its_own_row_a_batch_of_one_has_no_contrast(denominator):
    with pytest.raises(ValueError, match="needs at least 2 samples in a batch, got 1"):
        local_contrastive_error(*problem(num_anchors=1, num_rows=1), denominator=denominator)
