"""Optimizers by the images to a given loss: the arithmetic, what a run is, and that a finished one is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import optimizers
from benchmarks.optimizers import BATCH, Bench, Curve, Run, Score
from flowexp.data import Digits, ImageSet

FALLING = Curve({0: 3.0, 10: 2.0, 20: 1.0}, 0.1)


@pytest.mark.parametrize(("target", "steps"), [(2.0, 10), (1.5, 15), (2.5, 5), (1.0, 20)])
def test_images_are_counted_to_where_the_loss_reaches_the_target(target: float, steps: int):
    assert FALLING.images_to(target) == BATCH * steps


def test_a_target_that_is_not_reached_has_no_number():
    assert FALLING.images_to(0.9) is None


def test_the_first_time_counts():
    assert Curve({0: 3.0, 10: 1.0, 20: 2.0, 30: 1.0}, 0.1).images_to(1.0) == BATCH * 10


def test_a_loss_between_two_is_interpolated():
    assert FALLING.loss_after(15) == 1.5 and FALLING.loss_after(20) == 1.0


class FewImages(Bench):
    """Enlarged digits in the place of Fashion-MNIST."""

    @property
    def data(self) -> tuple[ImageSet, ImageSet]:  # type: ignore[override]
        sets = [each.subset(128) for each in Digits().load()]
        larger = [torch.nn.functional.pad(each.images, (10, 10, 10, 10)) for each in sets]
        return tuple(ImageSet(images, each.labels) for images, each in zip(larger, sets, strict=True))  # type: ignore[return-value]


@pytest.fixture
def bench(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(optimizers, "NUM_TESTED", 16)
    monkeypatch.setattr(optimizers, "EVERY", 1)
    monkeypatch.setattr(optimizers, "BATCH", 8)
    return FewImages()


@pytest.mark.parametrize("optimizer", optimizers.RATES)
def test_a_run_learns_and_is_kept(bench: Bench, optimizer: str, monkeypatch: pytest.MonkeyPatch):
    run = Run(optimizer, 4e-3, seed=0, steps=3)
    curve = bench.curve(run)
    assert list(curve.losses) == [0, 1, 2, 3] and curve.losses[3] < curve.losses[0]
    monkeypatch.setattr(FewImages, "train", None)
    assert bench.curve(run) == curve


def test_runs_of_a_seed_see_the_same_and_others_not(bench: Bench):
    module = optimizers.FlowMatching(optimizers.create_network(0))
    one, same, other = (next(bench.batches(module, seed)) for seed in (0, 0, 1))
    for part in ("data", "noise", "t"):
        assert torch.equal(getattr(one, part), getattr(same, part))
        assert not torch.equal(getattr(one, part), getattr(other, part))


def test_the_best_rate_is_that_of_the_lowest_loss_and_none_that_diverges(monkeypatch: pytest.MonkeyPatch):
    ends = dict(zip(optimizers.RATES["adamw"], (0.5, 0.3, float("nan"), 0.4), strict=True))
    monkeypatch.setattr(Bench, "curve", lambda self, run: Curve({0: 1.0, run.steps: ends[run.lr]}, 0.1))
    assert optimizers.best_rate(Bench(), "adamw", 48) == optimizers.RATES["adamw"][1]


def test_a_line_has_the_ratio_to_adamw_of_the_same_seed():
    adamw = Score("adamw", 2e-3, [FALLING, FALLING])
    faster = Score("muon", 8e-3, [Curve({0: 3.0, 10: 1.0}, 0.2), FALLING])
    cells = optimizers.cells(faster, adamw, target=1.0)
    assert cells == [
        "muon", "0.008 (an end of the grid)", "640, 1,280", "0.75 (0.50 to 1.00)", "1.0000, 1.0000", "150",
    ]  # fmt: skip
    assert optimizers.cells(faster, adamw, target=0.5)[2:4] == ["not reached, not reached", ""]


def test_the_report_names_the_target_and_what_was_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(optimizers, "find_spec", lambda package: None)
    text = optimizers.report([Score("adamw", 2e-3, [FALLING])], steps=15, seeds=1)
    assert "target: loss 2.0000, AdamW's after 640 images, mean of 1 seeds" in text
    assert "left out: schedule_free, which needs `pip install schedulefree`" in text and "| adamw |" in text


def test_an_unknown_option_is_refused(capsys: pytest.CaptureFixture[str]):
    assert optimizers.main(["step=3"]) == 2
    assert "there is no option step" in capsys.readouterr().err
