"""MMDiT (SD3): image and text tokens with separate weights and one attention over both, in REPA's size.

Sizes, the single modulation by t (no pooled text) and the lack of zero initialisation are those of REPA's mmdit.py.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from flowexp.backbones.base import Backbone, State
from flowexp.backbones.blocks import (
    AdaLNHead,
    Mlp,
    PatchEmbed,
    attend,
    check_sizes,
    draw_as_pytorch,
    layer_norm,
    modulate,
    modulation,
    unpatchify,
)
from flowexp.backbones.embedders import Conditioning, TimestepEmbedder, sincos_2d
from flowexp.backbones.registry import register_backbone


class Stream(nn.Module):
    """What one modality owns of a joint block: norms, projections and MLP, shifted, scaled and gated by the condition.

    reads_only: the modality is attended to and then dropped, so that nothing follows its keys and values.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float, reads_only: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = layer_norm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.adaLN_modulation = modulation(width, 2 if reads_only else 6)
        if reads_only:
            return
        self.proj = nn.Linear(width, width)
        self.norm2 = layer_norm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def project(self, tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Queries, keys and values of the tokens (B, N, D), side by side: (3, B, heads, N, D / heads)."""
        qkv = self.qkv(modulate(self.norm1(tokens), shift, scale))
        return rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=self.heads)

    def finish(self, tokens: Tensor, attended: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        """The tokens (B, N, D) after both branches; parts: gate, then shift, scale and gate of the MLP."""
        gate, shift, scale, gate_mlp = parts
        tokens = tokens + gate[:, None] * self.proj(attended)
        return tokens + gate_mlp[:, None] * self.mlp(modulate(self.norm2(tokens), shift, scale))


class JointBlock(nn.Module):
    """Two streams, text and image, whose tokens attend to all tokens of both. The last block drops the text."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, last: bool) -> None:
        super().__init__()
        self.last = last
        self.text = Stream(width, heads, mlp_ratio, reads_only=last)
        self.image = Stream(width, heads, mlp_ratio)

    def forward(self, image: Tensor, text: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
        """The image's tokens (B, N, D) and the text's (B, L, D), or None behind the last block."""
        of_text = self.text.adaLN_modulation(condition).chunk(2 if self.last else 6, dim=1)
        of_image = self.image.adaLN_modulation(condition).chunk(6, dim=1)
        projected = [self.text.project(text, *of_text[:2]), self.image.project(image, *of_image[:2])]
        attended = rearrange(attend(*torch.cat(projected, dim=3)), "b h n d -> b n (h d)")
        text_part, image_part = attended.split([text.shape[1], image.shape[1]], dim=1)
        image = self.image.finish(image, image_part, of_image[2:])
        return image, None if self.last else self.text.finish(text, text_part, of_text[2:])


class MMDiT(Backbone):
    """A transformer on patches and on the embedded tokens of a caption; labels are text embeddings (B, L, text_dim).

    Modulation comes from t alone, multiplied by time_scale (1: REPA). No label, or a hidden one, is the embedding of
    the empty caption: zeros until `set_null_text` stores another; it lies in the state dict as `null_text`. The state's
    tokens are the image's, the text's are carried.
    """

    null_text: Tensor
    pos_embed: Tensor

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
        text_dim: int = 768,
        text_length: int = 77,
        time_scale: float = 1.0,
        mlp_ratio: float = 4.0,
    ) -> None:
        check_sizes(resolution, patch, width, heads)
        _check_text_only(conditioning, num_classes)
        super().__init__(
            resolution=resolution,
            channels=channels,
            num_classes=None,
            label_dropout=label_dropout,
            depth=depth,
            width=width,
        )
        self.patch = patch
        self.x_embedder = PatchEmbed(resolution, patch, channels, width)
        self.register_buffer("pos_embed", torch.empty(1, (resolution // patch) ** 2, width))
        self.t_embedder = TimestepEmbedder(width, time_scale)
        self.context_embedder = nn.Linear(text_dim, width)
        self.register_buffer("null_text", torch.empty(text_length, text_dim))
        last = [False] * (depth - 1) + [True]
        self.blocks = nn.ModuleList(JointBlock(width, heads, mlp_ratio, is_last) for is_last in last)
        self.final_layer = AdaLNHead(width, patch**2 * channels)
        self.initialize()

    @property
    def takes(self) -> Literal["nothing", "class", "text"]:
        return "text"

    def null_condition(self, label: Tensor | None) -> Tensor | None:
        """The embedding of the empty caption for every sample of label: (B, L, text_dim); None for None."""
        return None if label is None else self.null_text.to(label).expand(len(label), -1, -1)

    @torch.no_grad()
    def set_null_text(self, embedding: Tensor) -> None:
        """Store the embedding (L, text_dim) of the empty caption. Raises ValueError for another shape."""
        self._check_text(embedding.shape)
        self.null_text.copy_(embedding)

    def embed(self, x: Tensor, t: Tensor, label: Tensor | None) -> State:
        """Patches plus their positions; the text's tokens carried along; t's vector as the condition."""
        text = self.null_text.expand(len(x), -1, -1) if label is None else label
        self._check_text(text.shape[1:])
        # under autocast the sum with the float32 positions keeps the residual stream in float32, and so the text's
        tokens = self.x_embedder(x) + self.pos_embed
        context = self.context_embedder(text.to(tokens.dtype)).to(tokens.dtype)
        return State(tokens, self.t_embedder(t), block=0, carried=(context,))

    def run_block(self, block: nn.Module, state: State) -> State:
        image, text = block(state.hidden, *state.carried, state.condition)
        return replace(state, hidden=image, carried=() if text is None else (text,), block=state.block + 1)

    def head(self, state: State) -> Tensor:
        """The velocity (B, C, H, W), in the type of the tokens (float32 under autocast)."""
        return unpatchify(self.final_layer(state.hidden, state.condition).to(state.hidden.dtype), self.patch)

    @torch.no_grad()
    def initialize(self) -> None:
        """Draw the weights anew by PyTorch's defaults, as REPA does (nothing is zero); the empty caption is zeros."""
        draw_as_pytorch(self)
        self.pos_embed.copy_(sincos_2d(self.resolution // self.patch, self.width))
        self.null_text.zero_()

    def _check_text(self, shape: torch.Size) -> None:
        if shape != self.null_text.shape:
            needed, got = tuple(self.null_text.shape), tuple(shape)
            raise ValueError(
                f"a caption's embedding must be (text_length, text_dim) = {needed}, got {got}: "
                "set backbone.text_length and backbone.text_dim to those of the text encoder"
            )


def _check_text_only(conditioning: str, num_classes: int | None) -> None:
    if conditioning != "adaln_zero":
        raise ValueError(f"an MMDiT is always modulated by t: pass conditioning='adaln_zero', got {conditioning!r}")
    if num_classes is not None:
        raise ValueError(f"an MMDiT takes text, not classes: pass num_classes=None, got {num_classes}")


SIZES = {  # depth, width, heads, patch
    "repa": (24, 768, 24, 2),
    "nano": (6, 128, 4, 2),
    "nano4": (6, 128, 4, 4),
}


for _size, (_depth, _width, _heads, _patch) in SIZES.items():
    register_backbone(f"mmdit_{_size}")(partial(MMDiT, depth=_depth, width=_width, heads=_heads, patch=_patch))
