"""Parts of the demo: the judge of digits, the sheet, its sentences, and lines that train at the same time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments import side_by_side
from flowexp.cli.recipes import together
from flowexp.cli.recipes.comparing.judge import Judge
from flowexp.cli.recipes.comparing.sheets import first_of_each_class, plot_sheet
from flowexp.data import Digits


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = Digits()
    data.setup("fit")
    return data


def test_the_judge_knows_real_digits_and_is_sure_of_no_noise(digits: Digits) -> None:
    few = torch.cat([torch.nonzero(digits.train.labels == label).flatten()[:40] for label in range(4)])
    judge = Judge(digits.train.images[few], digits.train.labels[few])
    seen = digits.test.labels < 4
    likelihoods = judge.likelihoods(digits.test.images[seen])
    assert np.allclose(likelihoods.sum(axis=1), 1)
    assert (likelihoods.argmax(axis=1) == digits.test.labels[seen].numpy()).mean() > 0.95
    noise = torch.randint(0, 256, (200, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert (judge.likelihoods(noise).max(axis=1) > 0.9).mean() < 0.05 < (likelihoods.max(axis=1) > 0.9).mean()


def test_the_sheet_has_a_column_for_each_class(digits: Digits) -> None:
    chosen = first_of_each_class(digits.test, 3, 10)
    assert digits.test.labels[chosen].tolist() == [*range(10)] * 3
    pictures = digits.test.images[chosen]
    figure = plot_sheet({"real digits": pictures, "FM": pictures, "LCF": pictures}, [str(n) for n in range(10)])
    drawn = [axes for axes in figure.axes if axes.get_images()]
    assert [axes.get_title(loc="left") for axes in drawn] == ["real digits", "FM", "LCF"]
    assert [label.get_text() for label in drawn[0].get_xticklabels()] == [str(n) for n in range(10)]


def tables(**changes: float) -> dict[str, list[dict[str, Any]]]:
    """Those of a run of the demo, with other numbers of FM."""
    one = {
        "sure": 0.8, "as asked": 0.95, "judged": 300.0, "sure of real": 0.9, "as asked of real": 1.0, "tested": 360.0,
        "probe/at_clean": 0.9, "probe/dip": 0.0, "probe/dip_se": 0.01,
    }  # fmt: skip
    numbers = [{"method": method, **one} for method in ("FM", "LCF", "MAFM")]
    numbers[0] |= changes
    lengths = {"FM": 0.8, "LCF": 0.8, "MAFM": 0.9, "FM with SSC": 0.85}
    levels = [{"method": method, "t": 0.5, "velocity_ratio": length} for method, length in lengths.items()]
    pixels = [{"reading": "converged", "features": "pixels", "accuracy": 0.986}]
    return {"numbers": numbers, "noise_levels": levels, "probe_curve": pixels}


def test_differences_within_chance_are_told_as_none() -> None:
    samples, features, velocities = side_by_side.explain(tables(sure=0.83))
    assert "83.0 % (FM), 80.0 % (LCF) and 80.0 % (MAFM)" in samples and "no two methods differ" in samples
    assert "no curve falls by more than 2 standard errors" in features and "raw pixels in 98.6 %" in features
    assert "one training of each, whose scatter is not known" in velocities


def test_differences_beyond_chance_are_told_with_their_direction() -> None:
    samples, features, _ = side_by_side.explain(tables(sure=0.95, **{"probe/dip": 0.08}))
    assert "FM is above LCF and FM is above MAFM" in samples
    assert "8.0 % (FM) are lost from the curve's peak" in features and "no curve falls" not in features


def test_the_table_has_a_column_for_each_method_and_fits_a_terminal() -> None:
    rows = side_by_side.summarise(tables())
    assert [*rows[0]] == ["", "FM", "LCF", "MAFM", "real", "better"]
    assert {row[""]: row["FM"] for row in rows}["with SSC, without training"] == "0.850"
    widths = [max(len(str(row[column])) for row in rows) for column in rows[0]]
    assert sum(widths) + 3 * len(widths) + 1 <= 80


def test_lines_that_train_together_show_their_steps_and_keep_all_they_print(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say = "import sys; print('the plan'); print('step 5 of 10, loss 0.5, 3 steps/s', file=sys.stderr)"
    monkeypatch.setattr(together, "command_of", lambda words: [sys.executable, "-c", say])

    def run_of(overrides: list[str], train: Any, tell: Any) -> str:
        train([*overrides])
        return f"run of {overrides[0]}"

    monkeypatch.setattr(together, "run_of", run_of)
    runs = together.train_together({"FM": ["a"], "LCF": ["b"]}, 2, workdir / "logs")
    assert runs == {"FM": "run of a", "LCF": "run of b"}
    told = capsys.readouterr().err
    assert "FM   step 5 of 10, loss 0.5" in told and "LCF  step 5 of 10" in told and "plan" not in told
    assert sorted((workdir / "logs/FM.txt").read_text().splitlines()) == [
        "step 5 of 10, loss 0.5, 3 steps/s",
        "the plan",
    ]


def test_a_line_that_fails_ends_with_its_last_words(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(together, "command_of", lambda words: [sys.executable, "-c", "print('error: no'); exit(3)"])
    monkeypatch.setattr(together, "run_of", lambda overrides, train, tell: train([]))
    with pytest.raises(SystemExit) as stopped:
        together.train_together({"FM": []}, 1, workdir / "logs")
    assert stopped.value.code == 3 and "FM failed, see" in capsys.readouterr().err
