"""Representation alignment (REPA, Yu et al. 2024): noisy tokens, projected, should be those of a teacher."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.backbones import Backbone
from flowexp.data.sets.images import to_uint8
from flowexp.flow.choices import check_choice
from flowexp.flow.interpolants import Linear
from flowexp.flow.losses import AlignmentWeight, alignment_error, alignment_weight, weighted_mean
from flowexp.integrations.encoders import TEACHERS, Teacher, TokenCache, create_teacher
from flowexp.training.loss_term import Step, Term, check_tap


class RepresentationAlignment(Term):
    """Minus the cosine between projected tokens of one block and the tokens of a frozen teacher, averaged over tokens.

    The projector is an MLP d -> hidden -> hidden -> z with SiLU between. The teacher reads the clean picture, resized
    so that its tokens lie on the grid of the network; on another `grid` they are resampled, bilinear with
    antialiasing. It is loaded at the first step, so that a trained network is sampled without it.

    Arguments:
        lam: the term's weight; REPA: 0.5.
        teacher: name of the teacher, see `flowexp.integrations.encoders.TEACHERS`.
        tap: block that is read, from 1, REPA's encoder_depth: 8 for L and XL, 4 for B. None takes the block that LCF
            reads, two thirds of the depth.
        hidden: width of the projector.
        grid: tokens per side of the teacher; None is that of the network.
        cache: folder for the teacher's tokens, see `TokenCache`; None computes them at every step.
        teacher_options: further arguments of the teacher.
        weight: how rows count by their noise level, see `flowexp.flow.losses.alignment_weight`; "constant" is REPA, the
            others are VA-REPA's, whose term is the weighted mean over the rows of a process.
        tau, sharpness: of that weight: the level around which it falls, and how steeply "sigmoid" does.
    """

    name = "repa"
    projector: nn.Module

    def __init__(
        self,
        lam: float = 0.5,
        teacher: str = "dinov2_vitb14",
        tap: int | None = None,
        hidden: int = 2048,
        grid: int | None = None,
        cache: str | Path | None = None,
        teacher_options: Mapping[str, Any] | None = None,
        weight: AlignmentWeight = "constant",
        tau: float = 0.7,
        sharpness: float = 20.0,
    ) -> None:
        super().__init__(lam)
        alignment_weight(weight, torch.zeros(1), Linear())  # raises for another word
        if not (0 < tau < 1 and sharpness > 0):
            raise ValueError(f"terms.repa.tau must lie in (0, 1) and sharpness be positive, got {tau} and {sharpness}")
        self.weight: AlignmentWeight = weight
        self.tau = tau
        self.sharpness = sharpness
        check_choice("terms.repa.teacher", teacher, TEACHERS)
        self.teacher = teacher
        self.teacher_options = dict(teacher_options or {})
        self.tap = tap
        self.hidden = hidden
        self.grid = grid
        self.cache = cache
        self._teacher: tuple[Teacher, TokenCache | None] | None = None  # in a tuple it is no submodule

    @property
    def taps(self) -> tuple[int, ...]:
        return () if self.tap is None else (self.tap,)

    def attach(self, backbone: Backbone) -> None:
        self.tap = check_tap(self.name, backbone.default_tap if self.tap is None else self.tap, backbone)
        self.projector = projector(backbone.width_at(self.tap), self.hidden, TEACHERS[self.teacher].dim)

    def forward(self, step: Step) -> Tensor:
        tapped = step.features[self.taps[0]]
        tokens = self.projector(tapped.tokens)
        teacher = self._teacher_tokens(tapped.of(pictures(step)), _side(tokens))
        error = alignment_error(tokens, teacher)
        if self.weight == "constant":
            return tapped.share * error.mean()
        t, path = tapped.of(step.t), step.network.interpolant
        return tapped.share * weighted_mean(error, alignment_weight(self.weight, t, path, self.tau, self.sharpness))

    def _teacher_tokens(self, images: Tensor, side: int) -> Tensor:
        """The teacher's tokens (R, side^2, Z)."""
        if self._teacher is None:
            loaded = create_teacher(self.teacher, **self.teacher_options)
            self._teacher = loaded, None if self.cache is None else TokenCache(loaded, self.cache)
        teacher, cache = self._teacher
        teacher.to(images.device)
        asked = teacher if cache is None else cache
        return resample(asked.tokens(images, self.grid or side), side)


def projector(width: int, hidden: int, outputs: int) -> nn.Sequential:
    """REPA's MLP: three linear maps with SiLU between."""
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)
    )


def pictures(step: Step) -> Tensor:
    """The clean images of a step as pictures, uint8 (B, C, H, W) with C = 1 or 3."""
    if step.batch.pixels is not None:
        return step.batch.pixels
    data = step.batch.data
    if data.shape[1] not in (1, 3):
        raise ValueError(
            f"terms.repa needs pictures, and the data has {data.shape[1]} channels: choose data that keeps the "
            "pictures beside its latents"
        )
    return to_uint8(data)


def resample(tokens: Tensor, side: int) -> Tensor:
    """Tokens (B, N, D) of a square grid on another one, (B, side^2, D)."""
    own = _side(tokens)
    if own == side:
        return tokens
    grid = tokens.mT.unflatten(2, (own, own))
    return F.interpolate(grid, (side, side), mode="bilinear", antialias=True).flatten(2).mT


def _side(tokens: Tensor) -> int:
    side = math.isqrt(tokens.shape[1])
    if side**2 != tokens.shape[1]:
        raise ValueError(f"terms.repa needs tokens of a square grid, got {tokens.shape[1]}: choose another tap")
    return side
