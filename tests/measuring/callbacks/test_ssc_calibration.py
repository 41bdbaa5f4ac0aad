"""SSC's calibration: its budget holds, its controls share their noise, and a stop loses nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from flowexp.flow.sampler import Sampler
from flowexp.measuring.callbacks.nfe_progress import CallBar, counting, network_calls, rows_per_call
from flowexp.measuring.callbacks.paired_features import different
from flowexp.measuring.callbacks.ssc_calibration import SSCCalibration
from flowexp.measuring.callbacks.ssc_table import plot_differences, scale_words
from flowexp.measuring.diagnostics import SSCProposal, ssc_controls

BUDGET = {"encoder": {"name": "efficientnet_lite", "input_size": 48}, "num_steps": [2], "solvers": ["euler"]}
SMALL = BUDGET | {"num_samples": 24, "constants": [1.05], "num_images": 60, "max_dim": 4, "num_resamples": 20}


def measure(monitor: SSCCalibration, module, datamodule):
    with module.averaged():
        return monitor.measure(module, datamodule, 0)


def calls_during(action, module) -> int:
    """Rows that go through the network."""
    counted: list[int] = []
    hook = module.backbone.register_forward_hook(lambda _, inputs, __: counted.append(len(inputs[0])))
    try:
        action()
    finally:
        hook.remove()
    return sum(counted)


@pytest.mark.slow
def test_every_control_runs_on_the_same_noise_and_makes_a_row(module, datamodule):
    sampler = module.sampler
    found = measure(SSCCalibration(**SMALL | {"num_steps": [2, 3]}), module, datamodule)
    assert module.sampler is sampler
    assert {row["scale"] for row in found.rows} == {"plain", "vd", "late", "constant_1.05", "proposal", "mean"}
    assert {row["num_steps"] for row in found.rows} == {2, 3}
    plain = [row for row in found.rows if row["scale"] == "plain"]
    assert all(row["difference"] == row["low"] == row["high"] == 0 for row in plain)
    assert found.figure is not None and found.scalars["ssc_calibration/s0"] >= 1
    assert found.protocol["num_samples"] == 24 and found.verdicts[0].about == "SSC proposal"


def samplers_of(sampler):
    return ssc_controls(sampler, None, [1.05], ["euler"], [2])


def test_a_budget_of_network_calls_decides_how_many_samples_are_drawn(module):
    samplers = samplers_of(module.sampler)  # plain, vd, late, constant: 8 calls for a sample of each
    assert SSCCalibration(**BUDGET, budget=400)._affordable(samplers) == 37  # three quarters of 400, by 8
    assert SSCCalibration(**BUDGET, budget=10**9, num_samples=50)._affordable(samplers) == 50
    with pytest.raises(ValueError, match=r"pays for 9 samples .* raise it to 171"):
        SSCCalibration(**BUDGET, budget=100)._affordable(samplers)


@pytest.mark.slow
def test_a_budget_bounds_all_calls_those_of_deficit_and_lag_too(module, datamodule):
    module.sampler = replace(module.sampler, num_steps=4)
    budget = 6000
    monitor = SSCCalibration(**SMALL | {"num_samples": 1000, "num_images": 360, "budget": budget})
    calls = calls_during(lambda: measure(monitor, module, datamodule), module)
    assert 0.5 * budget < calls <= budget


def test_a_budget_that_is_too_small_is_refused_before_it_is_spent(module, datamodule):
    def refused() -> None:
        with pytest.raises(ValueError, match="pays for 3 samples"):
            measure(SSCCalibration(**SMALL | {"budget": 50}), module, datamodule)

    assert calls_during(refused, module) == 0


@pytest.mark.parametrize("wrong", [{"constants": []}, {"solvers": []}, {"num_steps": []}, {"num_samples": 15}])
def test_there_is_no_calibration_without_controls_or_intervals(wrong):
    with pytest.raises(ValueError, match=r"beside its controls|at least 16"):
        SSCCalibration(**SMALL | wrong)


def test_equal_samplers_are_drawn_once(module):
    none = SSCProposal(1.0, 1.0, "quad_in", "none", 1.0, 1.2, 1.0, 1.0, 0.0)
    samplers = ssc_controls(module.sampler, none, [1.0, 1.05], ["euler"], [2])
    assert [str(sampler) for sampler in different(samplers)] == [
        "euler-2-plain",
        "euler-2-vd",
        "euler-2-late",
        "euler-2-constant_1.05",
    ]


@pytest.mark.slow
def test_a_calibration_that_was_stopped_goes_on_and_finds_what_one_left_alone_does(module, datamodule, tmp_path: Path):
    settings = SMALL | {"batch_size": 10}
    found: list = []
    all_calls = calls_during(lambda: found.append(measure(SSCCalibration(**settings), module, datamodule)), module)
    stopping = SSCCalibration(**settings, kept_in=str(tmp_path))
    extract, seen = stopping.encoder.extract, []

    def extract_few(*arguments):
        if len(seen) == 8:
            raise KeyboardInterrupt
        seen.append(1)
        return extract(*arguments)

    stopping.encoder.extract = extract_few  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        measure(stopping, module, datamodule)
    again = SSCCalibration(**settings, kept_in=str(tmp_path))
    second = calls_during(lambda: found.append(measure(again, module, datamodule)), module)
    alone, resumed = found
    assert resumed.rows == alone.rows and resumed.verdicts == alone.verdicts
    spent = 8 * 10 * 2  # of the 8 batches of 10 samples and 2 steps; the proposal's calls come on top
    assert 0 < second < all_calls - spent
    third = calls_during(lambda: measure(SSCCalibration(**settings, kept_in=str(tmp_path)), module, datamodule), module)
    assert third == 0


@pytest.mark.slow
def test_other_weights_are_not_taken_for_these(module, datamodule, tmp_path: Path):
    measure(SSCCalibration(**SMALL, kept_in=str(tmp_path)), module, datamodule)
    with torch.no_grad():
        next(iter(module.backbone.parameters())).add_(0.1)
    again = SSCCalibration(**SMALL, kept_in=str(tmp_path))
    assert calls_during(lambda: measure(again, module, datamodule), module) > 0


def test_other_pictures_under_the_same_name_are_not_taken_for_these(module, datamodule, tmp_path: Path):
    calibration = SSCCalibration(**SMALL, kept_in=str(tmp_path))
    before, (train, test) = calibration._kept(module, datamodule, 0), datamodule._loaded
    assert calibration._kept(module, datamodule, 0) == before
    datamodule._loaded = train, replace(test, images=test.images ^ 1)
    assert calibration._kept(module, datamodule, 0).decided != before.decided


@pytest.mark.parametrize(
    ("solver", "calls"), [("euler", 5), ("heun", 9), ("midpoint", 10), ("rk4", 20), ("euler_maruyama", 5)]
)
def test_a_sample_costs_what_its_solver_asks_of_the_network(solver: str, calls: int):
    assert network_calls(Sampler(solver, 5, s0=1.1, guidance_scale=3.0)) == calls


def test_the_bar_counts_rows_and_those_of_guidance_once(capsys: pytest.CaptureFixture[str]):
    network = nn.Linear(2, 2)
    with counting(network) as bar:
        bar.expect(40)
        bar.begin("plain", rows_per_call(Sampler("euler", 5)))
        network(torch.zeros(10, 2))
        bar.begin("guided", rows_per_call(Sampler("euler", 5, guidance_scale=2.0)))
        network(torch.zeros(20, 2))
        assert (bar.calls, bar._bar.n) == (30, 20)
        bar.skip(20)
        assert bar._bar.n == bar._bar.total and bar._bar.initial == 20
    network(torch.zeros(10, 2))
    assert bar.calls == 30 and not network._forward_hooks


def test_the_bar_goes_whatever_happens():
    network = nn.Linear(2, 2)
    with pytest.raises(KeyboardInterrupt), counting(network):
        raise KeyboardInterrupt
    assert not network._forward_hooks and isinstance(CallBar(network), CallBar)


def test_the_plot_tells_better_worse_and_chance_apart_and_names_scales_in_words():
    spans = {"plain": (0, 0), "vd": (-3, -1), "late": (1, 3), "mean": (-1, 1)}
    rows = [
        {"solver": solver, "num_steps": 5, "scale": scale, "s0": 1.1, "s1": 1.0, "profile": "quad_in",
         "low": low, "high": high, "difference": (low + high) / 2}
        for solver in ("euler", "euler_maruyama") for scale, (low, high) in spans.items()
    ]  # fmt: skip
    ode, sde = plot_differences(rows).axes
    points = [line for line in ode.lines if line.get_marker() not in ("None", "", None)]
    assert [(p.get_marker(), p.get_markerfacecolor() == "white") for p in points] == [
        ("o", True), ("o", False), ("s", False), ("o", True),
    ]  # fmt: skip
    assert [text.get_text() for text in ode.get_yticklabels()] == [
        "without SSC", "VD's 1.1 → 1", "late, 1.1 → 1", "constant 1.1, its mean",
    ]  # fmt: skip
    assert (ode.get_title("left"), sde.get_title("left")) == ("euler, 5 steps", "euler-maruyama, 5 steps")
    assert scale_words(rows[0] | {"scale": "proposal"}) == "proposal 1.1 → 1, quad in"
