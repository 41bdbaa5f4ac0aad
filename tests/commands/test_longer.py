"""Training longer: it goes on with the shorter run, says so, and the records stay those of the weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from flowexp.records.keys import training_key
from flowexp.records.run_folder import RunFolder
from flowexp.records.search import find_run
from flowexp.training.checkpoints import list_checkpoints, load_checkpoint, step_of

pytestmark = pytest.mark.slow

LEVELS = ("callbacks=noise_levels", "callbacks.noise_levels.num_images=16")


def steps(number: int, root: str, *others: str) -> tuple[str, ...]:
    return (f"trainer.max_steps={number}", f"output_root={root}", f"run_dir={root}/A", *LEVELS, *others)


def numbers_of(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())["scalars"]


@pytest.fixture(scope="module")
def longer(shell, tiny):
    """A run of 6 steps that is then trained to 12 by ckpt=auto, with the numbers that each had; and one of 12 steps."""
    shell.here("train", *tiny, *steps(6, "longer")).succeeded()
    folder = shell.folder / "longer" / "A"
    short = numbers_of(folder)
    further = [word for word in steps(12, "longer", "ckpt=auto") if not word.startswith("run_dir=")]
    said = shell.here("train", *tiny, *further).succeeded().out
    shell.here("train", *tiny, *steps(12, "straight")).succeeded()
    return folder, short, said


def test_it_goes_on_with_the_shorter_run_and_says_which(longer):
    folder, _, said = longer
    assert "goes on with longer/A, which has trained 6 steps, and trains it on to 12" in said
    assert [path.name for path in folder.parent.iterdir()] == ["A"]


def test_its_weights_and_numbers_are_those_of_the_long_training(longer, shell, trained_state, assert_identical):
    folder, _, _ = longer
    straight = shell.folder / "straight" / "A"
    one, other = (list_checkpoints(run / "checkpoints")[-1] for run in (folder, straight))
    assert step_of(one) == step_of(other) == 12
    assert_identical(trained_state(one), trained_state(other))
    assert numbers_of(folder) == numbers_of(straight)


def test_its_records_are_of_its_weights_and_those_of_the_shorter_stay_apart(longer):
    folder, short, _ = longer
    run = RunFolder(folder)
    origin = run.origin()
    assert origin["training_key"] == training_key(run.config()) and origin["num_steps"] == 12
    assert run.trained_step() == 12 and run.summary()["step"] == 12
    (earlier,) = origin["earlier"]
    assert earlier["num_steps"] == 6 and earlier["training_key"] != origin["training_key"]
    aside = json.loads((folder / "summary_step_00000006.json").read_text())
    assert aside["step"] == 6 and aside["scalars"] == short != numbers_of(folder)


def test_the_shorter_training_is_not_answered_with_the_longer_ones_numbers(longer, shell, tiny):
    folder, short, _ = longer
    before = (folder / "summary.json").read_text()
    again = [word for word in steps(6, "longer", "ckpt=auto") if not word.startswith("run_dir=")]
    shell.here("train", *tiny, *again, "name=anew").succeeded()
    (anew,) = (folder.parent / "anew").iterdir()
    assert numbers_of(anew) == short and RunFolder(anew).trained_step() == 6
    assert (folder / "summary.json").read_text() == before
    last = shell.here("train", *tiny, *again, "ckpt=last", "seed=3")
    assert last.code == 2 and "ckpt=last found no run with these training settings" in last.err


def test_the_longer_training_is_found_as_what_it_is(longer, shell, tiny):
    folder, _, _ = longer
    key = RunFolder(folder).origin()["training_key"]
    assert find_run(folder.parent, key, trained=True).path == folder
    same = [word for word in steps(12, "longer", "ckpt=last") if not word.startswith("run_dir=")]
    assert "goes on with longer/A, which has trained 12 steps" in shell.here("train", *tiny, *same).succeeded().out


def test_a_run_that_is_half_trained_on_is_no_finished_training(shell, tiny, monkeypatch):
    shell.here("train", *tiny, *steps(4, "half")).succeeded()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # after the first save, step 6
        patch.setattr("flowexp.training.checkpoints.saving.StepCheckpoint._remove_old", killed)
        stopped = shell.here("train", *tiny, *steps(12, "half", "ckpt=half/A"))
    assert stopped.code != 0
    run = RunFolder(shell.folder / "half/A")
    assert run.trained_step() is None and run.summary() == {}
    assert run.origin()["training_key"] == training_key(run.config())
    measure = [*tiny, "trainer.max_steps=12", *LEVELS, "trained_run=half/A", "run_dir=half_measured"]
    refused = shell.here("train", *measure)
    assert refused.code == 2 and "trained_run=half/A has not finished its training" in refused.err
    shell.here("train", *tiny, *steps(12, "half", "ckpt=auto")).succeeded()
    assert run.trained_step() == 12


def test_a_run_of_another_name_is_pointed_to_and_not_trained_further(shell, tiny):
    shell.here("train", *tiny, "trainer.max_steps=2", "output_root=names", "name=mine").succeeded()
    (mine,) = (shell.folder / "names/mine").iterdir()
    before = sorted((path, path.read_bytes()) for path in mine.rglob("*") if path.is_file())
    other = (*tiny, "trainer.max_steps=4", "output_root=names", "name=other", "ckpt=auto")
    said = shell.here("train", *other, "dry_run=true").succeeded().out
    assert f"names/mine/{mine.name} (mine) trains the same for 2 steps: ckpt=names/mine/{mine.name}" in said
    assert sorted((path, path.read_bytes()) for path in mine.rglob("*") if path.is_file()) == before
    same = (*tiny, "trainer.max_steps=2", "output_root=names", "name=other", "ckpt=auto", "dry_run=true")
    assert "whose name is mine and not other" in shell.here("train", *same).succeeded().out


def test_epochs_are_a_length_too(shell, tiny):
    epochs = ("trainer.max_steps=-1", "output_root=epochs", "run_dir=epochs/A")
    shell.here("train", *tiny, *epochs, "trainer.max_epochs=1").succeeded()
    said = shell.here("train", *tiny, *epochs, "trainer.max_epochs=2", "ckpt=auto").succeeded().out
    assert "trained 4 steps, and trains it on to 8" in said
    assert RunFolder(shell.folder / "epochs/A").trained_step() == 8
    assert load_checkpoint(list_checkpoints(shell.folder / "epochs/A/checkpoints")[-1])["global_step"] == 8


def test_other_settings_in_place_are_recorded_as_no_training_from_the_start(shell, tiny):
    shell.here("train", *tiny, "trainer.max_steps=2", "run_dir=mixed").succeeded()
    mixed = ("trainer.max_steps=4", "optimizer.lr=0.01", "run_dir=mixed", "ckpt=mixed")
    shell.here("train", *tiny, *mixed).succeeded()
    run = RunFolder(shell.folder / "mixed")
    origin = run.origin()
    assert origin["training_key"] == training_key(run.config())
    assert origin["began_from"] == f"training {origin['earlier'][0]['training_key']} in this folder"
    assert find_run(run.path, origin["training_key"], trained=True) is None  # a sweep must not share it
    shared = shell.here("train", *tiny, "trainer.max_steps=4", "optimizer.lr=0.01", "trained_run=mixed", "run_dir=m")
    assert shared.code == 2 and "trained_run=mixed began from training" in shared.err


def test_config_of_a_longer_run_is_the_newer_one(longer):
    assert OmegaConf.load(longer[0] / "config.yaml").trainer.max_steps == 12
