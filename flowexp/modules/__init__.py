"""The LightningModules: FM, LCF, MAFM and ExFM over one base."""

from flowexp.draws import TrainingBatch
from flowexp.modules.explicit import ExplicitFlowMatching
from flowexp.modules.flow_matching import FlowMatching
from flowexp.modules.incident import NonFiniteGradientError
from flowexp.modules.local_contrastive import LocalContrastiveFlow
from flowexp.modules.magnitude_aware import MagnitudeAwareFlowMatching
from flowexp.modules.step_losses import StepLosses

__all__ = [
    "ExplicitFlowMatching",
    "FlowMatching",
    "LocalContrastiveFlow",
    "MagnitudeAwareFlowMatching",
    "NonFiniteGradientError",
    "StepLosses",
    "TrainingBatch",
]
