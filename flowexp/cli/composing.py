"""Where configs lie, and how one is composed outside of a job. Imports no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from flowexp.cli.overrides import readable


def config_folder() -> Path:
    """`conf/`: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


@dataclass(frozen=True)
class Configs:
    """The yamls that a command line chooses from: those of `conf/`, and of folders of one's own behind it.

    Of two files of one name that of `conf/` counts, as in Hydra.

    Arguments:
        own: folders of one's own.
    """

    own: tuple[Path, ...] = ()

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Configs:
        """With the folder that `--config-dir` names. Raises ValueError where there is none."""
        given = get_args_parser().parse_known_args(list(arguments))[0].config_dir
        if given is None:
            return cls()
        if not Path(given).is_dir():
            raise ValueError(f"--config-dir={given} is no folder: give one that has yamls in folders of their groups")
        return cls((Path(given).absolute(),))

    @property
    def folders(self) -> tuple[Path, ...]:
        """In the order in which they are searched."""
        return (config_folder(), *self.own)

    def file(self, group: str, name: str) -> Path | None:
        """The yaml of that name in a group, or with the group "" of a command; None where there is none."""
        files = (folder / group / f"{name}.yaml" for folder in self.folders)
        return next((file for file in files if file.is_file()), None)

    def is_group(self, name: str) -> bool:
        """Whether some folder has such a group."""
        return any((folder / name).is_dir() for folder in self.folders)

    def names(self, group: str) -> list[str]:
        """What can be chosen in a group, sorted; a name with an underscore in front is a base of others."""
        return sorted({file.stem for folder in self.folders for file in (folder / group).glob("[!_]*.yaml")})

    def keys(self, command: str) -> set[str]:
        """The first parts of the keys that a command reads, and its groups, of which none may be chosen."""
        config = DictConfig(OmegaConf.load(config_folder() / f"{command}.yaml"))
        names = {"hydra", *map(str, config)} - {"defaults"}
        for entry in config.get("defaults", ()):
            if isinstance(entry, DictConfig):  # a group: averaging@ema, override hydra/job_logging
                names |= {top(part) for group in entry for part in str(group).split()[-1].split("@")}
            elif entry != "_self_":
                names |= self.keys(entry)
        return names

    def compose(self, command: str, overrides: Iterable[str] = (), with_hydra: bool = False) -> DictConfig:
        """The config of a command; `with_hydra` keeps the part of Hydra. Hydra composes one at a time."""
        searched = json.dumps([f"file://{folder}" for folder in self.own])
        search = [f"hydra.searchpath={searched}"] if self.own else []
        with _hydra():
            return compose(command, [*map(readable, overrides), *search], return_hydra_config=with_hydra)


def top(key: str) -> str:
    """`data` of `data.root`, `data/vae` and `data@data.pictures`."""
    return re.split(r"[.@/]", key)[0]


def run_once(command: str, overrides: Sequence[str], task: Callable[[DictConfig], object]) -> None:
    """Lets Hydra run `task` with the config of a single job.

    `hydra.main` does the same and composes the config twice, the first time to learn whether it is a sweep.
    """
    with _hydra() as running:
        running.run(command, task, [*overrides, "hydra.mode=RUN"])


@contextmanager
def _hydra() -> Iterator[Hydra]:
    """Hydra, which holds one search path at a time, at `conf/`."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        running = GlobalHydra.instance().hydra
        assert running is not None
        yield running
