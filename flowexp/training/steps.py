"""When an optimizer step of a Trainer has ended: with the last batch that it accumulates."""

from __future__ import annotations

import pytorch_lightning as pl


def ends_a_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the batch `batch_idx` of the epoch, which has just ended, was the last one of its optimizer step.

    A step accumulates `accumulate_grad_batches` batches; the last step of an epoch takes however few are left.
    """
    is_whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
    return is_whole or trainer.is_last_batch or batch_idx + 1 >= trainer.num_training_batches


def is_last_step(trainer: pl.Trainer) -> bool:
    """Whether training ends with the step that has just ended."""
    last_epoch = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.should_stop or trainer.global_step == trainer.max_steps or (last_epoch and trainer.is_last_batch)
