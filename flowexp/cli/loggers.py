"""The loggers of a run: CSV always, and those that `logger=` names, of Lightning or of a user."""

from __future__ import annotations

from importlib.util import find_spec

from omegaconf import DictConfig

_PACKAGES = {  # what Lightning's loggers need, and flowexp's; one of several is enough
    "TensorBoardLogger": ("tensorboard", "tensorboardX"),
    "MLFlowLogger": ("mlflow", "mlflow_skinny"),
    "WandbLogger": ("wandb",),
    "wandb_logger": ("wandb",),
    "CometLogger": ("comet_ml",),
    "NeptuneLogger": ("neptune",),
}


def chosen_loggers(config: DictConfig) -> dict[str, DictConfig]:
    """The loggers of a config by name: `logger=wandb`, several as in `logger=[wandb,mlflow]`, or one `_target_`."""
    node = config.get("logger")
    if node is None:
        return {}
    if "_target_" in node:
        return {"logger": node}
    return {str(name): entry for name, entry in node.items() if entry is not None and "_target_" in entry}


def check_loggers(config: DictConfig) -> None:
    """Raises ValueError for a logger whose package is missing: it would fail only when the data have been read."""
    for node in chosen_loggers(config).values():
        target = str(node["_target_"])
        needed = _PACKAGES.get(target.rpartition(".")[2], ())
        if needed and not any(find_spec(package) for package in needed):
            raise ValueError(f"{target} needs a package that is not installed: pip install {needed[0]}")
