"""What a person gets wrong is answered by a sentence with the nearest right word, and by no stack trace."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from flowexp.cli.launch import COMMANDS, config_folder
from flowexp.data.datasets.cifar10 import CIFAR10
from flowexp.flow.choices import nearest
from flowexp.records.run_folder import RunFolder

EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("*.yaml"))


@pytest.fixture
def complaint(in_process: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command that must fail, and returns the sentence that it printed."""

    def run(command: str, *arguments: str) -> str:
        code = in_process(command, *arguments)
        printed = capsys.readouterr()
        assert code == 2, printed.out + printed.err
        assert "Traceback" not in printed.out + printed.err
        (sentence,) = re.findall(r"^error: (.*)$", printed.err, re.MULTILINE)
        return sentence

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong, right",
    [
        (["objective=lcf", "objective.Tmin=20"], "T_min"),
        (["objective=lfc"], "lcf"),
        (["data=cifar11"], "cifar10"),
        (["sampler=hein"], "heun"),
        (["sampler.solvr=heun"], "solver"),
        (["optimiser.lr=1"], "optimizer.lr"),
        (["traner.max_steps=1"], "trainer.max_steps"),
        (["experiment=digits_lfc"], "digits_lcf"),
        (["seeed=1"], "seed"),
        (["terms=[repa,dispersiv]"], "dispersive"),
        (["+traner.max_steps=1"], "trainer"),
        (["+seeds=1"], "seed"),
    ],
)
def test_a_wrong_key_or_group_names_the_nearest(complaint, wrong: list[str], right: str):
    assert f"did you mean {right}?" in complaint("train", *wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["objective.T_min=10"], "there is no key objective.T_min, which objective=lcf has. "),
        (["time_sampler.m=1"], "there is no key time_sampler.m, which time_sampler=logit_normal has. "),
        (["+terms=repa"], "several values for terms: give one, and no plus before it, as in terms=NAME"),
        (["+zzz=1"], "nothing reads +zzz=1: leave it out. `python -m flowexp.train --help` shows all keys"),
        (["seed=-1"], "seed must lie in 0..4294967295, got -1"),
    ],
)
def test_what_another_choice_would_read_is_told_from_what_nobody_does(complaint, arguments: list[str], words: str):
    assert words in complaint("train", *arguments, "callbacks=none", "trainer.accelerator=cpu", "run_dir=x")


@pytest.mark.slow
def test_a_value_of_ones_own_may_be_added_where_others_refer_to_it(in_process, workdir: Path, monkeypatch):
    monkeypatch.setattr("flowexp.train.run", lambda config, folder: folder.begin(config))
    assert in_process("train", "+mine=7", "seed=${mine}", "run_dir=x") == 0
    assert RunFolder(workdir / "x").config().seed == 7


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_knows_its_own_keys(complaint, command: str):
    sentence = complaint(command, "run_dirr=x")
    assert "did you mean run_dir?" in sentence
    assert f"flowexp.{command} --help" in sentence


