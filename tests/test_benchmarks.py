"""Benchmarks measure what they say: the arithmetic of ratios, the bare loop's mathematics, and every case once."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from benchmarks import peers
from benchmarks.__main__ import main, read_command
from benchmarks.cases import CASES, Case
from benchmarks.data import enlarged_digits, one_batch
from benchmarks.fitting import TakingTurns, trainer_config
from benchmarks.networks import label_for
from benchmarks.probing import whole_probe
from benchmarks.sampling import bare_calls, samples
from benchmarks.sizes import BUDGETS, Size, cpu_size, smoke_size
from benchmarks.steps import BareLoop, Training, trained_parameters
from benchmarks.table import Promise, Result, Row, compare, to_markdown
from benchmarks.timing import Comparison, Spread, Timings, left_out, stopwatch
from benchmarks.training import update_by_loop
from flowexp.backbones import create_backbone
from flowexp.data import Digits, to_float
from flowexp.flow.randomness import keyed_generator
from flowexp.flow.sampler import Sampler
from flowexp.objectives import FlowMatching
from flowexp.training.ema import ExponentialMovingAverage
from flowexp.training.step_draws import StepKey

TINY = smoke_size()


class FakeClock:
    """A clock on which time passes only when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


# --- arithmetic ------------------------------------------------------------------------------------------------------


def test_a_stopwatch_returns_the_time_of_one_repeat():
    clock = FakeClock()
    assert stopwatch(lambda: clock.work(3.0), repeats=4, clock=clock)() == 3.0
    assert clock.now == 12.0


def test_contestants_take_turns_and_the_warm_up_does_not_count():
    turns: list[str] = []
    times = count(1)

    def contestant(name: str) -> float:
        turns.append(name)
        return float(next(times))

    timings = Comparison({name: lambda name=name: contestant(name) for name in "AB"}).run(rounds=2, warmup=1)
    assert turns == list("ABBAAB")
    assert timings.seconds == {"A": [4.0, 5.0], "B": [3.0, 6.0]}


def test_what_slows_a_whole_round_down_leaves_the_ratio_alone():
    clock, slowness = FakeClock(), iter([1.0, 1.0, 7.0, 7.0, 2.0, 2.0, 50.0, 50.0])
    contestants = {
        "A": stopwatch(lambda: clock.work(next(slowness)), clock=clock),
        "B": stopwatch(lambda: clock.work(1.5 * next(slowness)), clock=clock),
    }
    timings = Comparison(contestants).run(rounds=3)
    assert timings.ratio("B", "A") == Spread(1.5, 1.5, 1.5, (1.5, 1.5))
    assert timings.time("A") == 7.0


def test_what_a_machine_loses_steadily_no_contestant_loses_alone():
    clock, slowness = FakeClock(), count(10)
    work = stopwatch(lambda: clock.work(next(slowness)), clock=clock)
    timings = Comparison({"A": work, "B": work}).run(rounds=40)
    assert abs(timings.ratio("B", "A").median - 1) < 0.01


def test_a_ratio_is_the_median_of_the_rounds_ratios_not_the_ratio_of_medians():
    timings = Timings({"A": [1.0, 2.0, 10.0], "B": [3.0, 4.0, 10.0]})
    assert timings.ratio("B", "A") == Spread(2.0, 1.5, 2.5, (1.0, 3.0))
    assert timings.time("B") / timings.time("A") == 2.0
    assert Timings({"A": [1.0, 4.0, 2.0], "B": [4.0, 4.0, 2.0]}).ratio("B", "A").median == 1.0


def test_the_spread_of_one_round_is_that_round():
    assert Spread.of([1.3]) == Spread(1.3, 1.3, 1.3, (1.3, 1.3))


@pytest.mark.parametrize(("num_values", "skipped"), [(1, 0), (5, 0), (8, 0), (9, 1), (10, 1), (20, 5), (40, 13)])
def test_the_median_lies_where_tables_of_order_statistics_have_it(num_values: int, skipped: int):
    """E.g. Conover, Practical Nonparametric Statistics: of 10 values the second and the ninth, of 20 the sixth."""
    assert left_out(num_values) == skipped


