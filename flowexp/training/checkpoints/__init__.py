"""Checkpoints that can be trusted: written whole or not at all, verified before use, taken where a resume is exact."""

from flowexp.training.checkpoints.archives import CheckpointError
from flowexp.training.checkpoints.files import AtomicCheckpointIO, load_checkpoint, peek, verify_checkpoint
from flowexp.training.checkpoints.folder import is_checkpoint, latest_checkpoint, list_checkpoints, path_of, step_of
from flowexp.training.checkpoints.saving import IN_BACKGROUND, StepCheckpoint

__all__ = [
    "IN_BACKGROUND",
    "AtomicCheckpointIO",
    "CheckpointError",
    "StepCheckpoint",
    "is_checkpoint",
    "latest_checkpoint",
    "list_checkpoints",
    "load_checkpoint",
    "path_of",
    "peek",
    "step_of",
    "verify_checkpoint",
]
