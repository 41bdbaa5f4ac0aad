"""U-Nets in the manner of ADM (Dhariwal & Nichol 2021): residual blocks on maps, skips from the way down to the way up.

The Velocity-Deficit paper (Table 8) describes its network only as "U-Net, 76M": the architecture here is our choice,
its widths such that unet_76m has 75.6 M parameters on 4 x 32 x 32 latents with 1000 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.backbones.base import Backbone, State
from flowexp.backbones.blocks import SelfAttention, draw_as_pytorch
from flowexp.backbones.embedders import Conditioning, LabelEmbedder, TimestepEmbedder, check_conditioning, with_label
from flowexp.backbones.registry import register_backbone

TIME_SCALE = 1000.0  # as DiT and ADM, whose sinusoids read steps 0..999


@dataclass(frozen=True)
class Plan:
    """What one block does: `inputs` channels of the block before (and `skip` of the way down) to `outputs`.

    resample halves ("down") or doubles ("up") the sides. heads: of the self-attention at the end, 0 for none. keeps:
    whether the way up will read the result.
    """

    inputs: int
    outputs: int
    skip: int = 0
    resample: str = "none"
    heads: int = 0
    keeps: bool = False


class UNetBlock(nn.Module):
    """A residual block with scale and shift after its second norm, then self-attention where planned.

    At initialisation both branches are zero.
    """

    def __init__(self, plan: Plan, condition_width: int | None) -> None:
        super().__init__()
        inputs, outputs = plan.inputs + plan.skip, plan.outputs
        self.plan = plan
        self.norm1 = group_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulation = None if condition_width is None else nn.Linear(condition_width, 2 * outputs)
        self.norm2 = group_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.attention_norm = group_norm(outputs) if plan.heads else None
        self.attention = SelfAttention(outputs, plan.heads) if plan.heads else None

    def forward(self, hidden: Tensor, condition: Tensor | None = None) -> Tensor:
        """The map (B, outputs, H, W) after the block; the last channels of `hidden` are those of the skip."""
        return self._attend(self._convolve(hidden, condition))

    def _convolve(self, hidden: Tensor, condition: Tensor | None) -> Tensor:
        branch = self.conv1(self._resample(F.silu(self.norm1(hidden))))
        branch = self.conv2(F.silu(self._modulate(self.norm2(branch), condition)))
        # under autocast the residual stream stays in float32
        return self.shortcut(self._resample(hidden)).to(hidden.dtype) + branch

    def _modulate(self, branch: Tensor, condition: Tensor | None) -> Tensor:
        if self.modulation is None or condition is None:
            return branch
        scale, shift = self.modulation(F.silu(condition))[:, :, None, None].chunk(2, dim=1)
        return branch * (1 + scale) + shift

    def _resample(self, hidden: Tensor) -> Tensor:
        if self.plan.resample == "down":
            return F.avg_pool2d(hidden, 2)
        if self.plan.resample == "up":
            return F.interpolate(hidden, scale_factor=2.0, mode="nearest")
        return hidden

    def _attend(self, hidden: Tensor) -> Tensor:
        if self.attention is None or self.attention_norm is None:
            return hidden
        tokens = self.attention_norm(hidden).flatten(2).transpose(1, 2)
        return hidden + self.attention(tokens).transpose(1, 2).unflatten(2, hidden.shape[2:])


class UNet(Backbone):
    """A class-conditional U-Net whose output at initialisation is exactly zero.

    Level l works at resolution / 2^l with width * multipliers[l] channels. On the way down each level has num_res
    blocks and one that halves the sides; then comes the middle block; on the way up each level has num_res + 1 blocks,
    each of which reads one skip, and one that doubles the sides. Blocks at the levels of attention_levels and the
    middle end in self-attention with heads of head_width channels. t and label modulate every block (conditioning
    "none" removes both).

    Taps count all of these from 1: `middle` is the middle block, the default tap; the way down lies before it, the way
    up (the decoder, which DDAE finds to hold the best features) behind it. Blocks differ in width: `width_at(tap)`;
    `width` is that of the middle.
    """

    def __init__(
        self,
        *,
        resolution: int,
        channels: int,
        num_classes: int | None = None,
        label_dropout: float = 0.1,
        conditioning: Conditioning = "adaln_zero",
        width: int,
        multipliers: Sequence[int],
        num_res: int,
        attention_levels: Sequence[int],
        head_width: int,
    ) -> None:
        _check_sizes(resolution, width, multipliers, head_width)
        check_conditioning(conditioning, num_classes)
        widths = [width * multiplier for multiplier in multipliers]
        down = _way_down(width, widths, num_res, attention_levels, head_width)
        middle = [Plan(widths[-1], widths[-1], heads=widths[-1] // head_width)]
        plans = down + middle + _way_up(width, down, widths, num_res, attention_levels, head_width)
        super().__init__(
            resolution=resolution,
            channels=channels,
            num_classes=num_classes,
            label_dropout=label_dropout,
            depth=len(plans),
            width=widths[-1],
        )
        self.plans = plans
        self.middle = len(down) + 1
        condition_width = None if conditioning == "none" else 4 * width
        self.t_embedder = None if condition_width is None else TimestepEmbedder(condition_width, TIME_SCALE)
        self.y_embedder = None if num_classes is None else LabelEmbedder(num_classes, 4 * width)
        self.stem = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(UNetBlock(plan, condition_width) for plan in plans)
        self.final_norm = group_norm(widths[0])
        self.final_conv = nn.Conv2d(widths[0], channels, 3, padding=1)
        self.initialize()

    @property
    def default_tap(self) -> int:
        """The middle block."""
        return self.middle

    def width_at(self, tap: int) -> int:
        """The channels of the map after a block."""
        self._check_taps([tap])
        return self.plans[tap - 1].outputs

    def embed(self, x: Tensor, t: Tensor, label: Tensor | None) -> State:
        """The map (B, width, H, W) after the first convolution, also the first skip, and the condition (B, D)."""
        hidden = self.stem(x).to(x.dtype)
        condition = None if self.t_embedder is None else with_label(self.t_embedder(t), label, self.y_embedder)
        return State(hidden, condition, block=0, carried=(hidden,))

    def run_block(self, block: nn.Module, state: State) -> State:
        """One more block, which first takes the last skip, or leaves one, where it is planned to."""
        plan, hidden, carried = self.plans[state.block], state.hidden, state.carried
        if plan.skip:
            hidden, carried = torch.cat([hidden, carried[-1]], dim=1), carried[:-1]
        hidden = block(hidden, state.condition)
        carried = (*carried, hidden) if plan.keeps else carried
        return replace(state, hidden=hidden, carried=carried, block=state.block + 1)

    def compile_blocks(self, **options: Any) -> None:
        """As for every network. Each plan of a block needs a graph, of which PyTorch allows 8 by default."""
        limit = torch._dynamo.config.recompile_limit
        torch._dynamo.config.recompile_limit = max(limit, 4 * self.depth)  # with or without gradient, with autocast
        super().compile_blocks(**options)

    def head(self, state: State) -> Tensor:
        """The velocity (B, C, H, W), in the type of the map (float32 under autocast)."""
        return self.final_conv(F.silu(self.final_norm(state.hidden))).to(state.hidden.dtype)

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw the weights anew: PyTorch's defaults, but zero in the last layer of every branch and of the network."""
        draw_as_pytorch(self)
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for name, weight in self.named_parameters():
            if name.startswith("final_conv") or "conv2" in name or "attention.proj" in name:
                nn.init.zeros_(weight)


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm in 32 groups, or in fewer of at least 4 channels each."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-5)


