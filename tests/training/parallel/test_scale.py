"""The plan for many GPUs, held against processes that are there: what each holds and what it sends."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as processes

from flowexp.training.parallel.scale import GATHERED, Machine, StepSize, share_of, state_bytes

sys.path.append(str(Path(__file__).parent))  # processes of their own import what they run
from step_of_a_process import network, train_a_step

STEP = StepSize(parameters=1_000_000, block=100_000, outside=0, activations=1000, copies=0, flops=1e9, batch=64)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("num", [2, 4])
def test_processes_hold_and_send_what_the_plan_says(num: int, sharded: bool, tmp_path: Path) -> None:
    processes.start_processes(train_a_step, (num, sharded, str(tmp_path)), nprocs=num, start_method="spawn")
    first = torch.load(tmp_path / "first.pt")
    step = StepSize.of(network(), None, batch=8, bf16=False)
    gathered = 4 * GATHERED * step.block if sharded else 0
    assert first["held"] == pytest.approx(state_bytes(step, num, sharded) - gathered, rel=0.05)  # parts are padded
    assert first["sent"] == pytest.approx(share_of(step, num, sharded).moved, rel=0.05)


def test_bf16_halves_what_an_image_leaves_and_adds_copies_of_the_weights() -> None:
    full, half = (StepSize.of(network(), None, 8, bf16) for bf16 in (False, True))
    assert full.parameters == sum(p.numel() for p in network().parameters() if p.requires_grad)
    assert 0.4 * full.activations < half.activations < 0.8 * full.activations
    assert full.copies < 0.1 * half.copies and half.copies == pytest.approx(2 * half.parameters, rel=0.1)
    assert full.flops == half.flops


def test_efficiency_is_lost_where_more_is_sent_than_computed() -> None:
    slow = Machine(flops=1e12, gpus_per_node=8, inside=1e9, between=1e8)
    for sharded in (False, True):
        assert share_of(STEP, 1, sharded, slow).efficiency == 1  # nothing is sent
        within, across = (share_of(STEP, num, sharded, slow).efficiency for num in (8, 64))
        assert across < within <= 1
    nobody_waits = replace(STEP, flops=1e12)
    assert share_of(nobody_waits, 64, True, slow).efficiency == 1


def test_a_shard_is_smaller_than_the_whole_and_moves_half_as_much_again() -> None:
    whole, shard = (share_of(STEP, 8, sharded) for sharded in (False, True))
    assert shard.memory < whole.memory and shard.moved == pytest.approx(1.5 * whole.moved)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="a batch of 64 cannot be shared equally by 128 processes"):
        share_of(STEP, 128, False)
