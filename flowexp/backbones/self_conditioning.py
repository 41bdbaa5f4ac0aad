"""Self-conditioning in the manner of DDAE++ (arXiv 2505.10999): features of earlier blocks condition later ones."""

from __future__ import annotations

from torch import Tensor, nn


class SelfConditioner(nn.Module):
    """a(t) MLP(mean of the tokens), to be added to the condition of the blocks behind a tap.

    An approximation: the paper's equations are not known to us, only that an aggregated feature goes through an MLP, is
    scaled according to time and joins the time embedding of the later layers. Here a(t) is one number per sample,
    linear in SiLU of the time embedding, and zero at initialisation: the network starts as the one without.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Sequential(nn.SiLU(), nn.Linear(width, 1))
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, tokens: Tensor, gain: Tensor) -> Tensor:
        """What is added to the condition, (B, D), for tokens (B, N, D) and gain = self.gain(t's embedding), (B, 1)."""
        return gain * self.mlp(tokens.mean(dim=1))