def _way_down(
    stem: int, widths: Sequence[int], num_res: int, attention_levels: Sequence[int], head_width: int
) -> list[Plan]:
    plans, inputs = [], stem
    for level, width in enumerate(widths):
        heads = width // head_width if level in attention_levels else 0
        for _ in range(num_res):
            plans.append(Plan(inputs, width, heads=heads, keeps=True))
            inputs = width
        if level < len(widths) - 1:
            plans.append(Plan(width, width, resample="down", keeps=True))
    return plans


def _way_up(
    stem: int,
    down: Sequence[Plan],
    widths: Sequence[int],
    num_res: int,
    attention_levels: Sequence[int],
    head_width: int,
) -> list[Plan]:
    plans, inputs = [], widths[-1]
    skips = [stem, *(plan.outputs for plan in down)]
    for level, width in reversed(list(enumerate(widths))):
        heads = width // head_width if level in attention_levels else 0
        for _ in range(num_res + 1):
            plans.append(Plan(inputs, width, skip=skips.pop(), heads=heads))
            inputs = width
        if level > 0:
            plans.append(Plan(width, width, resample="up"))
    return plans


def _check_sizes(resolution: int, width: int, multipliers: Sequence[int], head_width: int) -> None:
    halvings = 2 ** (len(multipliers) - 1)
    if resolution % halvings:
        raise ValueError(f"resolution must be a multiple of {halvings} for {len(multipliers)} levels, got {resolution}")
    if width % 32 or width % head_width:
        raise ValueError(f"width must be a multiple of 32 and of head_width={head_width}, got {width}")


SIZES: dict[str, dict[str, Any]] = {
    "76m": {"width": 128, "multipliers": (1, 2, 3, 3), "num_res": 2, "attention_levels": (1, 2, 3), "head_width": 64},
    "nano": {"width": 32, "multipliers": (1, 2, 2), "num_res": 1, "attention_levels": (1, 2), "head_width": 32},
}


for _size, _options in SIZES.items():
    register_backbone(f"unet_{_size}")(partial(UNet, **_options))
