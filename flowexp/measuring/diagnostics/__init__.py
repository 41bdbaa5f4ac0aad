"""Curves over the noise level: pure functions of a network and data."""

from flowexp.measuring.diagnostics.condition_number import (
    LevelCondition,
    condition_number,
    measure_condition,
)
from flowexp.measuring.diagnostics.cross_terms import CrossTerms, Spread, cross_terms
from flowexp.measuring.diagnostics.curve import Curve, LevelPoint
from flowexp.measuring.diagnostics.gradient_share import LevelGradient, gradient_share
from flowexp.measuring.diagnostics.integration_lag import LevelLag, integration_lag
from flowexp.measuring.diagnostics.jacobian import (
    LevelJacobian,
    encoder_jacobian,
    principal_subspace,
    semantic_subspace,
    tapped_encoder,
)
from flowexp.measuring.diagnostics.knn import knn_correct
from flowexp.measuring.diagnostics.logistic_regression import fit_logistic
from flowexp.measuring.diagnostics.noise_levels import (
    BinLoss,
    LevelVelocity,
    NoiseLevelSums,
    bin_centres,
    loss_by_noise_level,
)
from flowexp.measuring.diagnostics.probe import (
    PROTOCOLS,
    ProbeProtocol,
    ProbeResult,
    create_protocol,
    extract_features,
    fit_converged,
    fit_probes,
)
from flowexp.measuring.diagnostics.probe_curve import ProbeCurve, paired_se, probe_curves
from flowexp.measuring.diagnostics.projection import Projection, create_projection
from flowexp.measuring.diagnostics.ssc_calibration import (
    ControlledSampler,
    SamplerScore,
    SSCProposal,
    calibrate_ssc,
    compare_samplers,
    ssc_controls,
)
from flowexp.measuring.diagnostics.velocity_norms import LevelNorms, velocity_norms
from flowexp.measuring.diagnostics.verdict import verdict

__all__ = [
    "PROTOCOLS",
    "BinLoss",
    "ControlledSampler",
    "CrossTerms",
    "Curve",
    "LevelCondition",
    "LevelGradient",
    "LevelJacobian",
    "LevelLag",
    "LevelNorms",
    "LevelPoint",
    "LevelVelocity",
    "NoiseLevelSums",
    "ProbeCurve",
    "ProbeProtocol",
    "ProbeResult",
    "Projection",
    "SSCProposal",
    "SamplerScore",
    "Spread",
    "bin_centres",
    "calibrate_ssc",
    "compare_samplers",
    "condition_number",
    "create_projection",
    "create_protocol",
    "cross_terms",
    "encoder_jacobian",
    "extract_features",
    "fit_converged",
    "fit_logistic",
    "fit_probes",
    "gradient_share",
    "integration_lag",
    "knn_correct",
    "loss_by_noise_level",
    "measure_condition",
    "paired_se",
    "principal_subspace",
    "probe_curves",
    "semantic_subspace",
    "ssc_controls",
    "tapped_encoder",
    "velocity_norms",
    "verdict",
]
