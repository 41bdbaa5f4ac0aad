"""What users of Lightning and Hydra try first: callbacks that watch a number, optimizer, schedule, averages, logger."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from flowexp.records.tables import read_csv
from flowexp.training.checkpoints import load_checkpoint

pytestmark = pytest.mark.slow
STOP = (
    "+callbacks.early={_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:train/loss,patience:0,min_delta:99}"
)
NORMS = (
    "callbacks=[velocity_norms,best]",
    "callbacks.velocity_norms.num_images=4",
    "callbacks.velocity_norms.levels=[0.9]",
)
NUMBER = "velocity_norms/deficit_at_noise"
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def shell(shell, tmp_path_factory: pytest.TempPathFactory):
    """With a folder of its own: the runs of other files have names as plain as these."""
    return replace(shell, folder=tmp_path_factory.mktemp("lightning"))


@pytest.fixture(scope="module")
def run(shell, tiny: Sequence[str]) -> Run:
    """Trains in this process, in a folder of that name, and returns the folder."""

    def train(name: str, *arguments: str) -> Path:
        shell.here("train", *tiny, *arguments, f"run_dir={name}").succeeded()
        return shell.folder / name

    return train


@pytest.fixture(scope="module")
def refused(shell, tiny: Sequence[str]) -> Callable[..., str]:
    """Starts a training that is refused, and returns why."""

    def train(*arguments: str) -> str:
        finished = shell.here("train", *tiny, *arguments, "run_dir=refused")
        shutil.rmtree(shell.folder / "refused", ignore_errors=True)
        assert finished.code == 2, finished.out + finished.err
        assert "Traceback" not in finished.err
        return finished.err

    return train


def newest(run: Path) -> dict:
    return load_checkpoint(max(run.glob("checkpoints/*.ckpt")))


# --- callbacks that watch a number ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(run: Run) -> Path:
    """A run that EarlyStopping ends at the end of its second epoch of four steps, 4 before `max_steps`."""
    return run("stopped", STOP, "checkpoint.every_n_steps=3")


def test_early_stopping_ends_a_training_which_is_then_finished(stopped: Path):
    trained = json.loads((stopped / "trained.json").read_text())
    assert (trained["step"], trained["stopped_early"]) == (8, True)
    assert (stopped / "checkpoints/step_00000008.ckpt").exists()
    assert json.loads((stopped / "summary.json").read_text())["step"] == 8


def test_a_training_that_was_stopped_early_is_not_gone_on_with(
    run: Run, stopped: Path, trained_state, assert_identical
):
    before = trained_state(stopped / "checkpoints/step_00000008.ckpt")
    run("stopped", STOP, "checkpoint.every_n_steps=3", "ckpt=auto")
    assert max(stopped.glob("checkpoints/*.ckpt")).name == "step_00000008.ckpt"
    assert_identical(trained_state(stopped / "checkpoints/step_00000008.ckpt"), before)


def test_the_last_steps_of_a_stopped_training_can_be_trained_on(
    run: Run, stopped: Path, trained_state, assert_identical
):
    whole = run("not_stopped")
    longer = run("longer", f"ckpt={stopped}")
    assert_identical(
        trained_state(longer / "checkpoints/step_00000012.ckpt"),
        trained_state(whole / "checkpoints/step_00000012.ckpt"),
    )


def test_jobs_that_stop_at_different_steps_train_for_themselves(stopped: Path):
    from flowexp.records.keys import training_key

    config = OmegaConf.load(stopped / "config.yaml")
    assert training_key(config) != training_key(OmegaConf.merge(config, {"callbacks": {"early": {"patience": 1}}}))


def test_early_stopping_goes_on_counting_after_a_resume(run: Run):
    waiting = STOP.replace("patience:0", "patience:2")
    run("counting", waiting, "trainer.max_steps=6")
    counting = run("counting", waiting, "trainer.max_steps=20", "ckpt=counting")
    assert json.loads((counting / "trained.json").read_text())["step"] == 12  # 16, were the first epoch forgotten


def test_early_stopping_waits_for_a_number_to_be_measured_again(run: Run):
    """Measured after the second and the fourth epoch: that the third has no new number is no lack of improvement."""
    early = STOP.replace("train/loss", NUMBER).replace("patience:0", "patience:1")
    waiting = run(
        "waiting",
        "callbacks=velocity_norms",
        *NORMS[1:],
        "callbacks.velocity_norms.every_n_steps=8",
        early,
        "trainer.max_steps=20",
    )
    assert json.loads((waiting / "trained.json").read_text())["step"] == 16


def measuring(num_steps: int) -> tuple[str, ...]:
    watched = (f"callbacks.best.monitor={NUMBER}", "callbacks.velocity_norms.every_n_steps=2")
    return (*NORMS, *watched, f"trainer.max_steps={num_steps}")


@pytest.fixture(scope="module")
def best(run: Run) -> Path:
    """A run that keeps the checkpoint with the best of a measured number, and was resumed at step 4."""
    run("best", *measuring(4))
    return run("best", *measuring(8), "ckpt=best")


def measured(run: Path) -> dict[int, float]:
    history = [json.loads(line) for line in (run / "measurements.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["scalars"][NUMBER] for entry in history}


def assert_the_best_is_known(run: Path) -> None:
    numbers = measured(run)
    step = min(numbers, key=lambda step: numbers[step])
    (state,) = [value for key, value in newest(run)["callbacks"].items() if key.startswith("BestCheckpoint")]
    assert [path.name for path in (run / "best").iterdir()] == [f"step_{step:08d}.ckpt"]
    assert load_checkpoint(run / f"best/step_{step:08d}.ckpt")["global_step"] == step
    assert state["best_model_path"] == str((run / f"best/step_{step:08d}.ckpt").resolve())
    assert float(state["best_model_score"]) == pytest.approx(numbers[step])


def test_the_checkpoint_with_the_best_number_is_kept_beside_the_newest(best: Path):
    assert sorted(measured(best)) == [2, 4, 6, 8]
    assert_the_best_is_known(best)
    assert newest(best)["global_step"] == 8


def test_the_best_is_known_after_the_run_was_moved(run: Run, best: Path, shell):
    shutil.copytree(best, shell.folder / "moved")
    moved = run("moved", *measuring(10), "ckpt=moved")
    assert len(measured(moved)) == 5
    assert_the_best_is_known(moved)


def test_the_best_checkpoint_is_sampled_without_its_run_being_named(best: Path, shell):
    (kept,) = (best / "best").iterdir()
    shell.here("sample", f"checkpoint={kept}", "num_samples=2", "device=cpu", "run_dir=of_best").succeeded()
    summary = json.loads((shell.folder / "of_best/summary.json").read_text())
    assert f"step_{summary['step']:08d}.ckpt" == kept.name


def test_lightnings_own_checkpoints_have_one_folder_that_stays(run: Run):
    callback = (
        "+callbacks.top={_target_:pytorch_lightning.callbacks.ModelCheckpoint,monitor:train/loss,every_n_train_steps:2}"
    )
    folder = run("top", callback, "trainer.max_steps=4")
    assert len([*(folder / "best").iterdir()]) == 1


WATCHED = "+callbacks.early={_target_:pytorch_lightning.callbacks.EarlyStopping,monitor:%s}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([WATCHED % "train/los"], "callbacks.early.monitor=train/los is nothing that this run logs or measures; "
         "did you mean train/loss?"),
        ([WATCHED % "val_loss"], "did you mean train/loss?"),
        ([WATCHED % "train/contrast"], "is nothing that this run logs"),
        ([*NORMS, "callbacks.best.monitor=velocity_norm/deficit_at_nois", "callbacks.velocity_norms.every_n_steps=2"],
         f"did you mean {NUMBER}?"),
        ([*NORMS, f"callbacks.best.monitor={NUMBER}"], "is measured at the end of training alone: set every_n_steps"),
        (["+lr_schedule.monitor=train/los", "lr_schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau"],
         "lr_schedule.monitor=train/los is nothing that this run logs or measures; did you mean train/loss?"),
    ],
)  # fmt: skip
def test_a_number_that_nothing_gives_is_refused_before_training(refused, arguments: list[str], words: str):
    assert words in refused(*arguments)


def test_training_curves_are_written_once(run: Run):
    (file,) = run("curves", "log_every_n_steps=1", "trainer.max_steps=6").glob("csv/version_0/metrics.csv")
    assert [row["step"] for row in read_csv(file)] == [1, 2, 3, 4, 5, 6]


# --- optimizer, schedule, clipping ------------------------------------------------------------------------------------


def test_an_optimizer_of_torch_by_its_target(run: Run):
    adam = "+optimizer={_target_:torch.optim.Adam,_partial_:true,lr:0.01}"
    folder = run("adam", "~optimizer", adam)
    (group,) = newest(folder)["optimizer_states"][0]["param_groups"]
    assert (group["lr"], group["decoupled_weight_decay"]) == (0.01, False)
    plan = json.loads((folder / "run.json").read_text())["plan"]["optimizer"]
    assert plan == "Adam, lr 0.01; constant; gradients clipped at norm 1"


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon", "sit", "schedule_free"])
def test_the_named_optimizers_train(run: Run, name: str):
    assert len(newest(run(f"with_{name}", f"optimizer={name}", "trainer.max_steps=2"))["optimizer_states"]) == 1


def test_muon_goes_on_where_it_was(run: Run, trained_state, assert_identical):
    whole = run("muon_whole", "optimizer=muon", "trainer.max_steps=4")
    half = run("muon_half", "optimizer=muon", "trainer.max_steps=2")
    last = run("muon_rest", "optimizer=muon", "trainer.max_steps=4", f"ckpt={half}")
    name = "checkpoints/step_00000004.ckpt"
    one, other = (trained_state(folder / name) for folder in (last, whole))
    assert_identical((one["state_dict"], one["ema"]["averages"]), (other["state_dict"], other["ema"]["averages"]))
    state, expected = (found["optimizer_states"][0]["state"] for found in (one, other))
    assert_identical(state, expected)
    assert {frozenset(kept) for kept in state.values()} == {
        frozenset({"momentum_buffer"}),
        frozenset({"step", "exp_avg", "exp_avg_sq"}),
    }


def test_schedule_free_goes_on_where_it_was(run: Run, assert_identical):
    whole = run("free_whole", "optimizer=schedule_free", "ema=none", "trainer.max_steps=4")
    half = run("free_half", "optimizer=schedule_free", "ema=none", "trainer.max_steps=2")
    last = run("free_rest", "optimizer=schedule_free", "ema=none", "trainer.max_steps=4", f"ckpt={half}")
    one, other = (load_checkpoint(folder / "checkpoints/step_00000004.ckpt") for folder in (last, whole))
    for part in ("state_dict", "optimizer_states"):
        assert_identical(one[part], other[part])
    assert one["optimizer_states"][0]["param_groups"][0]["train_mode"] is False


OF_TORCH = "+lr_schedule={_target_:torch.optim.lr_scheduler.%s,_partial_:true,%s}"
SCHEDULES = {  # of a run of six steps in epochs of four: its rates after the second, fourth and sixth
    "constant": ([], [4, 4, 4]),
    "warmup": (["lr_schedule=warmup", "lr_schedule.warmup_epochs=1"], [3, 4, 4]),
    "cosine": (["lr_schedule=cosine", "lr_schedule.final_share=0.5"], [3.5, 2.5, 2]),
    "cosine_in_steps": (["lr_schedule=cosine", "lr_schedule.num_steps=4"], [2, 0, 0]),
    "step": (["~lr_schedule", OF_TORCH % ("StepLR", "step_size:2,gamma:0.5")], [2, 1, 0.5]),
    "epoch": (["~lr_schedule", OF_TORCH % ("StepLR", "step_size:1,gamma:0.5,interval:epoch")], [4, 2, 2]),
    "linear": (
        ["~lr_schedule", OF_TORCH % ("LinearLR", "start_factor:0.5,total_iters:${trainer.max_steps}")],
        [8 / 3, 10 / 3, 4],
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_by_its_name_or_target(run: Run, name: str):
    arguments, expected = SCHEDULES[name]
    folder = run(f"lr_{name}", *arguments, "trainer.max_steps=6", "optimizer.lr=4e-4")
    found = [load_checkpoint(file)["optimizer_states"] for file in sorted(folder.glob("checkpoints/*.ckpt"))]
    assert [1e4 * state["param_groups"][0]["lr"] for (state,) in found] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optimizer.lr=-1"], "optimizer.lr must be positive, got -1"),
        (
            ["~optimizer", "+optimizer={_target_:torch.optim.SGD,momentum:-1}"],
            "the optimizer cannot be made with momentum=-1: ",
        ),
        (["lr_schedule=warmup", "lr_schedule.warmup_steps=-1"], "lr_schedule.warmup_steps must be at least 0, got -1"),
        (["lr_schedule=cosine", "lr_schedule.final_share=2"], "lr_schedule.final_share must lie in [0, 1], got 2"),
        (["+lr_schedule.interval=day"], "lr_schedule.interval must be step or epoch, got 'day'"),
        (["optimizer.clip_norm=1"], "optimizer.clip_norm is called trainer.gradient_clip_val now"),
        (["+optimizer.clip_norm=1"], "optimizer.clip_norm is called trainer.gradient_clip_val now"),
        (["optimizer.ema_decay=0.9"], "optimizer.ema_decay is called ema.decay now"),
        (["optimizer.warmup_steps=9"], "is called lr_schedule.warmup_steps, with lr_schedule=warmup or cosine now"),
        (["logger.project=x"], "logger.project is called logger.wandb.project now"),
        (["ema=1"], "ema.decay must lie in [0, 1), got 1"),
        (["ema=[0.9,0.9]"], "ema.decay must name each decay once"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val must be positive, or null for no limit; got -1"),
        (["optimizer={_target_:torch.optim.Adam,betas2:1}"], "put a plus before it"),
    ],
)
def test_what_cannot_train_is_told_by_its_key(refused, arguments: list[str], words: str):
    assert words in refused(*arguments)


def test_the_trainers_key_clips(run: Run):
    """A step of plain SGD is as long as the gradient; the first is from the same weights."""
    sgd = ("optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=1", "trainer.max_steps=2")
    free, clipped = (
        newest(run(f"clip_{limit}", *sgd, f"trainer.gradient_clip_val={limit}")) for limit in ("null", "1e-9")
    )
    begun = run("clip_begun", *sgd, "optimizer.lr=1e-30")
    distance = [
        sum(float((found["state_dict"][name] - value).norm()) for name, value in newest(begun)["state_dict"].items())
        for found in (free, clipped)
    ]
    assert distance[0] > 1e-2 and distance[1] < 1e-6


# --- averages ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def several(run: Run) -> Path:
    return run("several", "ema=[0.5,0.9]", "ema.warmup=false")


def test_several_averages_are_those_of_runs_of_their_own(run: Run, several: Path, assert_identical):
    found = newest(several)
    for decay, state in ((0.5, found["ema"]), (0.9, found["further_emas"][0])):
        alone = run(f"ema_{decay}", f"ema={decay}", "ema.warmup=false")
        assert_identical(state, newest(alone)["ema"])


@pytest.mark.parametrize(("which", "weights"), [(None, "ema 0.5"), ("0.9", "ema 0.9"), ("raw", "raw")])
def test_each_average_is_sampled_and_measured(shell, several: Path, which: str | None, weights: str):
    choice = [] if which is None else [f"ema={which}"]
    name = f"ema_of_{which}"
    shell.here("sample", f"run={several}", *choice, "num_samples=2", "device=cpu", f"run_dir={name}").succeeded()
    assert json.loads((shell.folder / name / "summary.json").read_text())["protocol"]["weights"] == weights
    norms = (
        "callbacks=velocity_norms",
        "callbacks.velocity_norms.num_images=4",
        "callbacks.velocity_norms.levels=[0.5]",
    )
    finished = shell.here(
        "evaluate", f"run={several}", *choice, *norms, "device=cpu", f"run_dir={name}_measured"
    ).succeeded()
    summary = json.loads((shell.folder / f"{name}_measured/summary.json").read_text())
    assert summary["protocol"]["velocity_norms"]["weights"] == weights
    assert ("the weights as trained" if which == "raw" else weights.split()[1]) in finished.out


def test_an_average_that_a_run_has_not_is_named(shell, several: Path):
    finished = shell.here("sample", f"run={several}", "ema=0.99", "device=cpu", "run_dir=none")
    assert (finished.code, "ema must be one of 0.5, 0.9, raw, which this run has; got 0.99" in finished.err) == (
        2,
        True,
    )


def test_without_an_average_the_weights_as_trained_are_measured(shell, run: Run):
    folder = run("no_ema", "ema=none")
    assert "ema" not in newest(folder)
    shell.here("sample", f"run={folder}", "num_samples=2", "device=cpu", "run_dir=raw").succeeded()
    assert json.loads((shell.folder / "raw/summary.json").read_text())["protocol"]["weights"] == "raw"


# --- loggers and presets ----------------------------------------------------------------------------------------------


def test_a_logger_of_ones_own_and_several_at_once(run: Run):
    own = "+logger={_target_:pytorch_lightning.loggers.CSVLogger,name:mine}"
    both = "+logger.other={_target_:pytorch_lightning.loggers.CSVLogger,save_dir:elsewhere}"
    folder = run("logged", "~logger", own, "trainer.max_steps=2")
    assert (folder / "mine/version_0/metrics.csv").exists() and (folder / "mine/version_0/hparams.yaml").exists()
    run("logged_twice", both, both.replace("other", "third").replace("elsewhere", "third"), "trainer.max_steps=2")
    assert [*(folder.parent / "elsewhere").rglob("metrics.csv")] and [*(folder.parent / "third").rglob("metrics.csv")]


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow")])
def test_a_missing_package_is_named_before_training(refused, monkeypatch, name: str, package: str):
    monkeypatch.setattr("flowexp.cli.loggers.find_spec", lambda package: None)
    assert f"pip install {package}" in refused(f"logger={name}")


@pytest.mark.parametrize("preset", ["fast_dev_run", "overfit", "profiler", "anomaly"])
def test_debug_presets(run: Run, preset: str):
    folder = run(f"debug_{preset}", f"debug={preset}")
    steps = {"fast_dev_run": 1, "profiler": 12}.get(preset, 12)
    assert json.loads((folder / "trained.json").read_text())["step"] == steps
