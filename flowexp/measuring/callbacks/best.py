"""The checkpoint with the best of a number that is logged or measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint


class BestCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint at the steps where the number is new, so that weights and number belong together.

    Its files have the names of `StepCheckpoint` and lie in another folder: a run continues from its newest
    step, and `checkpoint=RUN/best/step_00001000.ckpt` measures or samples the best.

    Arguments:
        monitor: what is logged (`train/loss`) or measured (`fid`).
        mode: "min" or "max".
        save_top_k: how many of the best stay.
        dirpath: where they lie; None is decided by Lightning.
    """

    def __init__(
        self, monitor: str, mode: Literal["min", "max"] = "min", save_top_k: int = 1, dirpath: str | Path | None = None
    ) -> None:
        super().__init__(
            dirpath, "step_{step:08d}", monitor=monitor, mode=mode, save_top_k=save_top_k, every_n_train_steps=1,
            auto_insert_metric_name=False, save_on_train_epoch_end=False,
        )  # fmt: skip

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.published.get(self.monitor) == trainer.global_step:
            super().on_train_batch_end(trainer, pl_module, *args)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Lightning forgets the best where the folder is another; that of a run which was moved has the same files."""
        folder = Path(str(self.dirpath))
        paths = [*state_dict["best_k_models"], state_dict["best_model_path"], state_dict["kth_best_model_path"]]
        here = {path: str(folder / Path(path).name) for path in paths if path}
        if here and all(Path(path).exists() for path in here.values()):
            best = {here[path]: score for path, score in state_dict["best_k_models"].items()}
            named = {key: here.get(state_dict[key], "") for key in ("best_model_path", "kth_best_model_path")}
            state_dict = {**state_dict, **named, "best_k_models": best, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)
