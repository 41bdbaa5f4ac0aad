from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowexp.flow.interpolants import Linear
from flowexp.flow.profiles import create_profile
from flowexp.flow.velocity import Autoguided, Conditional, Counted, Guided, Scaled

LABEL = torch.tensor([0, 1, 2, 1])
NULL = torch.full_like(LABEL, 3)
T = torch.tensor([0.0, 0.3, 0.7, 1.0])


class Network:
    """A network whose velocity differs by row, channel, time and label, and which remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        self.calls.append(tuple(x.shape))
        shift = 0.0 if label is None else label.view(-1, 1, 1, 1).cos()
        return torch.sin(3 * x) + t.view(-1, 1, 1, 1) + shift


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 4, 2, 2)


def test_a_conditional_field_is_the_network_with_its_label(x: Tensor):
    assert torch.equal(Conditional(Network(), LABEL)(x, T), Network()(x, T, LABEL))
    assert torch.equal(Conditional(Network())(x, T), Network()(x, T, None))


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 4.0])
def test_guidance_is_two_calls_combined_row_by_row(x: Tensor, scale: float):
    guided = Guided(Network(), LABEL, NULL, scale)(x, T)
    for row in range(4):
        one = slice(row, row + 1)
        conditional = Network()(x[one], T[one], LABEL[one])
        null = Network()(x[one], T[one], NULL[one])
        torch.testing.assert_close(guided[one], null + scale * (conditional - null))


def test_guidance_is_one_doubled_call(x: Tensor):
    network = Network()
    Guided(network, LABEL, NULL, 2.0)(x, T)
    assert network.calls == [(8, 4, 2, 2)]


def test_guidance_at_scale_one_is_the_conditional_velocity_bit_for_bit(x: Tensor):
    assert torch.equal(Guided(Network(), LABEL, NULL, 1.0)(x, T), Network()(x, T, LABEL))


def test_unguided_channels_keep_the_conditional_velocity(x: Tensor):
    all_of_them = Guided(Network(), LABEL, NULL, 4.0)(x, T)
    three = Guided(Network(), LABEL, NULL, 4.0, channels=3)(x, T)
    assert torch.equal(three[:, :3], all_of_them[:, :3])
    assert torch.equal(three[:, 3:], Network()(x, T, LABEL)[:, 3:])


def test_only_rows_inside_the_interval_are_guided(x: Tensor):
    partly = Guided(Network(), LABEL, NULL, 4.0, interval=(0.3, 0.7))(x, T)
    guided, conditional = Guided(Network(), LABEL, NULL, 4.0)(x, T), Network()(x, T, LABEL)
    assert torch.equal(partly[1:3], guided[1:3])
    assert torch.equal(partly[[0, 3]], conditional[[0, 3]])


def test_a_batch_outside_the_interval_is_not_doubled(x: Tensor):
    network = Network()
    velocity = Guided(network, LABEL, NULL, 4.0, interval=(0.1, 0.5))(x, torch.full((4,), 0.6))
    assert network.calls == [(4, 4, 2, 2)]
    assert torch.equal(velocity, Network()(x, torch.full((4,), 0.6), LABEL))


def test_guidance_takes_text_as_it_takes_classes(x: Tensor):
    """Embeddings (B, L, D), with the empty caption's for the null condition."""
    text, empty = torch.randn(4, 5, 6), torch.zeros(4, 5, 6)

    def network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        return x + label.mean((1, 2)).view(-1, 1, 1, 1)

    guided = Guided(network, text, empty, 3.0)(x, T)
    torch.testing.assert_close(guided, x + 3 * text.mean((1, 2)).view(-1, 1, 1, 1))


def weak_field(x: Tensor, t: Tensor) -> Tensor:
    return torch.cos(x)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_autoguidance_is_karras_et_al_eq_3(x: Tensor, scale: float):
    """w D_1 + (1 - w) D_0, on velocities."""
    field = Conditional(Network(), LABEL)
    guided = Autoguided(field, weak_field, scale)(x, T)
    torch.testing.assert_close(guided, scale * field(x, T) + (1 - scale) * weak_field(x, T))


