"""The numbers of a training step where Lightning's callbacks, loggers and bars look for them."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from flowexp.training.steps import ends_a_step

LOSS = "train/loss"


class PublishSteps(pl.Callback):
    """Logs the losses every `trainer.log_every_n_steps` for a Trainer without flowexp's `StepLog`.

    At the end of an epoch it puts them where callbacks watch them, whatever is logged: Lightning's EarlyStopping looks
    there then. It belongs to the module, and runs before every callback that saves checkpoints.
    """

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if not ends_a_step(trainer, batch_idx) or pl_module.published.get(LOSS) == step:
            return
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        is_logged = every > 0 and step % every == 0
        if not is_logged and not trainer.is_last_batch:
            return
        values = pl_module.step_values()
        pl_module.publish(values)
        trainer.progress_bar_metrics[LOSS] = values[LOSS]
        for logger in trainer.loggers if is_logged else ():
            logger.log_metrics(values, step=step)
