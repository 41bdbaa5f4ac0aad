"""Ray without a cluster: a sweep by Hydra's launcher, on a Ray that it starts on this machine. Needs flowexp[ray]."""

from __future__ import annotations

import json

import pytest

from flowexp.training.checkpoints import list_checkpoints

pytest.importorskip("ray")
pytest.importorskip("hydra_plugins.hydra_ray_launcher")
pytestmark = pytest.mark.slow


def test_a_sweep_by_ray_trains_its_jobs_and_ends_with_their_table(shell, tiny):
    launcher = ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=1")
    jobs = ("seed=1,2", "hydra.sweep.dir=ray_sweep")
    shell.run("train", "-m", *tiny, *launcher, *jobs, RAY_USAGE_STATS_ENABLED="0").succeeded()
    sweep = shell.folder / "ray_sweep"
    for job in "01":
        assert list_checkpoints(sweep / job / "checkpoints")
        assert json.loads((sweep / job / "summary.json").read_text())["step"] == 12
    assert len((sweep / "sweep.csv").read_text().splitlines()) == 3
