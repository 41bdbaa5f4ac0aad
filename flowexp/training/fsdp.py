"""Sharding of a backbone over the processes of a device mesh (FSDP2)."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from flowexp.backbones import Backbone
from flowexp.training.loss_term import Term


class FullySharded(ModelParallelStrategy):
    """Splits weights, gradients, optimizer and EMA over all processes of all machines.

    Its checkpoints are those of any other strategy, one file: runs are resumed with it or without. Lightning numbers
    the optimizer's state in them by all parameters, and everybody else by those that are trained.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes  # Lightning's "auto" is the number of machines
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """All of the optimizer's state on the first process, nothing on the others."""
        state = super().optimizer_state(optimizer)
        numbers = {old: new for new, old in enumerate(_parameters_in(state))}
        return _renamed(state, numbers) if state else state

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads and verifies the whole file on every process, and splits what is in it."""
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        assert self.model is not None
        checkpoint = self.checkpoint_io.load_checkpoint(self.broadcast(checkpoint_path))
        whole = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=whole)
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            ordered = (names[parameter] for group in optimizer.param_groups for parameter in group["params"])
            set_optimizer_state_dict(self.model, optimizer, _renamed(state, dict(enumerate(ordered))), options=whole)
        return checkpoint


def _parameters_in(state: dict[str, Any]) -> list[Any]:
    """The keys of an optimizer's parameters, in its order."""
    return [key for group in state.get("param_groups", []) for key in group["params"]]


def _renamed(state: dict[str, Any], names: dict[Any, Any]) -> dict[str, Any]:
    """An optimizer's state with its parameters called otherwise."""
    groups = [{**group, "params": [names[key] for key in group["params"]]} for group in state["param_groups"]]
    return {"state": {names[key]: values for key, values in state["state"].items()}, "param_groups": groups}


def is_sharded(network: nn.Module) -> bool:
    """Whether the weights are split over processes by FSDP."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # which most runs do not import: it takes half a second
    return fsdp is not None and isinstance(network, fsdp.FSDPModule)


def shard_terms(terms: Iterable[Term], mesh: DeviceMesh | None) -> None:
    """Shards the parameters of loss terms over `mesh["data_parallel"]`; without a mesh it does nothing."""
    if mesh is None:
        return
    from torch.distributed.fsdp import fully_shard

    for term in terms:
        if not is_sharded(term) and any(p.requires_grad for p in term.parameters()):
            fully_shard(term, mesh=mesh["data_parallel"])


def shard_backbone(backbone: Backbone, mesh: DeviceMesh | None) -> None:
    """Shards every block and then the rest over `mesh["data_parallel"]`; without a mesh it does nothing.

    The rest is let go after each forward as the blocks are: weights that stay gathered would outlive an exchange with
    their EMA.
    """
    if mesh is None or is_sharded(backbone):
        return
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    data_parallel = mesh["data_parallel"]
    for block in backbone.blocks:
        fully_shard(block, mesh=data_parallel)
    fully_shard(backbone, mesh=data_parallel, reshard_after_forward=True)
    for method in ("encode", "decode", "features"):
        register_fsdp_forward_method(backbone, method)  # LCF enters the network by these, not by forward
