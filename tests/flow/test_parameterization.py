"""What a network's output means: exact conversions, and JiT's clamp at the end where they would be infinite."""

from __future__ import annotations

import pytest
import torch

from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.flow.parameterization import Parameterization, VelocityNetwork, clamped_interval

PATHS = [Linear(), GVP(), SBDMVP()]


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 6, 1, 3, 3, generator=generator, dtype=torch.float64)
    return data, noise


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
def test_a_perfect_output_stands_for_the_velocity_of_its_pair(path, prediction, pair):
    data, noise = pair
    t = torch.linspace(0.2, 0.6, 6, dtype=torch.float64)
    xt, v = path.interpolate(data, noise, t), path.velocity(data, noise, t)
    output = {"velocity": v, "data": data, "noise": noise}[prediction]
    torch.testing.assert_close(Parameterization(prediction).velocity(output, xt, t, path), v)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
@pytest.mark.parametrize("loss_space", ["velocity", "data", "noise"])
def test_an_error_in_any_space_is_that_of_the_velocity_times_a_function_of_t(path, prediction, loss_space, pair):
    data, noise = pair
    t = torch.full((6,), 0.4, dtype=torch.float64)
    xt, v = path.interpolate(data, noise, t), path.velocity(data, noise, t)
    wrong = v + torch.linspace(0.1, 2, 54, dtype=torch.float64).view(6, 1, 3, 3)
    output = path.convert(wrong, xt, t, "velocity", prediction)
    compared, truth = Parameterization(prediction, loss_space).compared(output, v, data, noise, xt, t, path)
    ratio = (compared - truth) / (wrong - v)
    torch.testing.assert_close(ratio, ratio[:1, :1, :1, :1].expand_as(ratio))
    assert ratio.abs().min() > 0.1


def test_jits_divisor_is_never_below_its_clamp(pair):
    """JiT: v = (xt - x) / max(t, 0.05), in LCF's time, for prediction and target alike."""
    data, noise = pair
    t = torch.tensor([0.0, 0.01, 0.049, 0.05, 0.3, 1.0], dtype=torch.float64)
    jit, path = Parameterization("data", "velocity", clamp=0.05), Linear()
    xt, output = path.interpolate(data, noise, t), data + 0.1
    divisor = t.clamp(min=0.05).view(-1, 1, 1, 1)
    torch.testing.assert_close(jit.velocity(output, xt, t, path), (xt - output) / divisor)
    compared, truth = jit.compared(output, path.velocity(data, noise, t), data, noise, xt, t, path)
    torch.testing.assert_close(truth, (xt - data) / divisor)
    torch.testing.assert_close(compared - truth, -0.1 / divisor.expand_as(data))


def test_noise_predictions_are_clamped_at_the_noise_end(pair):
    data, noise = pair
    t = torch.tensor([0.0, 0.5, 0.94, 0.96, 0.999, 1.0], dtype=torch.float64)
    path = Linear()
    xt, output = path.interpolate(data, noise, t), noise + 0.1
    divisor = (1 - t).clamp(min=0.05).view(-1, 1, 1, 1)
    torch.testing.assert_close(Parameterization("noise").velocity(output, xt, t, path), (output - xt) / divisor)


@pytest.mark.parametrize(("prediction", "loss_space"), [("data", "noise"), ("noise", "data")])
def test_a_loss_in_the_other_space_has_jits_divisor_too(prediction, loss_space, pair):
    """Without it x-prediction's loss on the noise is the data's times 1 / t^2, infinite at t = 0."""
    data, noise = pair
    t = torch.tensor([0.0, 1e-4, 0.049, 0.951, 0.9999, 1.0], dtype=torch.float64)
    path, divisor = Linear(), (t if prediction == "data" else 1 - t).clamp(min=0.05).view(-1, 1, 1, 1)
    output, target = (data if prediction == "data" else noise) + 0.1, path.velocity(data, noise, t)
    compared, truth = Parameterization(prediction, loss_space).compared(
        output, target, data, noise, path.interpolate(data, noise, t), t, path
    )
    torch.testing.assert_close(compared - truth, (-0.1 * (1 - divisor) / divisor).expand_as(data))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
def test_a_perfect_output_attains_its_target_but_where_the_divisor_is_clamped(path, prediction, pair):
    data, noise = pair
    t = torch.tensor([1e-4, 0.02, 0.3, 0.6, 0.97, 0.9999], dtype=torch.float64)
    parameterization, xt = Parameterization(prediction), path.interpolate(data, noise, t)
    target = path.velocity(data, noise, t)
    found = parameterization.attainable(target, xt, t, path)
    perfect = {"velocity": target, "data": data, "noise": noise}[prediction]
    torch.testing.assert_close(found, parameterization.velocity(perfect, xt, t, path))
    torch.testing.assert_close(found[2:4], target[2:4])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_the_clamp_begins_where_the_coefficient_reaches_it(path):
    low, _ = clamped_interval(path, "data", 0.05)
    _, high = clamped_interval(path, "noise", 0.05)
    assert float(path.sigma(torch.tensor(low, dtype=torch.float64))) == pytest.approx(0.05, abs=1e-9)
    assert float(path.alpha(torch.tensor(high, dtype=torch.float64))) == pytest.approx(0.05, abs=1e-9)


def test_a_velocity_network_of_a_velocity_network_is_the_network_itself():
    class Network:
        def __call__(self, x, t, label=None):
            return x * 2

        def null_condition(self, label):
            return label

    x = torch.randn(2, 1, 2, 2)
    network = VelocityNetwork(Network(), Linear(), Parameterization())
    assert torch.equal(network(x, torch.rand(2)), x * 2)
    assert network.null_condition(x) is x


@pytest.mark.parametrize("wrong", [{"prediction": "x"}, {"loss_space": "eps"}, {"clamp": 1.0}, {"clamp": -0.1}])
def test_a_wrong_setting_is_named(wrong):
    with pytest.raises(ValueError, match=rf"parameterization\.{next(iter(wrong))} must"):
        Parameterization(**wrong)
