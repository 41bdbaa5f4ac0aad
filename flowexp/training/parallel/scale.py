"""A step on many GPUs: the memory of each, the bytes that it moves, and the share of its time in which it computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from flowexp.backbones import Backbone

BYTES = 4  # of a weight, a gradient, a moment or an average: fp32, also where the step computes in bf16
GATHERED = 2  # blocks that FSDP holds whole at once: that which computes, and the next one


@dataclass(frozen=True)
class Machine:
    """Nodes of several GPUs. Of H100s: 40 % of the dense bf16 peak, NVLink within a node, 8 x 400 Gbit/s to others.

    Arguments:
        flops: per second and GPU, as a training reaches it.
        gpus_per_node: that share the fast links.
        inside: bytes per second and direction of a GPU within its node. between: of a node to others, by all adapters,
            over which a ring is spread.
    """

    flops: float = 0.4 * 990e12
    gpus_per_node: int = 8
    inside: float = 450e9
    between: float = 400e9

    def bandwidth(self, num: int) -> float:
        """Of the slowest link in a ring of `num` GPUs."""
        return self.inside if num <= self.gpus_per_node else self.between


@dataclass(frozen=True)
class StepSize:
    """What a step of the network takes, however many processes share it.

    Arguments:
        parameters: trained ones. block: those of its largest block. outside: those outside of the blocks.
        activations: bytes that each image leaves for the backward pass. copies: bytes that any pass leaves, such as the
            weights in bf16.
        flops: of one image, forward and backward.
        batch: images of a step, over all processes.
        moments: values that the optimizer keeps for each parameter, 2 for AdamW. averages: EMAs.
    """

    parameters: int
    block: int
    outside: int
    activations: int
    copies: int
    flops: float
    batch: int
    moments: int = 2
    averages: int = 1

    @classmethod
    def of(cls, backbone: Backbone, label: Tensor | None, batch: int, bf16: bool, averages: int = 1) -> StepSize:
        """Measured by passes of one image and of two. label: (1,), (1, L, D) or None, as the network takes it."""
        (one, forward), (two, _) = (_one_pass(backbone, label, num, bf16) for num in (1, 2))
        parameters, blocks = _trained(backbone), [_trained(block) for block in backbone.blocks]
        return cls(
            parameters=parameters,
            block=max(blocks),
            outside=parameters - sum(blocks),
            activations=two - one,
            copies=2 * one - two,
            flops=3 * forward,  # a backward pass is two forward ones
            batch=batch,
            averages=averages,
        )


@dataclass(frozen=True)
class Share:
    """One process of several. memory: bytes. moved: bytes sent in a step. efficiency: 1 where it waits for nothing."""

    memory: float
    moved: float
    efficiency: float


def share_of(step: StepSize, num: int, sharded: bool, machine: Machine | None = None) -> Share:
    """What each of `num` processes has of a step: every weight (DDP), or with `sharded` its part of them (FSDP).

    Rings: DDP sends each gradient twice but for its own part, while the backward pass computes; FSDP gathers each
    weight for the forward and again for the backward pass, and scatters each gradient, while both compute; what is
    outside of the blocks is gathered twice in a pass, as the network is entered by `encode` and by `decode`. Left out:
    loss terms, teachers, batches in flight, latency, and what libraries hold.

    Raises:
        ValueError: fewer images than processes, or a batch that they cannot share equally.
    """
    if step.batch % num:
        raise ValueError(f"a batch of {step.batch} cannot be shared equally by {num} processes")
    machine = machine or Machine()
    images = step.batch // num
    others = (num - 1) / num
    sent = 3 * step.parameters + 2 * step.outside if sharded else 2 * step.parameters
    moved = others * BYTES * sent
    compute, transfer = images * step.flops / machine.flops, moved / machine.bandwidth(num)
    exposed = max(0.0, transfer - compute * (1 if sharded else 2 / 3))
    memory = state_bytes(step, num, sharded) + step.copies + images * step.activations
    return Share(memory, moved, compute / (compute + exposed))


def state_bytes(step: StepSize, num: int, sharded: bool) -> float:
    """Bytes of weights, gradients, moments and averages on one process, and of the blocks that FSDP has gathered."""
    copies = 2 + step.moments + step.averages
    if sharded:
        return BYTES * (copies * step.parameters / num + GATHERED * step.block)
    return BYTES * copies * step.parameters


def _trained(part: nn.Module) -> int:
    return sum(p.numel() for p in part.parameters() if p.requires_grad)


def _one_pass(backbone: Backbone, label: Tensor | None, num: int, bf16: bool) -> tuple[int, int]:
    """Bytes that the forward pass of `num` equal images keeps for the backward one, and its FLOP."""
    weights = {p.untyped_storage().data_ptr() for p in backbone.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # or an address would be used again

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    device = next(backbone.parameters()).device
    x = torch.zeros(num, backbone.channels, backbone.resolution, backbone.resolution, device=device)
    precision: AbstractContextManager[object] = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    with FlopCounterMode(display=False) as counter, precision, saved_tensors_hooks(note, lambda tensor: tensor):
        backbone(
            x, torch.full((num,), 0.5, device=device), None if label is None else label.expand(num, *label.shape[1:])
        )
    return sum(kept.values()), counter.get_total_flops()
