"""The formulas of the papers as pure functions of tensors: one error per sample, or one number for a whole batch."""

from __future__ import annotations

from flowexp.flow.losses.alignment import (
    AlignmentWeight,
    alignment_error,
    alignment_weight,
    smooth_alignment_error,
    weighted_mean,
)
from flowexp.flow.losses.contrastive import feature_vectors, local_contrastive_error
from flowexp.flow.losses.dispersive import dispersive_error
from flowexp.flow.losses.explicit import ExactField, explicit_velocity
from flowexp.flow.losses.flow_matching import velocity_error
from flowexp.flow.losses.magnitude import magnitude_error
from flowexp.flow.losses.view_contrast import view_contrastive_error

__all__ = [
    "AlignmentWeight",
    "ExactField",
    "alignment_error",
    "alignment_weight",
    "dispersive_error",
    "explicit_velocity",
    "feature_vectors",
    "local_contrastive_error",
    "magnitude_error",
    "smooth_alignment_error",
    "velocity_error",
    "view_contrastive_error",
    "weighted_mean",
]
