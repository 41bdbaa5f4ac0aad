"""Where a command works: the folder that is given or agreed on, and the run that is gone on with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from flowexp.cli.composing import Configs
from flowexp.cli.resolve import check_sweep, settle, unused_folder
from flowexp.records.files import atomic
from flowexp.records.keys import training_key
from flowexp.records.run_folder import RunFolder


@pytest.fixture(autouse=True)
def unset() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def settled(command: str, *overrides: str, sweep: Path | None = None) -> DictConfig:
    """The config as the door settles it."""
    config = Configs().compose(command, overrides, with_hydra=True)
    if sweep is not None:
        with open_dict(config):
            config.hydra.runtime.output_dir = str(sweep / "0")
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        config.pop("hydra")
    return settle(command, config, sweep)


def trained(folder: Path, *overrides: str) -> RunFolder:
    """A folder that a training run has begun in."""
    run, config = RunFolder(folder), settled("train", *overrides, "run_dir=any")
    run.create(config)
    atomic.write_json(run.origin_file, {"training_key": training_key(config)})
    return run


# --- work that several processes would do once each ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said", "words"),
    [
        ("sample", "num_samples=4", "sample was started 4 times side by side, and each would do the whole work: start"),
        ("diagnose", "device=cpu", "diagnose was started 4 times side by side, and each would do the whole work"),
        ("evaluate", "devices=1", r"and devices=1: add devices=4 to share it out, or start it once"),
        ("train", "seed=0", r"trainer\.devices=1 with trainer\.num_nodes=1 make 1: add strategy=ddp and numbers whose"),
        ("train", "trainer.devices=[0,1]", r"trainer\.num_nodes=1 make 2: add strategy=ddp"),
    ],
)
def test_processes_that_would_each_do_the_whole_work_are_refused(
    command: str, said: str, words: str, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [] if command == "train" else [f"run={trained(workdir / 'run').path}"]
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match=words):
        settled(command, *run, said, f"run_dir={workdir / 'out'}")


@pytest.mark.parametrize("strategy", ["single", "ddp"])
def test_only_weights_that_are_split_are_saved_in_shares(strategy: str, workdir: Path) -> None:
    settled("train", "checkpoint.sharded=true", "strategy=fsdp", "trainer.devices=2")
    with pytest.raises(ValueError, match=r"^checkpoint\.sharded=true has .* add strategy=fsdp, or leave it out$"):
        settled("train", "checkpoint.sharded=true", f"strategy={strategy}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("evaluate", ["devices=4"]),
        ("train", ["trainer.devices=2", "trainer.num_nodes=2"]),
        ("train", ["trainer.devices=auto"]),  # Lightning counts
    ],
)
def test_processes_that_share_the_work_out_are_not(
    command: str, said: list[str], workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = [] if command == "train" else [f"run={trained(workdir / 'run').path}"]
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert settled(command, *run, *said, f"run_dir={workdir / 'out'}").run_dir == str(workdir / "out")


# --- the folder that is given ----------------------------------------------------------------------------------------


def test_runs_that_start_in_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    names = [unused_folder(tmp_path / "outputs/12-00-00").name for _ in range(3)]
    assert names == ["12-00-00", "12-00-00_2", "12-00-00_3"]
    assert all((tmp_path / "outputs" / name).is_dir() for name in names)


def test_the_jobs_of_a_sweep_have_folders_of_their_own() -> None:
    with pytest.raises(ValueError, match=r"run_dir=mine cannot be .*: give hydra\.sweep\.dir=mine, in which each"):
        check_sweep(["seed=1,2", "run_dir=mine"])


def test_processes_of_one_job_get_one_folder(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    config = settled("train", "trainer.devices=2", "strategy=ddp")
    assert config.run_dir.endswith("job_7") and not Path(config.run_dir).exists()
    assert settled("train", "trainer.devices=2", "strategy=ddp", "run_dir=mine").run_dir == "mine"


def test_auto_goes_on_in_the_newest_run_of_the_same_training(workdir: Path) -> None:
    trained(workdir / "outputs/a", "seed=1"), trained(workdir / "outputs/b")
    assert settled("train", "ckpt=auto", "sampler=heun").run_dir == "outputs/b"


@pytest.mark.parametrize("ckpt", ["auto", "last"])
def test_a_folder_that_is_given_comes_before_a_run_that_is_found(workdir: Path, ckpt: str) -> None:
    mine = trained(workdir / "mine").path
    trained(workdir / "outputs/newer")
    assert settled("train", f"ckpt={ckpt}", f"run_dir={mine}").run_dir == str(mine)


def test_auto_starts_afresh_in_the_folder_that_is_given(workdir: Path) -> None:
    trained(workdir / "outputs/found")
    assert settled("train", "ckpt=auto", "run_dir=new").run_dir == "new"


def test_last_wants_a_run_in_the_folder_that_is_given(workdir: Path) -> None:
    trained(workdir / "outputs/found")
    with pytest.raises(ValueError, match="ckpt=last found no run in new: use ckpt=auto to start one"):
        settled("train", "ckpt=last", "run_dir=new")


@pytest.mark.slow
@pytest.mark.parametrize("ckpt", ["null", "auto", "last", "outputs/elsewhere"])
def test_the_run_of_another_training_is_not_gone_on_with(workdir: Path, ckpt: str) -> None:
    trained(workdir / "mine", "seed=1")
    with pytest.raises(ValueError, match=r"run_dir=mine holds a run with other training settings, .*: choose another"):
        settled("train", f"ckpt={ckpt}", "run_dir=mine")
    assert settled("train", "ckpt=mine", "run_dir=mine").run_dir == "mine"  # where that is meant


@pytest.mark.slow
@pytest.mark.parametrize("name", ["2026_11", "nan", "1e3", "true", "007"])
def test_a_folder_whose_name_looks_like_a_number_is_a_folder(workdir: Path, name: str) -> None:
    config = settled("train", f"run_dir={name}", f"name={name}")
    assert (config.run_dir, config.name) == (name, name)
    trained(workdir / name)
    assert settled("sample", f"run={name}").run == str(workdir / name)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sample", "evaluate", "diagnose"])
def test_what_is_measured_of_a_run_is_not_written_over_it(workdir: Path, command: str) -> None:
    trained(workdir / "run")
    with pytest.raises(ValueError, match="run_dir=run holds a training run: choose another folder"):
        settled(command, "run=run", "run_dir=run")


def test_a_run_is_not_trained_where_another_was_measured(workdir: Path) -> None:
    trained(workdir / "run")
    RunFolder(workdir / "found").create(settled("evaluate", "run=run", "run_dir=found"))
    with pytest.raises(ValueError, match=r"run_dir=found holds what was measured of .*run: choose another folder"):
        settled("train", "run_dir=found")


def test_a_sweep_started_again_in_its_folder_measures_again(workdir: Path) -> None:
    trained(workdir / "run")
    for _ in range(2):
        RunFolder(workdir / "sweep/0").create(settled("evaluate", "run=run", sweep=workdir / "sweep"))
    assert json.dumps(OmegaConf.to_container(RunFolder(workdir / "sweep/0").config()))


# --- the run's own sampler ------------------------------------------------------------------------------------------


def sampler_of(run: str, in_process: Callable[..., int], command: str, *given: str) -> DictConfig:
    """The sampler that a command on a run settles on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"flowexp.{command}.run", lambda config, folder: folder.create(config))
        assert in_process(command, f"run={run}", "run_dir=out", *given) == 0
    return RunFolder(Path("out")).config().sampler


