"""VD Figure 6 of a pipeline of diffusers: the whole recipe on a tiny one, and its norms against loops."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'flowexp[diffusers]'")
pytest.importorskip("transformers", reason="transformers is not installed: pip install 'flowexp[diffusers]'")

sys.path.append(str(Path(__file__).parents[1] / "integrations"))

import tiny_pipelines
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from experiments.vd import fig06_pipelines as fig06
from flowexp import reproduce
from flowexp.flow.randomness import keyed_generator
from flowexp.records.tables import read_csv

NAME = "vd/fig06"


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny SANA."""
    folder = tmp_path_factory.mktemp("a pipeline, saved")
    tiny_pipelines.PIPELINES["sana"]().save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(workdir: Path) -> Path:
    file = workdir / "my prompts.txt"
    file.write_text("a red cat\n\na blue dog on grass\na dog\n")
    return file


def test_the_recipe_draws_and_measures_a_pipeline(
    pipeline: Path, prompts: Path, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [NAME, f"pipeline={pipeline}", f"prompts={prompts}", "budget=smoke", "seeds=2"]
    assert reproduce.main(command) == 0
    results = workdir / "results" / "vd" / "fig06_pipelines" / "smoke"
    assert {file.name for file in results.iterdir()} == {
        "norms.csv", "norms.png", "samples.png", "table.md", "protocol.json"
    }  # fmt: skip
    rows = read_csv(results / "norms.csv")
    levels = [row["t"] for row in rows if row["seed"] == 0]
    assert len(levels) == 2 and levels == sorted(levels) and levels[-1] > 0.99
    first, second = (next(row["ratio"] for row in rows if row["seed"] == seed) for seed in (0, 1))
    assert first != second
    averaged = next(line for line in (results / "table.md").read_text().splitlines() if line[2:3].isdigit())
    assert float(averaged.split("|")[2]) == pytest.approx((first + second) / 2, rel=1e-3)
    (results / "norms.png").unlink()
    assert reproduce.main([*command, "redraw=true"]) == 0
    assert (results / "norms.png").exists()
    assert "best_scale" in capsys.readouterr().out


class Walker:
    """A pipeline of the least kind: Euler's steps along a field that is known."""

    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)

    def __call__(self, prompt: str, latents: Tensor | None = None, generator: Any = None, **_: Any) -> Any:
        x = torch.randn(1, 2, 3, generator=generator) if latents is None else latents
        self.scheduler.set_timesteps(4)
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(self.field(x, t / 1000), t, x, return_dict=False)[0]
        return SimpleNamespace(images=x)

    def field(self, x: Tensor, t: Tensor) -> Tensor:
        return x.sin() + t


def test_the_norms_are_those_of_pairs_loop_by_loop() -> None:
    pipe = Walker()
    rows = fig06.norms(pipe, ["a", "b"], num_pairs=3, call={}, seed=1)
    data = [Walker()("", generator=keyed_generator(1, place)).images for place in range(2)]
    for row in rows:
        t, ratios, vv, vt, cosines = row["t"], [], 0.0, 0.0, []
        for place in range(2):
            for number in range(3):
                noise = torch.randn(1, 2, 3, generator=keyed_generator(1, place, number))
                v = pipe.field((1 - t) * data[place] + t * noise, torch.tensor(t)).flatten().tolist()
                target = (noise - data[place]).flatten().tolist()
                dot, v2, t2 = (
                    sum(a * b for a, b in zip(*each, strict=True)) for each in ((v, target), (v, v), (target, target))
                )
                ratios.append(math.sqrt(v2 / t2))
                cosines.append(dot / math.sqrt(v2 * t2))
                vv, vt = vv + v2, vt + dot
        assert row["ratio"] == pytest.approx(sum(ratios) / 6, rel=1e-4)
        assert row["cosine"] == pytest.approx(sum(cosines) / 6, rel=1e-3, abs=1e-5)
        assert row["best_scale"] == pytest.approx(vt / vv, rel=1e-4)
    assert type(pipe.scheduler) is FlowMatchEulerDiscreteScheduler  # as it was


@pytest.mark.parametrize("left_out", ["pipeline", "prompts"])
def test_what_is_not_given_is_named(
    left_out: str, pipeline: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"pipeline": f"pipeline={pipeline}", "prompts": f"prompts={prompts}"}
    del given[left_out]
    assert reproduce.main([NAME, "budget=smoke", *given.values()]) == 2
    assert f"error: {left_out} must be" in capsys.readouterr().err


def test_a_scheduler_without_ssc_is_named() -> None:
    with pytest.raises(ValueError, match="no SSC for UniPCMultistepScheduler"):
        fig06.ssc_of(UniPCMultistepScheduler())
