"""The numbers that the papers print, to stand beside ours."""

from __future__ import annotations

from functools import cache
from typing import Any

from omegaconf import OmegaConf

from flowexp.cli.composing import config_folder


@cache
def _all() -> Any:
    return OmegaConf.to_container(OmegaConf.load(config_folder().with_name("experiments") / "published.yaml"))


def published(paper: str, item: str) -> Any:
    """What `paper`, "lcf" or "vd", prints in `item`, such as "table1" or "fig4": rows, or a mapping.

    Raises:
        KeyError: there is no such item.
    """
    return _all()[paper][item]
