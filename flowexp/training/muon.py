"""Muon for the matrices inside a network's blocks, AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Muon, Optimizer

HIDDEN = "backbone.blocks."  # how the names of a network's hidden weights begin


class MuonWithAdamW(Optimizer):
    """Matrices of the blocks are updated by Muon, every other parameter by AdamW.

    Muon orthogonalises the momentum of a matrix, which makes sense for a linear map between hidden states. K. Jordan
    (kellerjordan.github.io/posts/muon, 2024) therefore leaves embeddings, the last layer, gains and biases to AdamW,
    and so do Liu et al. (Muon is Scalable for LLM Training, 2025). Here that is: embeddings of patches, time, labels
    and text, the head, biases, norms, learned tokens, convolutions (torch's Muon takes matrices only), and the weights
    of loss terms. The modulation layers inside a block are matrices between hidden states, and are Muon's.

    Both have one learning rate and one weight decay: a matrix of A x B takes 0.2 sqrt(max(A, B)) of it, so that its
    update has the RMS of AdamW's (Liu et al., section 2.2), and rates tuned for AdamW can stay.

    Arguments:
        named_parameters: the trained parameters with their names in the module.
        lr: learning rate.
        weight_decay: decoupled weight decay of every parameter.
        momentum, nesterov, ns_steps: Muon's, see `torch.optim.Muon`.
        adjust_lr_fn: how a matrix's rate follows its shape: "match_rms_adamw", "original" or "spectral_unclamped".
        betas: AdamW's averaging rates.

    Raises:
        ValueError: a network whose blocks have no matrix.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, Parameter]],
        lr: float = 1.0e-4,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        adjust_lr_fn: str = "match_rms_adamw",
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        matrices, others = divided(named_parameters)
        if not matrices:
            raise ValueError("optimizer=muon needs matrices in the network's blocks, and there are none: take adamw")
        muon = Muon(
            matrices, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps,
            adjust_lr_fn=adjust_lr_fn,
        )  # fmt: skip
        adamw = AdamW(others, lr=lr, weight_decay=weight_decay, betas=(betas[0], betas[1])) if others else None
        self.parts: list[Optimizer] = [muon, *([adamw] if adamw else [])]
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Lets the two work on this optimizer's groups, which schedules change, and state, which checkpoints hold."""
        for part, group in zip(self.parts, self.param_groups, strict=True):
            part.param_groups, part.state = [group], self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """An update by both; `closure` is evaluated once, before it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


def divided(named_parameters: Iterable[tuple[str, Parameter]]) -> tuple[list[Tensor], list[Tensor]]:
    """The matrices (outputs, inputs) of the network's blocks, and all other parameters."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in named_parameters:
        (matrices if name.startswith(HIDDEN) and parameter.ndim == 2 else others).append(parameter)
    return matrices, others