def test_the_interval_holds_the_median_as_often_as_it_says():
    draws = torch.rand(4000, 20, generator=keyed_generator(0)).tolist()
    spreads = [Spread.of(values).interval for values in draws]
    assert 0.95 <= sum(low <= 0.5 <= high for low, high in spreads) / len(spreads) < 0.975


def test_work_done_so_many_times_takes_so_many_times_as_long():
    timings = Timings({"one": [1.0, 2.0], "all": [5.0, 4.0]}).times("one", 10, "ten")
    assert timings.seconds["ten"] == [10.0, 20.0]
    assert timings.ratio("ten", "all").median == 3.5


def test_a_comparison_without_rounds_is_refused():
    with pytest.raises(ValueError, match="at least 1 round, got 0"):
        Comparison({}).run(rounds=0)


@pytest.mark.parametrize(
    ("promise", "ratio", "holds"),
    [
        (Promise(1.02), 1.02, True),
        (Promise(1.02), 1.03, False),
        (Promise(5, at_least=True), 5.0, True),
        (Promise(5, at_least=True), 4.9, False),
    ],
)
def test_a_promise_bounds_the_median(promise: Promise, ratio: float, holds: bool):
    assert promise.holds(Spread(ratio, 0.0, 100.0, (0.0, 100.0))) is holds


@pytest.mark.parametrize(
    ("interval", "verdict"), [((1.03, 1.05), "NO"), ((1.01, 1.05), "NO, within noise"), ((0.9, 1.0), "yes")]
)
def test_a_verdict_says_whether_noise_could_have_given_it(interval: tuple[float, float], verdict: str):
    assert Promise(1.02).verdict(Spread(sum(interval) / 2, *interval, interval)) == verdict


def test_the_table_shows_the_promise_and_whether_it_holds():
    timings = Timings({"new": [1.04, 1.05, 1.06], "old": [1.0, 1.0, 1.0]})
    row = compare(timings, "new", "old", Promise(1.02))
    lines = to_markdown({"speed": Result([row], ["a note"])}).splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    spans = ["1.045 .. 1.055", "1.040 .. 1.060"]
    assert cells == ["speed", "new", "old", "1.050", *spans, "≤ 1.02", "NO", "1.05 s", "1 s"]
    assert lines[-1] == "- speed: a note"
    assert len({len(line) for line in lines[:3]}) == 1


def test_an_unjudged_table_holds_nobody_to_a_promise():
    row = Row("new", "old", Spread(9.0, 9.0, 9.0, (9.0, 9.0)), (9.0, 1.0), Promise(1.02))
    assert "NO" not in to_markdown({"speed": Result([row])}, judged=False)


# --- the contestants do what they are compared for -------------------------------------------------------------------


def test_digits_are_enlarged_pixel_by_pixel():
    size = Size(resolution=16, num_images=1500, batch_size=4)
    data, (train, _) = enlarged_digits(size), Digits().load()
    assert data.train.images.shape == (1500, 3, 16, 16)
    torch.testing.assert_close(data.train.images[:1437, 2, 1::2, ::2], train.images[:, 0])
    assert torch.equal(data.train.labels[1437:], train.labels[:63])


def test_the_bare_loop_trains_what_flowexp_trains(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Size, "precision", "32-true")  # exact enough to compare
    networks = TINY.create_network(), TINY.create_network()
    images = one_batch(TINY)
    loop, module = BareLoop(networks[0], images, TINY), FlowMatching(networks[1])
    training = Training(networks[1], to_float(images.images), images.labels, TINY)
    step = training.stepper(module)
    for batch in range(3):
        drawn = module.draw(to_float(images.images), images.labels, StepKey(seed=0, step=batch))
        loop.update(drawn.data, drawn.noise, drawn.t)
        step()
    for name, ours in trained_parameters(networks[1]).items():
        torch.testing.assert_close(trained_parameters(networks[0])[name], ours, rtol=1e-4, atol=1e-6)
    for theirs, ours in zip(loop.averages, training.ema.averages.values(), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)


def test_the_bare_loop_sees_every_image_of_a_pass():
    loop = BareLoop(TINY.create_network(), enlarged_digits(TINY).train, TINY)
    seen: list[torch.Tensor] = []
    loop.update = lambda data, noise, t: (seen.append(data), setattr(loop, "num_steps", loop.num_steps + 1))  # type: ignore[method-assign]
    for _ in loop.batches:
        loop.step()
    sums = torch.cat(seen).sum(dim=(1, 2, 3)).sort().values
    torch.testing.assert_close(sums, to_float(loop.images).sum(dim=(1, 2, 3)).sort().values)


