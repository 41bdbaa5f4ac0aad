from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from flowexp.training.ema import EMA, ExponentialMovingAverage


def create_network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).to(dtype)


def average_of(network: nn.Module, **options) -> ExponentialMovingAverage:
    return ExponentialMovingAverage(dict(network.named_parameters()), **options)


def train(network: nn.Module, ema: ExponentialMovingAverage, steps: range) -> None:
    """Moves the parameters at random, by the number of the step alone, and averages."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for value in network.parameters():
                value += 0.1 * torch.randn(value.shape, generator=generator).to(value.dtype)
        ema.update()


@pytest.mark.parametrize("warmup", [True, False])
@pytest.mark.parametrize("decay", [0.9999, 0.9, 0.5])
def test_the_average_is_the_hand_loop_from_the_first_step(warmup: bool, decay: float):
    network = create_network(torch.float64)
    ema = average_of(network, decay=decay, warmup=warmup)
    expected = {name: value.detach().clone() for name, value in network.named_parameters()}
    for n in range(1, 40):
        train(network, ema, range(n, n + 1))
        d = min(decay, (1 + n) / (10 + n)) if warmup else decay
        for name, value in network.named_parameters():
            expected[name] = d * expected[name] + (1 - d) * value.detach()
        for name, average in ema.averages.items():
            torch.testing.assert_close(average, expected[name], rtol=1e-12, atol=1e-12)
        assert ema.current_decay == d


def test_warm_up_ends_at_the_stated_decay():
    network = create_network()
    ema = average_of(network, decay=0.9)
    train(network, ema, range(100))
    assert ema.current_decay == 0.9


def test_without_an_update_the_average_is_the_network():
    network = create_network()
    for name, average in average_of(network).averages.items():
        assert torch.equal(average, network.get_parameter(name))


def test_the_average_shares_no_memory_with_the_network():
    network = create_network()
    ema = average_of(network)
    before = {name: average.clone() for name, average in ema.averages.items()}
    with torch.no_grad():
        for value in network.parameters():
            value.zero_()
    assert all(torch.equal(ema.averages[name], before[name]) for name in before)


def saved(ema: ExponentialMovingAverage) -> dict:
    """The state after a journey through a file that may hold nothing but plain containers."""
    file = io.BytesIO()
    torch.save(ema.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_average_is_the_uninterrupted_one_bit_for_bit(dtype: torch.dtype):
    network = create_network(dtype)
    ema = average_of(network)
    train(network, ema, range(7))
    weights, state = {k: v.clone() for k, v in network.state_dict().items()}, saved(ema)
    train(network, ema, range(7, 30))

    resumed_network = create_network(dtype)
    resumed_network.load_state_dict(weights)
    resumed = average_of(resumed_network)
    resumed.load_state_dict(state)
    train(resumed_network, resumed, range(7, 30))

    assert resumed.num_updates == ema.num_updates == 30
    for name, average in ema.averages.items():
        assert torch.equal(resumed.averages[name], average)


def test_the_state_is_plain():
    state = saved(average_of(create_network()))
    assert state.keys() == {"decay", "num_updates", "averages"}
    assert type(state["num_updates"]) is int
    assert state["averages"].keys() == dict(create_network().named_parameters()).keys()


def test_a_loaded_state_is_not_shared_with_the_average():
    network = create_network()
    ema, state = average_of(network), average_of(network).state_dict()
    before = {name: value.clone() for name, value in state["averages"].items()}
    ema.load_state_dict(state)
    train(network, ema, range(3))
    assert all(torch.equal(state["averages"][name], before[name]) for name in before)


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_the_state_of_another_network_is_refused(change: str):
    ema = average_of(create_network())
    state = saved(ema)
    if change == "missing":
        del state["averages"]["0.bias"]
    else:
        state["averages"]["1.weight" if change == "shape" else "2.weight"] = torch.zeros(2)
    with pytest.raises(ValueError, match="of another network"):
        ema.load_state_dict(state)


def test_the_average_of_a_bf16_network_moves():
    """A step of 1e-4 of the difference is lost in bf16; the average is float32."""
    network = create_network(torch.bfloat16)
    ema = average_of(network, decay=0.9999, warmup=False)
    with torch.no_grad():
        for value in network.parameters():
            value.fill_(1.0)
    before = {name: average.clone() for name, average in ema.averages.items()}
    for _ in range(10):
        ema.update()
    for name, average in ema.averages.items():
        assert average.dtype == torch.float32
        torch.testing.assert_close(1 - average, (1 - before[name]) * 0.9999**10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_within_swapped_the_network_is_the_average_and_afterwards_itself(dtype: torch.dtype):
    network = create_network(dtype)
    ema = average_of(network)
    train(network, ema, range(5))
    own = {name: value.detach().clone() for name, value in network.named_parameters()}
    averages = {name: value.clone() for name, value in ema.averages.items()}
    objects = list(network.parameters())
    with ema.swapped():
        for name, value in network.named_parameters():
            assert torch.equal(value, averages[name].to(dtype))
            assert not torch.equal(value, own[name])
    assert all(now is before for now, before in zip(network.parameters(), objects, strict=True))
    for name, value in network.named_parameters():
        assert torch.equal(value, own[name])
        assert torch.equal(ema.averages[name], averages[name])


def test_an_error_within_swapped_restores_the_network():
    network = create_network()
    ema = average_of(network)
    train(network, ema, range(5))
    own = [value.detach().clone() for value in network.parameters()]
    with pytest.raises(KeyError), ema.swapped():
        raise KeyError
    assert all(torch.equal(value, before) for value, before in zip(network.parameters(), own, strict=True))


def test_swapping_leaves_training_as_it_was():
    plain_network, network = create_network(), create_network()
    plain, ema = average_of(plain_network), average_of(network)
    train(plain_network, plain, range(6))
    train(network, ema, range(3))
    with ema.swapped():
        network(torch.randn(2, 5))
    train(network, ema, range(3, 6))
    assert all(torch.equal(ema.averages[name], plain.averages[name]) for name in plain.averages)


def test_the_average_builds_no_graph():
    network = create_network()
    ema = average_of(network)
    ema.update()
    assert not any(average.requires_grad for average in ema.averages.values())
    with ema.swapped():
        network(torch.randn(2, 5)).sum().backward()
    assert all(value.grad is not None for value in network.parameters())


def test_the_average_follows_its_parameters_to_their_device():
    """Lightning moves a module after it was built. The meta device stands in for an accelerator."""
    ema = average_of(create_network())
    ema.parameters = dict(create_network().to("meta").named_parameters())
    ema.update()
    assert {average.device.type for average in ema.averages.values()} == {"meta"}


@pytest.mark.parametrize("decay", [1.0, -0.1, 2.0])
def test_a_decay_that_does_not_average_is_refused(decay: float):
    with pytest.raises(ValueError, match="decay"):
        average_of(create_network(), decay=decay)


@pytest.mark.parametrize(
    ("ema", "decays", "words"),
    [
        (EMA(), (0.9999,), "0.9999"), (EMA(0.5), (0.5,), "0.5"), (EMA([0.5, 0.9]), (0.5, 0.9), "0.5 and 0.9"),
        (EMA([]), (), "none"), (EMA(None), (), "none"),
    ],
)  # fmt: skip
def test_one_average_several_or_none(ema: EMA, decays: tuple, words: str):
    assert (ema.decays, str(ema)) == (decays, words)
    made = ema.create(dict(create_network().named_parameters()))
    assert [average.decay for average in made.values()] == list(decays)


@pytest.mark.parametrize("decay", [1.0, -0.1, [0.5, 2], [0.9, 0.9]])
def test_decays_that_make_no_averages_are_refused(decay):
    with pytest.raises(ValueError, match=r"ema\.decay must .*got"):
        EMA(decay)
