"""The LightningModules: FM, LCF, MAFM and ExFM over one base."""

from flowexp.objectives.exfm import ExplicitFlowMatching
from flowexp.objectives.fm import FlowMatching
from flowexp.objectives.lcf import LocalContrastiveFlow
from flowexp.objectives.mafm import MagnitudeAwareFlowMatching
from flowexp.training.nonfinite_step import NonFiniteGradientError
from flowexp.training.step_draws import TrainingBatch
from flowexp.training.step_losses import StepLosses

__all__ = [
    "ExplicitFlowMatching",
    "FlowMatching",
    "LocalContrastiveFlow",
    "MagnitudeAwareFlowMatching",
    "NonFiniteGradientError",
    "StepLosses",
    "TrainingBatch",
]
