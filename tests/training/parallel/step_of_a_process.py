"""A step of one of several processes, with the bytes that it holds and sends: run in fresh processes by test_scale."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from flowexp.backbones import Backbone, create_backbone
from flowexp.training.ema import ExponentialMovingAverage
from flowexp.training.fsdp import shard_backbone

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
