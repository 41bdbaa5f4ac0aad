"""The LightningModules: FM, LCF, MAFM and ExFM over one base."""

from flowexp.modules.batch import StepLosses, TrainingBatch
from flowexp.modules.explicit import ExplicitFlowMatching
from flowexp.modules.flow_matching import FlowMatching, NonFiniteGradientError
from flowexp.modules.local_contrastive import LocalContrastiveFlow
from flowexp.modules.magnitude_aware import MagnitudeAwareFlowMatching

__all__ = [
    "ExplicitFlowMatching",
    "FlowMatching",
    "LocalContrastiveFlow",
    "MagnitudeAwareFlowMatching",
    "NonFiniteGradientError",
    "StepLosses",
    "TrainingBatch",
]
