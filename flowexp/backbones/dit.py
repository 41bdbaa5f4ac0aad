"""DiT and SiT: one transformer on patches, and its named sizes.

Architecture, initialisation and state-dict keys are those of SiT's models.py; DiT differs in the scale of t alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from flowexp.backbones.base import Backbone, State
from flowexp.backbones.blocks import (
    AdaLNHead,
    AdaLNZeroBlock,
    PatchEmbed,
    PlainBlock,
    PlainHead,
    check_sizes,
    unpatchify,
)
from flowexp.backbones.embedders import (
    Conditioning,
    LabelEmbedder,
    TimestepEmbedder,
    check_conditioning,
    sincos_2d,
    with_label,
)
from flowexp.backbones.registry import register_backbone
from flowexp.backbones.self_conditioning import SelfConditioner


class DiT(Backbone):
    """A diffusion transformer whose output at initialisation is exactly zero.

    depth x width x heads, square patches of `patch` pixels, MLPs mlp_ratio times as wide. time_scale multiplies t
    before its embedding (1000: DiT, 1: SiT). learn_sigma doubles the head's channels as SiT's checkpoints do; the
    second half is never used. conditioning "none" removes t, labels and every modulation, which leaves the parameter
    counts of LCF Table 1. self_conditioning: a tap whose mean token joins the condition of all that lies behind it, an
    approximation of DDAE++ (SelfConditioner), or None.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channels: int,
        num_classes: int | None = None,
        label_dropout: float = 0.1,
        conditioning: Conditioning = "adaln_zero",
        depth: int,
        width: int,
        heads: int,
        patch: int,
        time_scale: float,
        mlp_ratio: float = 4.0,
        learn_sigma: bool = False,
        self_conditioning: int | None = None,
    ) -> None:
        super().__init__(
            resolution=resolution,
            channels=channels,
            num_classes=num_classes,
            label_dropout=label_dropout,
            depth=depth,
            width=width,
        )
        check_sizes(resolution, patch, width, heads)
        check_conditioning(conditioning, num_classes)
        _check_self_conditioning(self_conditioning, depth, conditioning)
        self.patch = patch
        self.learn_sigma = learn_sigma
        self.conditioning = conditioning
        conditioned = conditioning != "none"
        self.x_embedder = PatchEmbed(resolution, patch, channels, width)
        self.pos_embed = nn.Parameter(torch.empty(1, (resolution // patch) ** 2, width), requires_grad=False)
        self.t_embedder = TimestepEmbedder(width, time_scale) if conditioned else None
        self.y_embedder = None if num_classes is None else LabelEmbedder(num_classes, width)
        block = AdaLNZeroBlock if conditioned else PlainBlock
        self.blocks = nn.ModuleList(block(width, heads, mlp_ratio) for _ in range(depth))
        outputs = patch**2 * channels * (2 if learn_sigma else 1)
        self.final_layer = (AdaLNHead if conditioned else PlainHead)(width, outputs)
        self.self_conditioning = self_conditioning
        self.self_conditioner = None if self_conditioning is None else SelfConditioner(width)
        self.initialize()

    def embed(self, x: Tensor, t: Tensor, label: Tensor | None) -> State:
        """Patches plus their positions, (B, N, D), and the condition (B, D): the vector of t plus that of the label."""
        # under autocast the sum with the float32 positions keeps the residual stream in float32
        tokens = self.x_embedder(x) + self.pos_embed
        if self.t_embedder is None:
            return State(tokens, condition=None, block=0)
        time = self.t_embedder(t)
        carried = () if self.self_conditioner is None else (self.self_conditioner.gain(time),)
        return State(tokens, with_label(time, label, self.y_embedder), block=0, carried=carried)

    def run_block(self, block: nn.Module, state: State) -> State:
        """One more block; from the one behind the self-conditioning tap on, blocks take the new condition."""
        if self.self_conditioner is not None and state.block == self.self_conditioning:
            found = self.self_conditioner(state.hidden, *state.carried)
            state = replace(state, condition=state.condition + found, carried=())
        return super().run_block(block, state)

    def head(self, state: State) -> Tensor:
        """The velocity (B, C, H, W), in the type of the tokens (float32 under autocast)."""
        patches = self.final_layer(state.hidden, state.condition).to(state.hidden.dtype)
        return unpatchify(patches, self.patch)[:, : self.channels]

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw the weights anew as SiT does; also what a network built on the meta device needs after to_empty."""
        self.pos_embed.copy_(sincos_2d(self.resolution // self.patch, self.width))
        for name, weight in self.named_parameters():
            if name != "pos_embed":
                _draw(name, weight)


def _draw(name: str, weight: Tensor) -> None:
    """SiT's initialisation: zero output, zero modulation and gains, small embedders, Xavier elsewhere."""
    zero = ("adaLN_modulation", "self_conditioner.gain", "final_layer.linear.weight")
    if weight.ndim == 1 or any(part in name for part in zero):
        nn.init.zeros_(weight)
    elif name.startswith(("t_embedder", "y_embedder")):
        nn.init.normal_(weight, std=0.02)
    else:
        nn.init.xavier_uniform_(weight.flatten(1))  # the patch convolution is the Linear map it stands for


def _check_self_conditioning(tap: int | None, depth: int, conditioning: str) -> None:
    if tap is None:
        return
    if conditioning == "none":
        raise ValueError(f"conditioning='none' has no place for self_conditioning: pass None, got {tap}")
    if not 1 <= tap < depth:
        raise ValueError(f"self_conditioning is a tap with blocks behind it, in 1..{depth - 1}, got {tap}")


SIZES = {  # depth, width, heads
    "nano": (6, 128, 4),
    "tiny": (12, 192, 3),
    "s": (12, 384, 6),
    "b": (12, 768, 12),
    "l": (24, 1024, 16),
    "xl": (28, 1152, 16),
}


def _register(family: str, size: str, patch: int, time_scale: float) -> None:
    depth, width, heads = SIZES[size]
    build = partial(DiT, depth=depth, width=width, heads=heads, patch=patch, time_scale=time_scale)
    register_backbone(f"{family}_{size}{patch}")(build)


for _size in ("s", "b", "l", "xl"):  # SiT's sizes, its t in [0, 1]
    for _patch in (2, 4):
        _register("sit", _size, _patch, time_scale=1.0)
for _size in ("s", "b"):  # LCF Table 1
    _register("dit", _size, 2, time_scale=1000.0)
for _size in ("nano", "tiny"):  # for CPUs
    for _patch in (2, 4):
        _register("dit", _size, _patch, time_scale=1000.0)
