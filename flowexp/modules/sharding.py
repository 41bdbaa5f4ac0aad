"""Sharding of a backbone over the processes of a device mesh (FSDP2)."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from flowexp.backbones import Backbone


def shard_backbone(backbone: Backbone, mesh: DeviceMesh | None) -> None:
    """Shards every block and then the rest over `mesh["data_parallel"]`; without a mesh it does nothing."""
    if mesh is None or isinstance(backbone, FSDPModule):
        return
    data_parallel = mesh["data_parallel"]
    for block in backbone.blocks:
        fully_shard(block, mesh=data_parallel)
    fully_shard(backbone, mesh=data_parallel)
    for method in ("encode", "decode", "features"):
        register_fsdp_forward_method(backbone, method)  # LCF enters the network by these, not by forward
