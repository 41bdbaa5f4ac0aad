"""`evaluate seed=`: VD Table 12 measures one network with samples of several seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fashion_mnist")]
SAMPLES = ("callbacks=samples", "callbacks.samples.num_samples=4", "sampler.num_steps=4", "device=cpu")


def test_samples_are_those_of_the_runs_seed_unless_another_is_said(in_process, workdir: Path):
    grids = {}
    for seed in ("null", "0", "42"):
        chosen = (*SAMPLES, f"seed={seed}", f"run_dir=seed_{seed}")
        assert in_process("evaluate", "run=zoo:fashion_mafm", *chosen) == 0
        grids[seed] = next((workdir / f"seed_{seed}" / "measurements/samples").glob("*.png")).read_bytes()
    assert grids["null"] == grids["0"] != grids["42"]
