from __future__ import annotations

import pytest
import torch

from flowexp.backbones import create_backbone
from flowexp.data import to_float
from flowexp.flow.interpolants import GVP, Linear
from flowexp.measuring.diagnostics import encoder_jacobian, principal_subspace, semantic_subspace, tapped_encoder

DIM, RANK = 12, 3


@pytest.fixture
def basis():
    return torch.linalg.qr(torch.randn(DIM, RANK, dtype=torch.float64)).Q


@pytest.fixture
def matrix():
    return torch.randn(7, DIM, dtype=torch.float64)


def linear_gains(matrix, basis):
    """G_sem, G_noise and |J|_F of x -> A x."""
    rest = torch.eye(DIM, dtype=torch.float64) - basis @ basis.T
    semantic, noise = (matrix @ basis).square().sum() / RANK, (matrix @ rest).square().sum() / (DIM - RANK)
    return float(semantic), float(noise), float(matrix.norm())


def test_a_linear_encoder_is_measured_exactly_where_every_direction_is_taken(matrix, basis):
    images = torch.randn(5, 1, 3, 4, dtype=torch.float64)
    curve = encoder_jacobian(
        lambda x, t: x.flatten(1) @ matrix.T, Linear(), images, [0.1, 0.9], basis, seed=0, num_probes=DIM
    )
    semantic, noise, norm = linear_gains(matrix, basis)
    for point in curve:
        assert (point.g_sem, point.g_noise, point.frobenius) == pytest.approx((semantic, noise, norm), rel=1e-10)
        assert point.semantic_share == pytest.approx(RANK * semantic / norm**2)
        assert point.ratio == pytest.approx(semantic / noise)
        assert (point.g_sem_se, point.g_noise_se) == pytest.approx((0, 0), abs=1e-10)


def test_random_directions_estimate_the_same_within_their_standard_error(matrix, basis):
    images = torch.randn(3000, 1, 3, 4)
    point = encoder_jacobian(
        lambda x, t: x.flatten(1) @ matrix.float().T, GVP(), images, [0.5], basis, seed=0, num_probes=2
    ).data_end
    semantic, noise, norm = linear_gains(matrix, basis)
    assert abs(point.g_sem - semantic) < 4 * point.g_sem_se < 0.1 * semantic
    assert abs(point.g_noise - noise) < 4 * point.g_noise_se < 0.1 * noise
    assert point.frobenius == pytest.approx(norm, rel=0.02)


def test_an_encoder_that_sees_only_the_subspace_has_all_its_jacobian_there(basis):
    images = torch.randn(10, 1, 3, 4, dtype=torch.float64)
    point = encoder_jacobian(lambda x, t: x.flatten(1) @ basis, Linear(), images, [0.2], basis, seed=0).data_end
    assert (point.g_sem, point.g_noise, point.semantic_share) == pytest.approx((1, 0, 1), abs=1e-12)


def test_directions_do_not_depend_on_the_batch_size(matrix, basis):
    images = torch.randn(30, 1, 3, 4, dtype=torch.float64)
    whole, parts = (
        encoder_jacobian(lambda x, t: x.flatten(1) ** 3 @ matrix.T, Linear(), images, [0.2], basis, 0, batch_size=size)
        for size in (30, 7)
    )
    assert whole.rows()[0] == pytest.approx(parts.rows()[0])


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "flatten"])
def test_a_transformers_jacobian_is_that_of_reverse_mode(pooling):
    torch.manual_seed(1)
    network = create_backbone("dit_nano2", resolution=4, channels=1, num_classes=None).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    encode, image = tapped_encoder(network, 2, pooling), torch.randn(1, 1, 4, 4, dtype=torch.float64)
    basis = torch.eye(16, dtype=torch.float64)[:, :5]
    point = encoder_jacobian(encode, Linear(), image, [0.0], basis, seed=0, num_probes=16).data_end
    t = torch.zeros(1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: encode(x, t).flatten(), image).reshape(-1, 16)
    assert point.frobenius == pytest.approx(float(jacobian.norm()), rel=1e-8)
    assert point.g_sem == pytest.approx(float(jacobian[:, :5].square().sum() / 5), rel=1e-8)


def test_the_subspace_is_the_span_of_class_mean_differences():
    images, labels = torch.randint(0, 256, (90, 1, 4, 4), dtype=torch.uint8), torch.arange(90) % 4
    basis = semantic_subspace(images, labels, to_float)
    assert basis.shape == (16, 3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3, dtype=torch.float64))
    means = torch.stack([to_float(images[labels == label]).flatten(1).double().mean(0) for label in range(4)])
    for a in means:
        for b in means:
            torch.testing.assert_close(basis @ (basis.T @ (a - b)), a - b)


def test_means_on_a_line_span_one_direction():
    labels = torch.tensor([0, 1, 2])
    assert semantic_subspace(labels[:, None] * torch.ones(1, 5), labels).shape == (5, 1)


def test_the_principal_subspace_is_that_of_the_singular_vectors():
    images = torch.randint(0, 256, (80, 1, 3, 3), dtype=torch.uint8)
    images[:, 0, 0, 0] = (torch.arange(80) % 2 * 255).to(torch.uint8)  # one direction that varies most
    basis = principal_subspace(images, 3, to_float, batch_size=30)
    data = to_float(images).flatten(1).double()
    expected = torch.linalg.svd(data - data.mean(0)).Vh[:3].T
    torch.testing.assert_close((basis.T @ expected).abs(), torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="rank must lie below 9, got 9"):
        principal_subspace(images, 9, to_float)


def test_a_subspace_needs_classes_and_a_complement(basis):
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        semantic_subspace(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"0 < r < d = 4, got \(12, 3\)"):
        encoder_jacobian(lambda x, t: x, Linear(), torch.zeros(2, 1, 2, 2), [0.1], basis, seed=0)
    with pytest.raises(ValueError, match="flatten, mean, got 'max'"):
        tapped_encoder(create_backbone("dit_nano2", resolution=4, channels=1), 2, "max")
