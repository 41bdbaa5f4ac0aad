"""A sweep before its first job: whether there is one, what each job is given, and that no two share a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict

from flowexp.cli.composing import Configs
from flowexp.cli.overrides import key_of, last_of, read

_COMPLETES = ("-sc", "--shell-completion")


def is_sweep(arguments: Iterable[str]) -> bool:
    """Whether Hydra runs several jobs: `-m`, `--multirun` or `hydra.mode=MULTIRUN`."""
    words = list(arguments)
    mode = [word.partition("=")[2].strip("'\"").upper() for word in words if key_of(word) == "hydra.mode"]
    return mode[-1] == "MULTIRUN" if mode else bool({"-m", "--multirun"} & {*words})


def check_words(words: Sequence[str]) -> None:
    """Raises ValueError for a word that is neither an option of Hydra's nor the value of one."""
    if set(_COMPLETES) & {*words}:
        return
    known, unknown = get_args_parser().parse_known_args(list(words))
    for word in [*known.overrides, *unknown]:
        if word.startswith("-"):
            raise ValueError(f"there is no option {word}: settings are given as key=value, and --help lists them")
        raise ValueError(f"{word} is no setting: give key=value, or ~key to leave a key out")


def per_job(overrides: Sequence[str], configs: Configs) -> list[str]:
    """The overrides with keys of groups set job by job, where the sweep is over choices that need not all have them.

    Hydra would look for every key in the config without the swept choices.
    """
    if not any(each.is_sweep_override() and configs.is_group(each.key_or_group) for each in read(overrides)):
        return list(overrides)
    return [_for_each_job(override, configs) for override in read(overrides)]


def _for_each_job(override: Override, configs: Configs) -> str:
    """The same override as a sweep over its one value."""
    line = str(override.input_line)
    key, _, text = line.partition("=")
    group, _, below = override.key_or_group.partition(".")
    if override.is_sweep_override() or override.is_delete() or not (text and below and configs.is_group(group)):
        return line
    return f"{key}=choice({text})"


def check_subfolders(command: str, overrides: Sequence[str], configs: Configs) -> None:
    """Raises ValueError where `hydra.sweep.subdir` names one folder for several jobs, which would mix their files."""
    subfolder = last_of("hydra.sweep.subdir", overrides)
    if subfolder is None:
        return
    named = Counter(_subfolder(command, job, number, configs) for number, job in enumerate(jobs_of(overrides)))
    for name, jobs in named.items():
        if name is not None and jobs > 1:
            raise ValueError(
                f"hydra.sweep.subdir={subfolder.value()} gives {jobs} jobs the folder {name}: name what is swept in "
                "it, as in hydra.sweep.subdir='seed_${seed}', or leave it out"
            )


def jobs_of(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each job; none where a sweeper of another kind decides them."""
    try:
        batches = BasicSweeper.split_arguments(read(overrides), None)
    except HydraException:
        return []
    return [job for batch in batches for job in batch]


def _subfolder(command: str, job: Sequence[str], number: int, configs: Configs) -> str | None:
    """Where a job works in the sweep's folder; None of one that Hydra will refuse."""
    try:
        config: DictConfig = configs.compose(command, job, with_hydra=True)
    except HydraException:
        return None
    with open_dict(config):
        config.hydra.job.num, config.hydra.job.id = number, f"job_{number}"
        config.hydra.job.override_dirname = ",".join(job)
    return str(config.hydra.sweep.subdir)
