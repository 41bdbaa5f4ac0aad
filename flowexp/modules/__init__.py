"""The LightningModules: FM, LCF and MAFM over one base."""

from flowexp.modules.flow_matching import FlowMatching, NonFiniteGradientError, StepLosses
from flowexp.modules.local_contrastive import LocalContrastiveFlow
from flowexp.modules.magnitude_aware import MagnitudeAwareFlowMatching

__all__ = [
    "FlowMatching",
    "LocalContrastiveFlow",
    "MagnitudeAwareFlowMatching",
    "NonFiniteGradientError",
    "StepLosses",
]
