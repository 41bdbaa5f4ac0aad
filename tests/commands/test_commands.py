"""The commands: what they print, what they leave in the run's folder, and what can be done with it afterwards."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from flowexp.cli.assembly.rebuilding import load_run
from flowexp.training.checkpoints import list_checkpoints, load_checkpoint


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that, first on the path, makes `import torch` fail."""
    folder = tmp_path_factory.mktemp("without_torch")
    for name in ("torch", "pytorch_lightning", "wandb"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} was imported')")
    return str(folder)


@pytest.fixture(scope="module")
def measured(shell, alone):
    """`sample` with another sampler, and `evaluate` with the run's own but for SSC, at the same time."""
    sampling = shell.start("sample", f"run={alone}", "sampler=heun", "sampler.s0=1.1", "num_samples=6", "device=cpu")
    grid = ("callbacks=none", "+callbacks.grid._target_=flowexp.measuring.callbacks.samples.SampleGridMonitor")
    grid = (*grid, "+callbacks.grid.num_samples=4")
    evaluating = shell.here("evaluate", f"run={alone}", "sampler.s0=1.1", "device=cpu", *grid)
    return sampling.wait().succeeded(), evaluating.succeeded()


def the_only(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def protocol_of(summary: Path) -> dict:
    return json.loads(summary.read_text())["protocol"]


def test_help_and_the_config_are_printed_without_torch(shell, without_torch: str):
    started = [shell.start("train", what, first_path=without_torch) for what in ("--help", "--cfg=job")]
    help_page, config = (command.wait().succeeded().out for command in started)
    assert "objective: exfm, fm, fm_contrast, lcf, lcf_practitioners, mafm, truncated_fm" in help_page
    assert "python -m flowexp.train objective=lcf" in help_page
    assert OmegaConf.create(config).objective._target_ == "flowexp.objectives.FlowMatching"


@pytest.mark.slow
def test_a_dry_run_prints_the_plan_and_trains_nothing(in_process, lcf, workdir: Path, capsys):
    assert in_process("train", *lcf, "dry_run=true", "run_dir=dry") == 0
    printed = capsys.readouterr().out
    for row in (
        r"anchors expected per batch\D+3\.2",
        r"batches without an anchor\D+2\.\d %",
        r"dit_nano2, 14,772 trained parameters",
        r"steps\W+12 \(4 per epoch\)",
        r"on 8 H100, estimated\W+DDP: 0\.\d+ GB each",
        r"about \d+\.\d minutes of training",
    ):
        assert re.search(row, printed), f"{row} is not in {printed}"
    assert not list(workdir.rglob("*.ckpt"))
    assert not (workdir / "dry" / "trained.json").exists()
    planned = json.loads((workdir / "dry" / "plan.json").read_text())
    assert planned["num_steps"] == 12 and planned["seconds_per_step"] > 0 and planned["plan"]["objective"]


@pytest.mark.slow
def test_a_dry_run_clips_as_the_run_does_and_says_where_it_would_diverge(in_process, lcf, workdir: Path, capsys):
    fast = ("~optimizer", "+optimizer={_target_:torch.optim.SGD,_partial_:true,lr:1e30}")
    assert in_process("train", *lcf, *fast, "dry_run=true", "run_dir=dry", "trainer.gradient_clip_val=null") == 2
    printed = capsys.readouterr().err
    assert "the trial steps of the dry run diverge" in printed and "lower optimizer.lr" in printed
    assert not list(workdir.rglob("*.pt"))
    gently = (*fast[:1], fast[1].replace("1e30", "3"))
    assert in_process("train", *lcf, *gently, "dry_run=true", "run_dir=dry", "trainer.gradient_clip_val=1e-6") == 0


@pytest.mark.slow
def test_a_run_on_data_that_have_no_yaml_is_named_by_their_class(in_process, lcf, workdir: Path):
    rest = [word for word in lcf if not word.startswith("data.")]
    here = Path(__file__).parents[2] / "docs/new_idea"
    data = ("~data", "+data={_target_:rings.Rings,batch_size:8,train_size:16,seed:0}", f"parts={here}")
    assert in_process("train", *rest, *data, "dry_run=true") == 0
    assert [folder.name for folder in (workdir / "outputs").iterdir()] == ["rings_lcf"]


@pytest.mark.slow
def test_a_dry_run_of_several_processes_says_once_what_each_gets(shell, lcf):
    two = shell.start("train", *lcf, "dry_run=true", "run_dir=dry_two", "strategy=ddp", "trainer.devices=2")
    out = two.wait().succeeded().out
    assert re.findall(r"batch \(over all processes\)\W+(.*?) *│", out) == ["16, 8 on each of 2 processes"]


@pytest.mark.slow
def test_a_dry_run_of_several_machines_does_not_wait_for_the_others(in_process, lcf, workdir: Path, capsys):
    several = ("strategy=ddp", "trainer.devices=2", "trainer.num_nodes=2", "trainer.accumulate_grad_batches=2")
    assert in_process("train", *lcf, *several, "dry_run=true", "run_dir=dry") == 0
    printed = " ".join(re.sub(r"[│\s]+", " ", capsys.readouterr().out).split())
    assert "32, in 2 batches of 16, 4 on each of 4" in printed and "not timed: 2 machines take part" in printed
    assert in_process("train", *lcf, *several, "data.batch_size=18", "dry_run=true", "run_dir=dry") == 2
    assert "must divide over 4 of them, got 18" in capsys.readouterr().err


@pytest.mark.slow
def test_a_dry_run_plans_with_the_published_number_of_images_where_the_data_are_not_here(in_process, capsys, workdir):
    assert (
        in_process(
            "train", "experiment=tinyimagenet_lcf", "+backbone.depth=1", "dry_run=true", "trainer.accelerator=cpu"
        )
        == 0
    )
    printed = capsys.readouterr().out
    for row in (  # LCF Table 2: 1200 epochs of batches of 32, T_min 100
        r"tiny_imagenet, 100,000 images of 3 x 64 x 64",
        r"anchors expected per batch\D+3\.2",
        r"batches without an anchor\D+3\.4 %",
        r"steps\W+3,750,000 \(3,125 per epoch\)",
        r"not timed: Tiny-ImageNet",
    ):
        assert re.search(row, printed), f"{row} is not in {printed}"
    assert not (workdir / "data").exists()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_dry_run_plans_for_a_gpu_that_is_elsewhere(in_process, lcf, workdir: Path, capsys):
    assert in_process("train", *lcf, "dry_run=true", "run_dir=dry", "trainer.accelerator=gpu") == 0
    printed = " ".join(re.sub(r"[│\s]+", " ", capsys.readouterr().out).split())
    assert "device a GPU, and none is here" in printed
    assert "not timed: trainer.accelerator=gpu, and there is no GPU here" in printed
    assert json.loads((workdir / "dry" / "plan.json").read_text())["seconds_per_step"] is None


@pytest.mark.slow
def test_the_run_folder_tells_what_was_run(alone, lcf):
    config = OmegaConf.load(alone / "config.yaml")
    origin = json.loads((alone / "run.json").read_text())
    assert config.objective.T_min == 200
    assert origin["seed"] == 0
    assert torch.__version__.startswith(origin["versions"]["torch"])
    assert {"commit", "machine", "plan"} <= set(origin)
    assert origin["command"] == shlex.join(["python", "-m", "flowexp.train", *lcf, "run_dir=alone"])
    assert origin["plan"]["steps"] == "12 (4 per epoch)"
    assert [path.name for path in list_checkpoints(alone / "checkpoints")] == [
        f"step_{n:08d}.ckpt" for n in range(2, 13, 2)
    ]
    assert json.loads((alone / "summary.json").read_text())["step"] == 12


@pytest.mark.slow
def test_the_training_curves_are_in_a_csv(alone):
    curves = np.genfromtxt(alone / "csv" / "version_0" / "metrics.csv", delimiter=",", names=True)
    assert curves["step"].tolist() == [1, 2, 4, 6, 8, 10, 12]
    assert np.isfinite(curves["trainloss"]).all()


@pytest.mark.slow
def test_a_run_is_rebuilt_from_its_folder_alone(alone, workdir: Path):
    module, datamodule, step = load_run(alone)
    content = load_checkpoint(list_checkpoints(alone / "checkpoints")[-1])
    assert step == 12
    assert len(datamodule.train) == 64
    assert module.t_min == 0.2
    for name, value in module.state_dict().items():
        assert torch.equal(value, content["state_dict"][name])
    with module.averaged():
        for name, value in module.backbone.named_parameters():
            if value.requires_grad:
                assert torch.equal(value, content["ema"]["averages"][name])


@pytest.mark.slow
def test_sample_draws_with_the_sampler_of_the_command_line(measured, alone):
    folder = the_only(alone / "samples")
    images = np.load(folder / "samples.npz")["arr_0"]
    protocol = protocol_of(folder / "summary.json")
    assert (images.shape, images.dtype) == ((6, 8, 8, 3), np.uint8)  # grey is repeated, as ADM reads it
    assert (folder / "samples.png").stat().st_size > 0
    assert (protocol["solver"], protocol["s0"], protocol["nfe"]) == ("heun", 1.1, 49)


@pytest.mark.slow
def test_evaluate_keeps_the_runs_own_sampler_but_for_what_is_said(measured, alone):
    folder = the_only(alone / "evaluations")
    sampler = protocol_of(folder / "summary.json")["samples"]["sampler"]
    assert (sampler["solver"], sampler["num_steps"], sampler["s0"]) == ("euler", 4, 1.1)
    assert list((folder / "measurements").rglob("step_00000012.png"))


@pytest.mark.slow
def test_measuring_leaves_the_run_as_it_was(measured, alone):
    assert OmegaConf.load(alone / "config.yaml").sampler.s0 == 1.0
    assert [path.name for path in list_checkpoints(alone / "checkpoints")][-1] == "step_00000012.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize(
    "said, expected",
    [
        ([], ("euler_maruyama", 50, 1.0, 2.0)),
        (["ssc=linear"], ("euler_maruyama", 50, 1.1, 2.0)),  # VD's rows with SSC: the run's own sampler, scaled
        (["ssc=linear", "sampler.num_steps=10"], ("euler_maruyama", 10, 1.1, 2.0)),
        (["sampler=heun"], ("heun", 25, 1.0, 1.0)),
    ],
)
def test_a_run_keeps_its_sampler_but_for_what_is_said(in_process, workdir: Path, monkeypatch, said, expected):
    trained = ["sampler=euler_maruyama", "sampler.guidance_scale=2", "class_conditional=true", "run_dir=trained"]
    for command in ("train", "evaluate"):
        monkeypatch.setattr(f"flowexp.{command}.run", lambda config, folder: folder.begin(config))
    assert in_process("train", *trained) == 0
    assert in_process("evaluate", "run=trained", *said) == 0
    sampler = OmegaConf.load(the_only(workdir / "trained" / "evaluations") / "config.yaml").sampler
    assert (sampler.solver, sampler.num_steps, sampler.s0, sampler.guidance_scale) == expected


@pytest.mark.slow
def test_a_run_that_trains_nothing_says_what_it_cannot_measure(in_process, lcf, alone, workdir: Path):
    target = "flowexp.measuring.callbacks.samples.SampleGridMonitor"
    grid = (f"+callbacks.grid._target_={target}", "+callbacks.grid.num_samples=4")
    asked = (*grid, "+callbacks.grid.every_n_steps=4", f"trained_run={alone}", "run_dir=shared")
    with pytest.warns(UserWarning, match=r"callbacks\.grid\.every_n_steps=4 measures during a training"):
        assert in_process("train", *lcf, *asked) == 0
    assert [path.stem for path in (workdir / "shared" / "measurements").rglob("*.png")] == ["step_00000012"]


def test_tests_that_share_runs_stay_on_one_worker(request: pytest.FixtureRequest):
    """pytest-xdist says so in the test's name, and nothing where it has lost the group: runs were then made twice."""
    grouped = getattr(request.config.option, "loadgroup", False)
    assert request.node.nodeid.endswith("@test_commands") == grouped
