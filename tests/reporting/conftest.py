"""Run folders as a training leaves them, written by the same Recorder but without training."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger

from flowexp.records.figures import plot_curves
from flowexp.records.recording import Measurement, Recorder
from flowexp.records.verdict import Verdict

SAMPLER = {"solver": "euler", "num_steps": 50, "s0": 1.0}


def probe(step: int, dip: float, protocol: dict[str, Any] | None = None) -> Measurement:
    rows = [{"t": t, "tap": tap, "accuracy": 1 / 3 + t * tap + step / 1e5} for t in (0.0, 0.1, 0.5) for tap in (1, 2)]
    numbers = {"probe/peak": 0.5 + step / 1000, "probe/dip": dip}
    return Measurement(
        "probe", numbers, rows, plot_curves(rows, "t", "accuracy", "tap"), protocol=protocol or {"epochs": 15}
    )


def noise_levels(step: int) -> Measurement:
    train = [{"t": 0.25, "split": "train", "loss": 2.0, "velocity_ratio": None}]
    test = [{"t": t, "split": "test", "loss": 1 + t + 1 / step, "velocity_ratio": 0.9} for t in (0.25, 0.75)]
    numbers = {"noise_levels/loss": 1.5 + 1 / step}
    words = {
        "about": "Errors in units of the data's square.",
        "maps": {"loss": "loss", "velocity_ratio": "velocity ratio"},
    }
    return Measurement("noise_levels", numbers, train + test, protocol={"num_bins": 2}, **words)


def samples(step: int) -> Measurement:
    picture = torch.full((12, 12, 3), step % 256, dtype=torch.uint8)
    return Measurement("samples", image=picture, protocol={"nfe": 50, "sampler": SAMPLER})


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """Writes a run of two measured steps into a folder."""

    def make(folder: Path, name: str = "digits_fm", dip: float = 0.1, num_samples: int = 2000) -> Path:
        logger = CSVLogger(folder, name="csv")
        for step in (1, 2, 3):
            logger.log_metrics({"train/loss": 3.0 / step, "train/grad_norm": 1.0, "train/lr": 1e-4}, step=step)
        recorder = Recorder(folder, [logger])
        frechet = {"num_samples": num_samples, "seed": 0, "sampler": SAMPLER}
        for step in (100, 200):
            for measurement in (noise_levels(step), samples(step), probe(step, dip)):
                recorder.record(measurement, step)
        recorder.record(Measurement("frechet_x", {"frechet/x": 12.3456789}, protocol=frechet), 200)
        logger.finalize("success")
        (folder / "config.yaml").write_text(f"name: {name}\nseed: 0\n")
        origin = {"plan": {"objective": "FlowMatching", "data": "digits"}, "commit": "0123abcd", "seed": 0}
        origin |= {"versions": {"torch": "2.15"}, "machine": {"system": "Linux", "processor": "a CPU", "cores": 2}}
        (folder / "run.json").write_text(json.dumps(origin))
        summary = {
            "step": 200,
            "scalars": {},
            "verdicts": [Verdict("low-noise pathology", evidence="dip of 10.0 points").data()],
        }
        (folder / "summary.json").write_text(json.dumps(summary))
        return folder

    return make


@pytest.fixture(scope="session")
def finished(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody changes."""
    return make_run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture(scope="session")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Opens HTML in a browser without a window and returns the document as it is once its scripts have run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    folder = tmp_path_factory.mktemp("browser")

    def open_page(html: str) -> str:
        page = folder / "page.html"
        page.write_text(html, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--virtual-time-budget=3000"]
        command = [browser, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout

    return open_page