@pytest.mark.slow
def test_a_sweep_over_a_wrong_name_runs_no_job(complaint, workdir: Path):
    assert "did you mean lcf?" in complaint("train", "-m", "objective=fm,lfc")
    assert not list(workdir.rglob("config.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            ["objective=lcf", "objective.T_min=5000"],
            "objective.T_min counts noise levels of 1000 and must lie in [0, 1000], got 5000",
        ),
        (["objective=lcf", "objective.tau=0"], "objective.tau must be positive, got 0"),
        (["objective=lcf", "objective.tap=9"], "objective.tap must lie in 1..6, got 9"),
        (["backbone.name=dit_s3"], "did you mean dit_s2?"),
        (["sampler.solver=heum"], "heun"),
        (["sampler.num_steps=0"], "num_steps of at least 1, got 0"),
        (["optimizer.lr=-1"], "optimizer.lr must be positive, got -1"),
        (["objective=lcf", "objective.T_min=-1"], "must lie in [0, 1000], got -1"),
        (["objective=lcf", "+objective.foo=1"], "there is no key objective.foo; LocalContrastiveFlow has T_min"),
        (["sampler.s0=abc"], "sampler.s0 must be a number, got 'abc'"),
        (
            ["class_conditional=false", "sampler.guidance_scale=2"],
            "sampler.guidance_scale=2 needs a network that knows the label",
        ),
        (["data.batch_size=0"], "batch_size must be at least 1, got 0"),
        (["trainer.max_steps=0"], "trainer.max_steps must be at least 1, or -1 for no limit; got 0"),
        (["trainer.max_steps=ten"], "trainer.max_steps must be a whole number, got 'ten'"),
        (["+trainer.maxsteps=10"], "there is no key trainer.maxsteps; did you mean max_steps?"),
        (["log_every_n_steps=0"], "log_every_n_steps must be at least 1, got 0"),
        (["compile=maybe"], "compile must be true or false, got 'maybe'"),
        (["data.train_size=5000"], "at most the 1437 training images of digits, got 5000"),
        (["data.batch_size=5000"], "lower data.batch_size or raise data.train_size"),
        (["trainer.max_steps=-1"], "give trainer.max_steps or trainer.max_epochs"),
        (["ckpt=nowhere"], "ckpt=nowhere is neither a checkpoint nor a run folder"),
    ],
)
def test_a_value_out_of_range_is_told_what_is_allowed(complaint, workdir: Path, arguments: list[str], words: str):
    assert words in complaint("train", *arguments, "callbacks=none", "trainer.accelerator=cpu", "run_dir=x")
    assert "Traceback" in (workdir / "x" / "log.txt").read_text()  # for whoever wants to know more


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_named(complaint, workdir: Path):
    (workdir / "file").write_text("")
    assert complaint("train", "run_dir=file/run").endswith("file/run: not a directory")


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def interrupted_in_lightning(*_: object) -> None:
    """As Lightning ends a training in which a second Ctrl-C was typed."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


@pytest.mark.slow
@pytest.mark.parametrize("run", [interrupted, interrupted_in_lightning])
def test_ctrl_c_says_where_the_run_lies_and_how_it_goes_on(in_process, workdir: Path, monkeypatch, capsys, run):
    monkeypatch.setattr("flowexp.train.run", run)
    assert in_process("train", "run_dir=x") == 130
    assert f"stopped: {workdir / 'x'}; the same command with ckpt=auto continues" in capsys.readouterr().err


@pytest.mark.slow
def test_a_device_without_memory_is_a_matter_of_the_batch(complaint, monkeypatch: pytest.MonkeyPatch):
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("flowexp.train.run", exhausted)
    assert "lower data.batch_size" in complaint("train", "run_dir=x")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is not None, reason="it is installed")
def test_a_launcher_that_is_not_installed_is_named_with_its_package(complaint):
    sentence = complaint("train", "-m", "seed=1,2", "hydra/launcher=ray")
    assert sentence == "hydra/launcher=ray needs a package: pip install hydra-ray-launcher"


@pytest.mark.slow
def test_ckpt_last_without_a_run_says_what_else_to_give(complaint):
    assert "use ckpt=auto to start one" in complaint("train", "ckpt=last")


@pytest.mark.slow
def test_missing_data_without_a_network_say_where_to_put_the_files(complaint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    sentence = complaint("train", "data=cifar10", "data.root=here", "run_dir=x")
    assert "here/cifar-10-python.tar.gz is missing and could not be downloaded" in sentence
    assert "choose data=digits" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_a_folder_that_is_no_run_is_refused_and_left_alone(complaint, workdir: Path, command: str):
    (workdir / "holiday").mkdir()
    assert "holiday is no run folder" in complaint(command, "run=holiday")
    assert not list((workdir / "holiday").iterdir())


@pytest.mark.parametrize("command", ["sample", "evaluate", "diagnose"])
def test_a_run_must_be_given(complaint, command: str):
    assert "run is needed: the folder of a training run" in complaint(command)


def test_nothing_near_is_not_suggested():
    assert nearest("zzz", ["T_min", "tau"]) == ""


def test_a_fault_of_the_code_keeps_its_stack_trace(in_process, monkeypatch: pytest.MonkeyPatch, workdir: Path):
    def fault(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr("flowexp.cli.assembly.building.build_datamodule", fault)
    with pytest.raises(TypeError, match="a bug"):
        in_process("train", "run_dir=x")
    assert "TypeError: a bug" in (workdir / "x" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("spelling", ["experiment=digits_lcf", "+experiment=digits_lcf"])
def test_an_experiment_is_given_with_or_without_a_plus(in_process, workdir: Path, spelling: str, monkeypatch):
    monkeypatch.setattr("flowexp.train.run", lambda config, folder: folder.begin(config))
    assert in_process("train", spelling, "objective.lambda=2", "run_dir=x") == 0
    config = RunFolder(workdir / "x").config()
    assert (config.name, config.objective.T_min, config.objective.lam) == ("digits_lcf", 100, 2)


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", ["run_dir=somewhere", *overrides])
