"""Values that pass every constructor and would waste a training are refused, or warned of, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowexp.cli.validate import _OPEN, check_like
from flowexp.flow.argument_kinds import check_kind, check_options
from flowexp.flow.interpolants import Linear
from flowexp.flow.sampler import Sampler
from flowexp.flow.solvers import Dopri5


def test_every_key_that_a_command_leaves_open_has_its_kind() -> None:
    from omegaconf import OmegaConf

    from flowexp.cli.composing import config_folder

    for file in config_folder().glob("*.yaml"):
        keys = OmegaConf.to_container(OmegaConf.load(file))
        assert isinstance(keys, dict)
        assert not {key for key, value in keys.items() if value is None} - {*_OPEN}, file.name


@pytest.mark.parametrize("value", ["cat", [1, 2], 1.5, True])
def test_a_label_is_a_whole_number(value: object) -> None:
    with pytest.raises(ValueError, match="label must be a whole number or null, got "):
        check_like({"label": value}, {"label": None})  # type: ignore[arg-type]
    check_like({"label": None}, {"label": None})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        ([0.9], tuple[float, float], "betas must have 2 values, got \\[0.9\\]"),
        (["a", 0.9], tuple[float, float], "each of betas must be a number, got 'a'"),
        ([1, "b"], list[int] | None, "each of betas must be a whole number, got 'b'"),
        (True, float, "betas must be a number, got true"),
        (float("inf"), float, "betas must be finite"),
    ],
)
def test_the_entries_of_a_list_have_kinds_too(value: object, hint: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_kind("betas", value, hint)


def test_options_are_compared_with_what_takes_them() -> None:
    check_options("sampler.solver_options", Dopri5, {"rtol": 1e-3, "atol": 1})
    with pytest.raises(ValueError, match=r"no key sampler\.solver_options\.foo: .* takes num_steps, atol, rtol"):
        check_options("sampler.solver_options", Dopri5, {"foo": 1})


def test_weights_that_are_not_finite_are_told_by_dopri5_in_a_sentence() -> None:
    class Broken:
        def __call__(self, x: torch.Tensor, t: torch.Tensor, label: object = None) -> torch.Tensor:
            return x * float("nan")

        def null_condition(self, label: object) -> None:
            return None

    with pytest.raises(ValueError, match=r"dopri5 can take no step .* the velocity is NaN or infinite"):
        Sampler("dopri5").sample(Broken(), Linear(), range(2), (1, 4, 4), seed=0)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_warmup_longer_than_the_training_is_warned_of(
    in_process: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = ["data.train_size=64", "data.batch_size=16", "+backbone.depth=1", "+backbone.width=16", "+backbone.heads=2"]
    settings = [*tiny, "trainer.max_steps=2", "callbacks=none", "progress_bar=false", "trainer.accelerator=cpu"]
    with pytest.warns(UserWarning, match=r"the warm-up of 1,000 steps .* the learning rate ends at 0\.2 %"):
        assert in_process("train", *settings, "lr_schedule=warmup", "lr_schedule.warmup_steps=1000", "run_dir=x") == 0


@pytest.mark.slow
def test_a_metric_that_no_job_measures_is_named(
    in_process: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flowexp.cli.launch import _optimized
    from flowexp.records.run_folder import RunFolder

    measured = {"noise_levels/loss": 1.5}
    assert _optimized("noise_level/loss", RunFolder(workdir), measured) is None
    assert "optimized_metric=noise_level/loss is no number of" in (told := capsys.readouterr().err)
    assert "did you mean noise_levels/loss?" in told
    assert _optimized("noise_levels/loss", RunFolder(workdir), measured) == 1.5
    assert _optimized(None, RunFolder(workdir), measured) is None and not capsys.readouterr().err


def test_machines_that_nobody_starts_are_not_waited_for(
    in_process: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process("train", "trainer.num_nodes=2", "strategy=ddp", "run_dir=x") == 2
    assert "trainer.num_nodes=2 waits for processes on 2 machines" in capsys.readouterr().err