def test_the_loop_over_tensors_takes_the_same_average():
    network = TINY.create_network()
    foreach = ExponentialMovingAverage(trained_parameters(network), warmup=False)
    by_loop = ExponentialMovingAverage(trained_parameters(network), warmup=False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=keyed_generator(0)))
    foreach.update()
    update_by_loop(network, by_loop)
    torch.testing.assert_close(by_loop.averages, foreach.averages)


def test_a_turn_of_the_fit_lasts_from_the_other_turn_to_its_own_last_step(monkeypatch: pytest.MonkeyPatch):
    clock = FakeClock()
    monkeypatch.setattr("benchmarks.fitting.time.perf_counter", clock)
    turns = TakingTurns(lambda: clock.work(100.0) or 50.0, num_steps=2, device=torch.device("cpu"))
    module, trainer = FlowMatching(TINY.create_network()), pl.Trainer.__new__(pl.Trainer)
    for step, seconds in enumerate([9.0, 9.0, 1.0, 2.0, 3.0, 4.0], start=1):
        clock.work(seconds)
        monkeypatch.setattr(pl.Trainer, "global_step", step)
        turns.on_train_batch_end(trainer, module, None, None, step - 1)
    assert turns.seconds == {"Lightning": [1.5, 3.5], "bare loop": [50.0, 50.0]}


def test_the_bare_calls_are_as_many_as_the_solvers():
    network, calls = TINY.create_network(), []
    network.register_forward_hook(lambda *_: calls.append(1))
    bare_calls(network, TINY)()
    assert len(calls) == TINY.solver_steps
    samples(Sampler("euler_maruyama", TINY.solver_steps), network, TINY)()
    assert len(calls) == 2 * TINY.solver_steps


def test_the_peers_come_to_our_numbers():
    one, other = torch.randn(60, 6), 1 + torch.randn(60, 6)
    ours = peers.our_distance(one, other)
    assert peers.torch_fidelitys_distance(one, other) == pytest.approx(ours, rel=1e-6)
    assert peers.torchmetrics_distance(one, other) == pytest.approx(ours, rel=1e-6)


def test_the_trainer_is_that_of_conf():
    config = trainer_config(TINY, max_steps=7)
    assert config.trainer.max_steps == 7
    assert config.trainer.accumulate_grad_batches == 1
    assert (config.strategy, config.log_every_n_steps) == ({}, TINY.turn_steps)


# --- every case, once ------------------------------------------------------------------------------------------------


@cache
def result_of(name: str) -> Result:
    return CASES[name].run(TINY)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_case_runs_and_says_what_it_compares(name: str):
    result, case = result_of(name), CASES[name]
    assert result.rows and all(row.ratio.median > 0 for row in result.rows)
    assert re.search(r"\bagainst\b", case.summary)
    assert re.search("12 x 384 x 6|unet_nano and mmdit_nano", " ".join(case.paragraphs))  # which network it was


@pytest.mark.slow
def test_the_promises_of_the_project_are_in_the_table():
    rows = [(name, row) for name in CASES for row in result_of(name).rows if row.promise]
    promises = {(name, row.this): str(row.promise) for name, row in rows if row.against != "SiT"}  # where there is AMX
    assert promises == {
        ("lightning", "Lightning"): "≤ 1.03",
        ("objectives", "LCF"): "≤ 1.02",
        ("objectives", "MAFM"): "≤ 1.02",
        ("loader", "batch"): "≤ 0.01",
        ("solver", "Euler"): "≤ 1.02",
        ("solver", "Euler + SSC"): "≤ 1.02",
        ("solver", "Euler-Maruyama"): "≤ 1.02",
        ("probe", "10 levels one by one"): "≥ 5",
        ("probe", "20 levels one by one"): "≥ 10",
        ("evaluate", "bare network and encoder"): "≥ 0.95",
        ("evaluate", "bare passes to the tap"): "≥ 0.95",
        ("latents", f"batch of {TINY.num_latents:,}"): "≤ 1.5",
        ("latents", f"encode of {TINY.num_latents:,}"): "≤ 1.2",
        ("start", "flowexp.train"): "≤ 1",
        ("step", "bf16"): "≤ 1.3",
        ("peers", "Frechet distance"): "≤ 1",
        ("peers", "FM step"): "≤ 1.02",
        ("peers", "Euler"): "≤ 1.02",
    }


