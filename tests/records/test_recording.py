"""A measurement's table, picture and protocol lie in the run's folder, and the history survives a resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger

from flowexp.records.figures import plot_curves
from flowexp.records.recording import Measurement, Recorder, maps_over_steps, read_history
from flowexp.records.tables import read_csv
from flowexp.records.tracking import wandb_logger
from flowexp.records.verdict import Verdict

ROWS = [{"t": 0.1, "split": "test", "loss": 2.0}, {"t": 0.2, "split": "test", "loss": 1.5}]


@pytest.mark.slow
def test_a_measurement_leaves_table_picture_and_protocol(tmp_path: Path) -> None:
    figure = plot_curves(ROWS, "t", "loss")
    stem = Recorder(tmp_path).record(Measurement("curve", {"curve/loss": 1.75}, ROWS, figure, protocol={"nfe": 50}), 7)
    assert stem == tmp_path / "measurements" / "curve" / "step_00000007"
    assert read_csv(stem.with_suffix(".csv")) == ROWS
    assert Image.open(stem.with_suffix(".png")).width > 100
    content = json.loads(stem.with_suffix(".json").read_text())
    assert content["scalars"] == {"curve/loss": 1.75} and content["protocol"] == {"nfe": 50}


def test_an_image_is_kept_pixel_by_pixel(tmp_path: Path) -> None:
    image = torch.randint(0, 256, (5, 4, 3), dtype=torch.uint8)
    stem = Recorder(tmp_path).record(Measurement("samples", image=image), 1)
    kept = torch.from_numpy(np.array(Image.open(stem.with_suffix(".png"))))
    assert torch.equal(kept, image)


def test_scalars_reach_the_loggers(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="csv")
    Recorder(tmp_path, [logger]).record(Measurement("m", {"m/x": 3.0}), 5)
    logger.save()
    assert read_csv(Path(logger.log_dir) / "metrics.csv") == [{"m/x": 3.0, "step": 5.0}]


@pytest.mark.slow
def test_the_card_of_a_number_stands_beside_it_in_wandb(tmp_path: Path) -> None:
    logger = wandb_logger(tmp_path, "run", {}, offline=True)
    Recorder(tmp_path, [logger]).record(Measurement("m", {"fid": 3.0}, protocol={"cards": {"fid": "ab12cd34"}}), 5)
    assert logger.experiment.summary["card/fid"] == "ab12cd34"
    logger.experiment.finish()


@pytest.mark.slow
def test_wandb_offline_says_nothing_beside_what_the_run_says(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wandb_logger(tmp_path, "run", {}, offline=True).experiment.finish()
    out, err = capfd.readouterr()
    assert "wandb:" not in out + err


def test_a_step_measured_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for step, value in [(10, 1.0), (20, 2.0), (10, 3.0)]:
        recorder.record(Measurement("m", {"m/x": value}), step)
    assert [(entry["step"], entry["scalars"]["m/x"]) for entry in read_history(tmp_path)] == [(10, 3.0), (20, 2.0)]


def test_a_run_without_measurements_has_an_empty_history(tmp_path: Path) -> None:
    assert read_history(tmp_path) == []


@pytest.mark.slow
def test_a_map_over_steps_is_drawn_from_the_second_step_on(tmp_path: Path) -> None:
    recorder, drawn = Recorder(tmp_path), tmp_path / "measurements/curve/over_steps.png"
    train = {"t": 0.15, "split": "train", "loss": 9.0}
    for step, factor in [(10, 1.0), (20, 3.0)]:
        assert not drawn.exists()
        rows = [train, *({**row, "loss": factor * row["loss"]} for row in ROWS)]
        recorder.record(Measurement("curve", rows=rows, maps={"loss": "loss"}), step)
    assert Image.open(drawn).width > 400
    assert maps_over_steps(drawn.parent, {"loss": "loss"}) == {
        "loss": {(10, 0.1): 2.0, (10, 0.2): 1.5, (20, 0.1): 6.0, (20, 0.2): 4.5}
    }


def test_a_map_has_each_layer_and_probe_by_itself(tmp_path: Path) -> None:
    for step in (1, 2):
        rows = [{"t": 0.5, "tap": tap, "reading": "knn", "accuracy": 0.1 * tap} for tap in (2, 4)]
        Recorder(tmp_path).record(Measurement("probe", rows=rows), step)
    maps = maps_over_steps(tmp_path / "measurements/probe", {"accuracy": "accuracy"})
    assert list(maps) == ["accuracy, knn reading, tap 2", "accuracy, knn reading, tap 4"]
    assert maps["accuracy, knn reading, tap 4"] == {(1, 0.5): 0.4, (2, 0.5): 0.4}


def test_a_map_says_in_words_what_its_colours_mean(tmp_path: Path) -> None:
    for step in (1, 2):
        rows = [{"t": 0.5, "tap": 4, "ratio": 0.1 * step}]
        Recorder(tmp_path).record(Measurement("norms", rows=rows), step)
    maps = maps_over_steps(tmp_path / "measurements/norms", {"ratio": "|v| / |v*|"})
    assert maps == {"|v| / |v*|, tap 4": {(1, 0.5): 0.1, (2, 0.5): 0.2}}


@pytest.mark.slow
def test_a_curve_over_the_noise_level_is_a_line_plot_of_wandb(tmp_path: Path) -> None:
    cells = [(0.1, "train", 2, 0.5), (0.2, "test", 2, None), (0.1, "test", 2, 0.6), (0.1, "test", 4, 0.7)]
    rows = [dict(zip(("t", "split", "tap", "ratio"), row, strict=True)) for row in cells]
    logger = wandb_logger(tmp_path, "run", {}, offline=True)
    Recorder(tmp_path, [logger]).record(Measurement("norms", rows=rows, maps={"ratio": "|v| / |v*|"}), 5)
    folder = Path(logger.experiment.dir) / "media/table/norms"
    logger.experiment.finish()
    (table,) = [json.loads(path.read_text()) for path in folder.glob("ratio_over_t*.json")]
    assert table["columns"] == ["t", "ratio", "line"]
    assert table["data"] == [[0.1, 0.5, "train, tap 2"], [0.1, 0.6, "test, tap 2"], [0.1, 0.7, "test, tap 4"]]


def test_what_a_measurement_says_in_words_is_kept(tmp_path: Path) -> None:
    spoken = Measurement("m", about="lengths in metres", verdicts=["long"], maps={"x": "length"})
    content = json.loads(Recorder(tmp_path).record(spoken, 1).with_suffix(".json").read_text())
    assert (content["about"], content["maps"]) == ("lengths in metres", {"x": "length"})
    assert [Verdict.of(verdict) for verdict in content["verdicts"]] == [Verdict("long")]