@pytest.fixture(scope="module")
def of_dopri5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dopri5")
    HydraConfig.instance().cfg = None
    run = trained(folder, "sampler=dopri5", "sampler.num_steps=7", "sampler.guidance_interval=[0.2,0.8]")
    HydraConfig.instance().cfg = None
    return run.path


@pytest.mark.parametrize("command", ["sample", "evaluate", "diagnose"])
@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ("sampler.s0=1.5", "s0", 1.5),
        ("++sampler.s0=1.5", "s0", 1.5),
        ("sampler.solver_options.rtol=1e-7", "solver_options.rtol", 1e-7),
        ("+sampler.solver_options.rtol=1e-7", "solver_options.rtol", 1e-7),
        ("++sampler.solver_options.rtol=1e-7", "solver_options.rtol", 1e-7),
        ("sampler.solver_options={rtol:1e-5,atol:1e-8}", "solver_options", {"rtol": 1e-5, "atol": 1e-8}),
        ("sampler={s0: 1.5, num_steps: 3}", "s0", 1.5),
        ("++sampler={s0: 1.5}", "s0", 1.5),
        ("ssc=linear", "s0", 1.1),
    ],
)
def test_a_change_of_a_runs_sampler_has_an_effect_and_leaves_the_rest(
    command: str, given: str, key: str, value: object, of_dopri5: Path, in_process: Callable[..., int]
) -> None:
    sampler = sampler_of(str(of_dopri5), in_process, command, given)
    assert OmegaConf.select(sampler, key) == value
    assert sampler.solver == "dopri5" and sampler.guidance_interval == [0.2, 0.8]


def test_a_key_can_be_left_out_of_a_runs_sampler(of_dopri5: Path, in_process: Callable[..., int]) -> None:
    sampler = sampler_of(str(of_dopri5), in_process, "sample", "~sampler.s0")
    assert "s0" not in sampler and sampler.solver == "dopri5"


def test_another_sampler_is_taken_as_a_whole(of_dopri5: Path, in_process: Callable[..., int]) -> None:
    sampler = sampler_of(str(of_dopri5), in_process, "sample", "sampler=heun", "++sampler.s0=1.5")
    assert (sampler.solver, sampler.s0, sampler.num_steps) == ("heun", 1.5, 25)


@pytest.mark.parametrize(
    ("command", "given", "words"),
    [
        ("sample", "sampler.s00=1", "there is no key sampler.s00; did you mean s0"),
        ("sample", "++sampler.foo=1", "there is no key sampler.foo"),
        ("sample", "sampler={foo: 1}", "there is no key sampler.foo"),
        ("sample", "sampler=heun sampler.foo=1", "there is no key sampler.foo"),
        ("sample", "~sampler", "would leave no sampler"),
        ("sample", "+objective.T_min=5", "nothing reads +objective.T_min=5: flowexp.sample has no objective"),
        ("evaluate", "+optimizer.lr=1", "nothing reads +optimizer.lr=1"),
        ("evaluate", "callbacks=none +callbacks.probe.levels=[0.5]", "sets what is not chosen"),
        ("evaluate", "+logger.wandb.project=x", "add logger=wandb"),
        ("diagnose", "+data.root=x", "sets what is not chosen"),
    ],
)
def test_a_change_that_would_do_nothing_is_refused(
    command: str, given: str, words: str, of_dopri5: Path, in_process: Callable[..., int], capsys
) -> None:
    assert in_process(command, f"run={of_dopri5}", *re.split(r" (?=[~+a-z]+[.=])", given)) == 2
    assert words in capsys.readouterr().err
