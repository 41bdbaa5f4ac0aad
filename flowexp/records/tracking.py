"""Weights & Biases, by choice: offline without a key, and never in the way of a run."""

from __future__ import annotations

import os
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from flowexp.records.files import atomic

DEFAULT_HOST = "https://api.wandb.ai"


def wandb_logger(
    folder: Path,
    name: str,
    settings: dict[str, Any],
    sweep: str | None = None,
    project: str = "flowexp",
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    offline: bool | None = None,
    connect_seconds: int = 10,
) -> WandbLogger:
    """A W&B logger for the run in `folder`.

    The id of the W&B run is stored in the folder, so that a resumed run continues it. Where no key is set, or the
    server does not answer within `connect_seconds`, the run is written to `folder/wandb`; `wandb sync` sends it later.

    Arguments:
        folder, name, settings: the run's folder, name and resolved config.
        sweep: folder of the sweep whose job this is; the group where `group` is None.
        project, entity, group, tags: where it stands on the dashboard.
        offline: True and False force it; None is offline without a key.
    """
    offline = not has_key() if offline is None else offline
    about: dict[str, Any] = dict(project=project, entity=entity, group=group or sweep, tags=tags, config=settings)
    about |= dict(name=name, id=_run_id(folder), save_dir=folder)
    if offline:
        rank_zero_info(f"W&B: offline; `wandb sync {folder}/wandb/offline-run-*` sends this run")
        return _offline(about)
    return _online_or_offline(about, connect_seconds)


def _offline(about: dict[str, Any]) -> WandbLogger:
    """Writes to the run's folder; wandb prints nothing, since the run prints the same."""
    import wandb

    return _without_anonymous(WandbLogger(offline=True, settings=wandb.Settings(silent=True), **about))


def _without_anonymous(logger: WandbLogger) -> WandbLogger:
    """Lightning always passes on a setting that wandb warns of."""
    logger._wandb_init.pop("anonymous", None)
    return logger


def _online_or_offline(about: dict[str, Any], connect_seconds: int) -> WandbLogger:
    import wandb

    settings = wandb.Settings(init_timeout=connect_seconds)
    logger = _without_anonymous(WandbLogger(settings=settings, resume="allow", **about))
    try:
        _connect(logger)
    except Exception as error:  # wandb raises several kinds; none of them may cost a run
        rank_zero_info(f"W&B did not answer ({type(error).__name__}): going on offline")
        wandb.teardown()
        return _offline(about)
    return logger


@rank_zero_only
def _connect(logger: WandbLogger) -> None:
    _ = logger.experiment


def has_key() -> bool:
    """Whether wandb would find an API key: in the environment or in the netrc file."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", DEFAULT_HOST)).hostname or ""
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (FileNotFoundError, NetrcParseError):
        return False


def _run_id(folder: Path) -> str:
    file = folder / "wandb_id.txt"
    if not file.exists():
        atomic.write_text(file, os.urandom(4).hex())
    return file.read_text().strip()