def test_every_case_has_its_own_number_of_rounds_unless_it_is_given_one():
    asked: list[int] = []
    case = Case(lambda size, rounds: asked.append(rounds) or Result([]), rounds=7)
    case.run(cpu_size())
    case.run(TINY)
    assert asked == [7, 1]


@pytest.mark.parametrize("name", ["unet_nano", "mmdit_nano"])
def test_the_condition_of_a_network_lies_beside_its_latents(name: str):
    latents = torch.zeros(2, 4, 8, 8, device="meta")
    network = create_backbone(name, resolution=8, channels=4)
    assert label_for(network, latents).device == latents.device


def test_a_probe_has_no_more_test_images_than_there_are_digits():
    many = replace(TINY, probe_images=2048, num_images=2048)
    assert set(whole_probe(many)) == {"one level in the loop", "10 levels", "20 levels"}


def test_a_size_may_have_fewer_rounds_than_a_case():
    sizes = [Size(), Size(most_rounds=10), Size(most_rounds=10, rounds=12)]
    assert [CASES["objectives"].rounds_at(size) for size in sizes] == [40, 10, 12]


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_prints_its_report_and_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    report = tmp_path / "new" / "report.md"
    monkeypatch.setattr("benchmarks.__main__.SO_FAR", tmp_path / "so_far.md")
    assert main(["cases=ema,loader", "budget=smoke", f"output={report}"]) == 0
    printed, written = capsys.readouterr().out, report.read_text()
    assert written.split() == printed.split()
    assert "| ema    | EMA update |" in written and "- **loader** (1 round," in written
    assert f"torch {torch.__version__}" in written and f"{torch.get_num_threads()} threads on" in written


def test_a_report_is_kept_of_a_run_of_all_cases():
    assert read_command(["budget=cpu"]).output.parts[-3:] == ("docs", "results", "benchmarks.md")
    assert read_command(["budget=cpu", "cases=ema"]).output is None
    assert read_command(["budget=smoke"]).output is None
    assert read_command(["cases=solver,ema", "budget=smoke", "rounds=3"]).cases == ["solver", "ema"]


def test_a_case_that_fails_leaves_the_others_their_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def broken(size: Size, rounds: int) -> Result:
        """A case."""
        raise RuntimeError("out of order")

    so_far = tmp_path / "build" / "so_far.md"
    monkeypatch.setattr("benchmarks.__main__.SO_FAR", so_far)
    monkeypatch.setitem(CASES, "loader", Case(broken, rounds=1))
    assert main(["cases=loader,ema", "budget=smoke", f"output={tmp_path / 'report.md'}"]) == 1
    captured = capsys.readouterr()
    assert "out of order" in captured.err and "EMA update" in captured.out
    assert f"not measured: loader; the others are in {so_far}" in captured.err
    assert not (tmp_path / "report.md").exists() and "EMA update" in so_far.read_text()


@pytest.mark.parametrize(
    ("argument", "answer"),
    [
        ("cases=solvers", "there is no case solvers; did you mean solver?"),
        ("case=solver", "there is no option case; did you mean cases?"),
        ("budget=smok", "did you mean smoke?"),
        ("rounds=0", "rounds must be at least 1, got 0"),
    ],
)
def test_what_is_not_there_is_answered_with_the_nearest(argument: str, answer: str, capsys: pytest.CaptureFixture[str]):
    assert main([argument]) == 2
    assert answer in capsys.readouterr().err


def test_a_gpu_is_asked_for_only_where_there_is_one(capsys: pytest.CaptureFixture[str]):
    if torch.accelerator.is_available():
        pytest.skip("this machine has one")
    assert main(["budget=gpu"]) == 2
    assert "needs an accelerator" in capsys.readouterr().err


def test_the_help_names_every_case(capsys: pytest.CaptureFixture[str]):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(case.summary in shown for case in CASES.values()) and set(BUDGETS) == {"smoke", "cpu", "gpu"}