def test_autoguidance_of_velocities_is_autoguidance_of_denoisers(x: Tensor):
    """The paper guides denoisers: the data expected at (x, t)."""
    path, field, t = Linear(), Conditional(Network(), LABEL), T[1:3].repeat(2)
    strong, weak = (path.data_from_velocity(f(x, t), x, t) for f in (field, weak_field))
    guided = Autoguided(field, weak_field, 2.5)(x, t)
    torch.testing.assert_close(path.data_from_velocity(guided, x, t), weak + 2.5 * (strong - weak))


def test_only_rows_inside_the_interval_are_autoguided(x: Tensor):
    field = Conditional(Network(), LABEL)
    partly = Autoguided(field, weak_field, 2.0, interval=(0.3, 0.7))(x, T)
    assert torch.equal(partly[1:3], Autoguided(field, weak_field, 2.0)(x, T)[1:3])
    assert torch.equal(partly[[0, 3]], field(x, T)[[0, 3]])


def test_outside_the_interval_the_weak_network_is_not_called(x: Tensor):
    weak, field = Network(), Conditional(Network(), LABEL)
    velocity = Autoguided(field, Conditional(weak, LABEL), 2.0, (0.1, 0.5))(x, torch.full((4,), 0.6))
    assert torch.equal(velocity, field(x, torch.full((4,), 0.6)))
    assert not weak.calls


def test_both_guidances_together_are_what_autoguided_says(x: Tensor):
    """v + w (s - 1) (v - v_null) + (w - 1) (v - v_weak)."""
    network = Network()
    v, null, weak = network(x, T, LABEL), network(x, T, NULL), weak_field(x, T)
    both = Autoguided(Guided(network, LABEL, NULL, 1.5), weak_field, 2.0)(x, T)
    torch.testing.assert_close(both, v + 2 * 0.5 * (v - null) + (v - weak))


def test_a_scale_of_one_is_the_field_bit_for_bit(x: Tensor):
    field = Conditional(Network(), LABEL)
    assert torch.equal(Scaled(field, 1.0, 1.0)(x, T), field(x, T))
    velocity = torch.randn(4, 4, 2, 2).bfloat16()
    assert Scaled(lambda x, t: velocity)(x, T) is velocity


def test_ssc_is_vd_eq_10(x: Tensor):
    """s = 1.1 - 0.1 (VD's t) with VD's t = 1 - t: most at the noise end."""
    field = Conditional(Network(), LABEL)
    scaled = Scaled(field, 1.1, 1.0)(x, T)
    for row, t in enumerate(T.tolist()):
        torch.testing.assert_close(scaled[row], (1.1 - 0.1 * (1 - t)) * field(x, T)[row])


@pytest.mark.parametrize("name", ["cosine", "quad_in", "quad_out", "constant"])
def test_ssc_follows_its_profile(x: Tensor, name: str):
    field = Conditional(Network(), LABEL)
    shape = create_profile(name)(1 - T).view(-1, 1, 1, 1)
    torch.testing.assert_close(Scaled(field, 1.2, 0.9, name)(x, T), (0.9 + 0.3 * shape) * field(x, T))


def test_ssc_and_guidance_commute(x: Tensor):
    """Guidance is linear in the velocity (reference: after CFG and before it are the same)."""

    def scaled_network(x: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        return Scaled(Conditional(Network(), label), 1.1, 1.0)(x, t)

    after = Scaled(Guided(Network(), LABEL, NULL, 3.0), 1.1, 1.0)(x, T)
    torch.testing.assert_close(after, Guided(scaled_network, LABEL, NULL, 3.0)(x, T))


def test_ssc_does_not_round_its_scale_to_a_bf16_velocity(x: Tensor):
    velocity = torch.ones(4, 4, 2, 2).bfloat16()
    scaled = Scaled(lambda x, t: velocity, 1.1, 1.0)(x, T)
    torch.testing.assert_close(scaled[:, 0, 0, 0], 1 + 0.1 * T)


def test_calls_are_counted(x: Tensor):
    counted = Counted(Conditional(Network(), LABEL))
    for calls in range(3):
        assert counted.nfe == calls
        assert torch.equal(counted(x, T), Network()(x, T, LABEL))
