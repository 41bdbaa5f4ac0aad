"""The formulas of the papers as pure functions of tensors: one error per sample."""

from __future__ import annotations

from flowexp.losses.contrastive import feature_vectors, local_contrastive_error
from flowexp.losses.flow_matching import velocity_error
from flowexp.losses.magnitude import magnitude_error

__all__ = ["feature_vectors", "local_contrastive_error", "magnitude_error", "velocity_error"]
