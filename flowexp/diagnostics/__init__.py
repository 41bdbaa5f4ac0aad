"""Curves over the noise level: pure functions of a network and data."""

from flowexp.diagnostics.noise_levels import BinLoss, LevelVelocity, NoiseLevelSums, bin_centres, loss_by_noise_level
from flowexp.diagnostics.probe import ProbeCurve, ProbeResult, extract_features, fit_probes

__all__ = [
    "BinLoss",
    "LevelVelocity",
    "NoiseLevelSums",
    "ProbeCurve",
    "ProbeResult",
    "bin_centres",
    "extract_features",
    "fit_probes",
    "loss_by_noise_level",
]
