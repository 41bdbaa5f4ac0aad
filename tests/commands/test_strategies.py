"""Two processes train what one trains: the same rows of noise, the same averages, the same checkpoints."""

from __future__ import annotations

import json

import pytest
import torch

from flowexp.cli.assembly.rebuilding import load_run
from flowexp.training.checkpoints import list_checkpoints, step_of

pytestmark = pytest.mark.slow


IN_FLOAT64 = "+callbacks.float64._target_=witnesses.InFloat64"


@pytest.fixture(scope="module")
def alone(shell, lcf):
    """The folder of an LCF training by one process, in float64 as all here."""
    shell.here("train", *lcf, IN_FLOAT64, "run_dir=in_float64").succeeded()
    return shell.folder / "in_float64"


@pytest.fixture(scope="module")
def ddp_sweep(shell, tiny):
    """The folders of a sweep over T_min, each job on two processes; at T_min=20 most batches have no anchor."""
    two_processes = ("strategy=ddp", "trainer.devices=2", "+callbacks.ranks._target_=witnesses.Ranks")
    swept = ("-m", "objective=lcf", "objective.T_min=20,200", "hydra.sweep.dir=ddp_sweep")
    shell.run("train", *tiny, *two_processes, IN_FLOAT64, *swept).succeeded()
    return [shell.folder / "ddp_sweep" / job for job in ("0", "1")]


@pytest.fixture(scope="module")
def sharded(shell, lcf, alone):
    """From step 4 of `alone` on, checkpoints split over two processes as well; the EMA is swapped in between steps."""
    witness = "+callbacks.averages._target_=witnesses.Averages"
    start = alone / "checkpoints" / "step_00000004.ckpt"
    arguments = ("strategy=fsdp", "trainer.devices=2", "checkpoint.sharded=true", witness, f"ckpt={start}")
    shell.run("train", *lcf, IN_FLOAT64, *arguments, "run_dir=sharded").succeeded()
    return shell.folder / "sharded"


def assert_close(found: dict, expected: dict) -> None:
    """Equal but for the order of sums in float64, tensor by tensor, which AdamW may enlarge."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        error = (found[name] - value).abs().max() / value.abs().max().clamp(min=1e-3)
        assert value.dtype in (torch.float64, torch.int64) and error < 1e-9, f"{name} differs by {error:.1e}"


def moments(state: dict) -> dict:
    """AdamW's averages of the gradients, by number."""
    (optimizer,) = state["optimizer_states"]
    return {number: values["exp_avg"] for number, values in optimizer["state"].items()}


def assert_same_training(found: dict, expected: dict) -> None:
    assert_close(found["state_dict"], expected["state_dict"])
    assert_close(found["ema"]["averages"], expected["ema"]["averages"])
    assert_close(moments(found), moments(expected))
    assert found["ema"]["num_updates"] == expected["ema"]["num_updates"]


def test_both_processes_of_a_job_train_its_settings_and_jobs_differ(ddp_sweep):
    seen = [[json.loads((job / f"rank{rank}.json").read_text()) for rank in (0, 1)] for job in ddp_sweep]
    for first, second in seen:
        assert first == second
        assert first["world_size"] == 2
    assert [ranks[0]["T_min"] for ranks in seen] == [0.02, 0.2]
    assert seen[0][0]["weights"] != seen[1][0]["weights"]


def test_two_processes_train_the_weights_of_one(ddp_sweep, alone, trained_state):
    for path in list_checkpoints(alone / "checkpoints"):
        found = trained_state(ddp_sweep[1] / "checkpoints" / path.name)
        assert_same_training(found, trained_state(path))


def test_batches_without_an_anchor_do_not_stop_two_processes(ddp_sweep, alone):
    newest = [step_of(list_checkpoints(folder / "checkpoints")[-1]) for folder in (ddp_sweep[0], alone)]
    assert newest[0] == newest[1]


def test_sharded_processes_go_on_from_an_ordinary_checkpoint_to_the_weights_of_one(sharded, alone, trained_state):
    paths = list_checkpoints(sharded / "checkpoints")
    assert [step_of(path) for path in paths] == [6, 8, 10, 12]
    for path in paths:
        assert_same_training(trained_state(path), trained_state(alone / "checkpoints" / path.name))


def test_sharded_processes_use_the_same_average(sharded, alone, trained_state):
    first, second = (torch.load(sharded / f"velocity_rank{rank}.pt") for rank in (0, 1))
    module, _, _ = load_run(alone)
    network, averages = (
        module.backbone.double(),
        trained_state(alone / "checkpoints/step_00000012.ckpt")["ema"]["averages"],
    )
    assert network.load_state_dict(averages, strict=False).unexpected_keys == []
    with torch.no_grad():
        expected = network(torch.ones(1, 1, 8, 8, dtype=torch.float64), torch.full((1,), 0.5))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, expected, rtol=1e-9, atol=1e-9)


def test_one_process_reads_what_two_have_written(sharded):
    assert all(path.is_dir() for path in list_checkpoints(sharded / "checkpoints"))
    module, _, step = load_run(sharded)
    assert step == 12
    assert module.sample(range(2), seed=0).images.isfinite().all()
