"""Sharding of a backbone over the processes of a device mesh (FSDP2)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning_utilities.core.apply_func import apply_to_collection
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.optim import Optimizer

from flowexp.backbones import Backbone
from flowexp.records.files.atomic import partial_of
from flowexp.training.checkpoints import IN_BACKGROUND, CheckpointError
from flowexp.training.ema import whole
from flowexp.training.loss_term import Term

if TYPE_CHECKING:
    from flowexp.training.checkpoints.shards import Saving

log = logging.getLogger(__name__)


class FullySharded(ModelParallelStrategy):
    """Splits weights, gradients, optimizer and EMA over all processes of all machines.

    Its checkpoints are those of any other strategy, one file, or after `shard_checkpoints` a folder to which each
    process writes its share: runs are resumed with it or without, by any number of processes. Lightning numbers the
    optimizer's state in them by all parameters, and everybody else by those that are trained.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, **options)
        self._saving: Saving | None = None

    def shard_checkpoints(self) -> None:
        """Makes each checkpoint from now on a folder, see `flowexp.training.checkpoints.shards`."""
        self._save_distributed_checkpoint = True

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes  # Lightning's "auto" is the number of machines
        super().setup_environment()

    @cached_property
    def _beside_training(self) -> distributed.ProcessGroup:
        """All processes, on the CPU: what writes and reads checkpoints talks there, and the training elsewhere."""
        return cast(distributed.ProcessGroup, distributed.new_group(backend="gloo"))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state: all of it on the first process and nothing on the others, or the share of each."""
        state = super().optimizer_state(optimizer)
        numbers = {old: new for new, old in enumerate(_parameters_in(state))}
        return _renamed(state, numbers) if state else state

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Writes one file, or each process its share; with IN_BACKGROUND the latter while training goes on.

        Raises:
            CheckpointError: this checkpoint could not be written, or the former one in the background.
        """
        if not self._save_distributed_checkpoint:
            checkpoint = apply_to_collection(checkpoint, Tensor, whole)  # all processes put the averages together
            super(ModelParallelStrategy, self).save_checkpoint(checkpoint, filepath)
            return
        from flowexp.training.checkpoints import shards

        self._wait_for_checkpoint()
        path, partial = self.broadcast((Path(filepath), partial_of(Path(filepath))))
        self._saving = shards.save(checkpoint, path, partial, self._beside_training, self.is_global_zero)
        if storage_options != IN_BACKGROUND:
            self._wait_for_checkpoint()

    def _wait_for_checkpoint(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.wait()

    def teardown(self) -> None:
        try:
            self._wait_for_checkpoint()
        except CheckpointError as error:  # where training ends by another error, that one is raised
            log.warning("%s", error)
        super().teardown()

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Verifies the whole checkpoint on every process, and reads its share of a folder, or all of a file."""
        from torch.distributed.checkpoint.state_dict import (
            StateDictOptions,
            set_model_state_dict,
            set_optimizer_state_dict,
        )

        assert self.model is not None
        path = Path(self.broadcast(checkpoint_path))
        checkpoint = self._share_of(path) if path.is_dir() else self.checkpoint_io.load_checkpoint(path)
        how = StateDictOptions(full_state_dict=path.is_file(), broadcast_from_rank0=path.is_file())
        set_model_state_dict(self.model, checkpoint["state_dict"], options=how)
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            ordered = (names[parameter] for group in optimizer.param_groups for parameter in group["params"])
            set_optimizer_state_dict(self.model, optimizer, _renamed(state, dict(enumerate(ordered))), options=how)
        return checkpoint

    def _share_of(self, folder: Path) -> dict[str, Any]:
        from flowexp.training.checkpoints import shards

        shards.check(folder)
        return shards.load(folder, mesh=self.device_mesh["data_parallel"], group=self._beside_training)


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
