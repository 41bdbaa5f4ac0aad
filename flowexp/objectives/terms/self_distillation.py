"""Contrastive self-distillation after DDAE++ (Xiang et al. 2025, arXiv 2505.10999), compared in LCF Fig. 7."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone
from flowexp.flow.interpolants import Interpolant, Linear
from flowexp.flow.losses import view_contrastive_error
from flowexp.objectives.terms.slow_copy import follow, trunk_of
from flowexp.objectives.terms.views import crop_and_flip
from flowexp.training.loss_term import Step, Term, check_tap
from flowexp.training.parallel.rows import gather_rows


# An approximation, not a reproduction: DDAE++ has no public code, and its equations are not recoverable.
class SelfDistillation(Term):
    """Contrast two views of each image, one read by the network and one by its slow copy, within the batch.

    An approximation of DDAE++, whose self-distillation is known to be like MoCo v3's: symmetric InfoNCE between
    predictor(projector(h)) of the network and projector(h) of a copy of both that follows with momentum, h being the
    mean token of one block at a low noise level. The views are random crops with padding, mirrored where the data may
    be; both are noised anew. Left out are its conditioning on the augmentation and the self-conditioning of later
    blocks. Keys are those of all processes, as MoCo v3's. The MLPs have no batch normalisation.

    The copy (the blocks up to the tap) is a submodule without gradient: it is saved, so that a resumed run is the
    same, and DDP has nothing to exchange. It costs a pass of 2 B rows to the tap with gradient, and one without.

    Arguments:
        lam: the term's weight.
        tap: block that is read, from 1; None takes the block that LCF reads, two thirds of the depth.
        t: noise level of the views.
        momentum: of the copy, per optimizer step (MoCo v3: 0.99).
        tau: temperature (MoCo v3: 0.2).
        hidden, dim: width of the MLPs and length of what is compared.
        shift_frac: largest shift of a crop, of the image's side.
        flip: whether half of the views are mirrored; of digits and letters none should be.
        interpolant: the path by which the views are noised; None is linear.
    """

    name = "self_distillation"
    student: nn.ModuleDict
    copy: nn.ModuleDict

    def __init__(
        self,
        lam: float = 0.5,
        tap: int | None = None,
        t: float = 0.05,
        momentum: float = 0.99,
        tau: float = 0.2,
        hidden: int = 2048,
        dim: int = 256,
        shift_frac: float = 0.125,
        flip: bool = True,
        interpolant: Interpolant | None = None,
    ) -> None:
        super().__init__(lam)
        if not (0 <= t <= 1 and 0 <= momentum <= 1 and 0 <= shift_frac <= 1 and tau > 0):
            raise ValueError(
                f"terms.self_distillation needs t, momentum and shift_frac in [0, 1] and a positive tau, "
                f"got {t}, {momentum}, {shift_frac} and {tau}"
            )
        self.tap = tap
        self.t = t
        self.momentum = momentum
        self.tau = tau
        self.hidden = hidden
        self.dim = dim
        self.shift_frac = shift_frac
        self.flip = flip
        self.interpolant = interpolant or Linear()

    def attach(self, backbone: Backbone) -> None:
        self.tap = check_tap(self.name, backbone.default_tap if self.tap is None else self.tap, backbone)
        width = backbone.width_at(self.tap)
        self.student = nn.ModuleDict(
            {"projector": _mlp(width, self.hidden, self.dim), "predictor": _mlp(self.dim, self.hidden, self.dim)}
        )
        trunk = trunk_of(backbone, self.tap)
        self.copy = nn.ModuleDict({"trunk": trunk, "projector": deepcopy(self.student["projector"])})
        self.copy.requires_grad_(False)

    def forward(self, step: Step) -> Tensor:
        views = torch.cat([self._view(step, number) for number in range(2)])
        queries = self.student["predictor"](self.student["projector"](self._mean_token(step.backbone, views)))
        with torch.no_grad():
            keys = self.copy["projector"](self._mean_token(self.copy["trunk"], views))
        (first, second), (first_key, second_key) = queries.chunk(2), map(gather_rows, keys.chunk(2))
        pairs = ((first, second_key), (second, first_key))
        return torch.cat([view_contrastive_error(query, key, self.tau, row) for query, (key, row) in pairs]).mean()

    @torch.no_grad()
    def after_step(self, backbone: Backbone) -> None:
        """The copy moves towards the network: copy <- momentum copy + (1 - momentum) network."""
        pairs = [(self.copy["trunk"], backbone), (self.copy["projector"], self.student["projector"])]
        follow(pairs, self.momentum)

    def _view(self, step: Step, number: int) -> Tensor:
        """A random view of each image at noise level t."""
        data, key = step.batch.data, step.batch.key
        rows, num = key.rows(len(data)), key.world_size * len(data)  # drawn for the global batch, then this share
        generator = key.for_term(number, data.device)
        images = crop_and_flip(data, self.shift_frac, generator, rows, num, self.flip)
        noise = torch.randn((num, *data.shape[1:]), generator=generator, device=data.device, dtype=data.dtype)[rows]
        return self.interpolant.interpolate(images, noise, self._times(images))

    def _mean_token(self, backbone: nn.Module, views: Tensor) -> Tensor:
        assert isinstance(backbone, Backbone) and self.tap is not None
        return backbone.features(views, self._times(views), taps=[self.tap])[self.tap].mean(dim=1)

    def _times(self, images: Tensor) -> Tensor:
        return torch.full((len(images),), self.t, device=images.device)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs))
