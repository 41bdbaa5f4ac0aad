"""The plan for many GPUs, held against processes that are there: what each holds and what it sends."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from flowexp.backbones import Backbone, create_backbone
from flowexp.training.ema import ExponentialMovingAverage
from flowexp.training.fsdp import shard_backbone
from flowexp.training.parallel.scale import GATHERED, Machine, StepSize, share_of, state_bytes

STEP = StepSize(parameters=1_000_000, block=100_000, outside=0, activations=1000, copies=0, flops=1e9, batch=64)


COLLECTIVES = {  # that FSDP calls, by torch's version, and which argument is the whole tensor
    "all_gather_into_tensor": 0, "all_gather_single": 0, "reduce_scatter_tensor": 1, "reduce_scatter_single": 1,
}  # fmt: skip


def network() -> Backbone:
    torch.manual_seed(0)
    return create_backbone("dit_nano2", resolution=8, channels=1, width=64, heads=2, depth=2)


def local(tensor: Any) -> int:
    """Bytes of the part of a tensor that lies in this process."""
    own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return int(own.numel() * own.element_size())


def counted(collective: Callable[..., Any], sent: list[float], side: int) -> Callable[..., Any]:
    """A collective that notes what a ring sends of its whole tensor, which is its argument number `side`."""

    def call(*arguments: Any, **options: Any) -> Any:
        whole = [*arguments, *options.values()][side]
        others = (dist.get_world_size() - 1) / dist.get_world_size()
        sent.append(others * whole.numel() * whole.element_size())
        return collective(*arguments, **options)

    return call


def train_a_step(rank: int, num: int, sharded: bool, folder: str) -> None:
    """One step of a process; the first one writes the bytes that it holds, and those that it has sent."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=num)
    backbone, sent = network(), []
    model: Any = backbone
    if sharded:
        shard_backbone(backbone, init_device_mesh("cpu", (num,), mesh_dim_names=("data_parallel",)))
        for name, side in COLLECTIVES.items():
            if hasattr(dist, name):
                setattr(dist, name, counted(getattr(dist, name), sent, side))
    else:
        model = DistributedDataParallel(backbone, gradient_as_bucket_view=True)

        def note(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
            buffer = bucket.buffer()
            sent.append(2 * (num - 1) / num * buffer.numel() * buffer.element_size())
            return dist.all_reduce(buffer, async_op=True).get_future().then(lambda done: done.value()[0] / num)

        model.register_comm_hook(None, note)
    trained = {name: p for name, p in backbone.named_parameters() if p.requires_grad}
    optimizer, ema = torch.optim.AdamW(trained.values()), ExponentialMovingAverage(trained)
    model(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5), None).square().mean().backward()
    optimizer.step()
    ema.update()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.ndim]
    tensors = [*trained.values(), *(p.grad for p in trained.values()), *moments, *ema.averages.values()]
    if rank == 0:
        torch.save({"held": sum(map(local, tensors)), "sent": sum(sent)}, f"{folder}/first.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("sharded", [False, True], ids=["ddp", "fsdp"])
@pytest.mark.parametrize("num", [2, 4])
def test_processes_hold_and_send_what_the_plan_says(num: int, sharded: bool, tmp_path: Path) -> None:
    processes.start_processes(train_a_step, (num, sharded, str(tmp_path)), nprocs=num, start_method="fork")
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
