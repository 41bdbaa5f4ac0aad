"""`--help`: every key of the config that the command line chooses, with its value and what its yaml says of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

Place = tuple[str, ...]  # of a key: ("sampler", "s0")
Comments = dict[Place, str]
_KEY_WITH_COMMENT = re.compile(r"( *)(\w+):(?: .*?)?(?: +# ?(.*))?")


def help_page(command: str, overrides: Iterable[str], conf: Path) -> str:
    """What `python -m flowexp.COMMAND --help [group=name ...]` prints."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        config = compose(command, list(overrides), return_hydra_config=True)
    header = str(config.hydra.help.header).strip()
    keys = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    keys.pop("hydra")
    choices = _choices(config.hydra.runtime.choices, keys, conf)
    lines = "\n".join(_lines(keys, comments_of(command, choices, conf)))
    return f"{header}\n\n== Groups: group=name ==\n{_groups(choices, conf)}\n\n== Keys: key=value ==\n{lines}"


def _choices(chosen: Mapping[str, Any], keys: Mapping[str, Any], conf: Path) -> dict[str, Any]:
    """The name or names of each group; Hydra keeps no record of groups that were given several, such as terms=[a,b]."""
    single = {group: name for group, name in chosen.items() if (conf / group.split("@")[0]).is_dir()}
    several = [key for key in keys if key not in single and isinstance(keys[key], dict) and (conf / key).is_dir()]
    return {**single, **{group: list(keys[group]) for group in several}}


def comments_of(command: str, choices: Mapping[str, Any], conf: Path) -> Comments:
    """What the yamls say of each key: that of the command, and those of the chosen files under their group's name."""
    found = _comments_in(conf / f"{command}.yaml", ())
    files = [(group, file) for group, chosen in choices.items() for file in _files(conf, group, chosen)]
    for group, file in sorted(files, key=lambda pair: _place_of(*pair) != (pair[0],)):  # keys of other groups last
        place = _place_of(group, file)
        about = {place: _first_comment(file), (group,): f"{file.stem}: {_first_comment(file)}"}
        found = {**about, **_comments_in(file, place), **found}
    return found


def _files(conf: Path, group: str, chosen: Any) -> list[Path]:
    """The chosen file of a group, or files of one that takes several."""
    names = [chosen] if isinstance(chosen, str) else list(chosen or [])
    return [file for name in names if (file := conf / group.split("@")[0] / f"{name}.yaml").exists()]


def _place_of(group: str, file: Path) -> Place:
    """Where the keys of a group's file go: to its package, if it or the defaults list names one, else to the group."""
    match = re.match(r"# @package ([\w.]+)", file.read_text())
    package = group.partition("@")[2] or (match[1] if match else group)
    return tuple(package.split("."))


def _first_comment(file: Path) -> str:
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# @package")]
    return lines[0].removeprefix("# ")


def _comments_in(file: Path, place: Place) -> Comments:
    """The comments of a file's keys below `place`, over those of the files that it builds on."""
    found: Comments = {}
    content = cast(DictConfig, OmegaConf.load(file))
    for entry in content.get("defaults", []):
        found |= _comments_of_base(entry, file, place)
    below: list[str] = []
    for line in file.read_text().splitlines():
        if match := _KEY_WITH_COMMENT.fullmatch(line):
            below = [*below[: len(match[1]) // 2], match[2]]
            found |= {(*place, *below): match[3]} if match[3] else {}
    return found


def _comments_of_base(entry: Any, file: Path, place: Place) -> Comments:
    """Of an entry of a defaults list: `euler`, `probe@probe`, `/vae@vae: sd_ft_mse`. Others are choices of the root."""
    is_base = isinstance(entry, str)
    key, name = (entry, None) if is_base else next(iter(entry.items()))
    base, _, package = key.partition("@")
    inside = (*place, *package.split(".")) if package else place
    if is_base and base != "_self_":
        file = file.parent / f"{base}.yaml"
        return {inside: _first_comment(file), **_comments_in(file, inside)} if package else _comments_in(file, place)
    if base.startswith("/") and isinstance(name, str):
        conf = next(folder for folder in file.parents if (folder / "train.yaml").exists())
        return _comments_in(conf / base[1:] / f"{name}.yaml", inside)
    return {}


def _groups(choices: Iterable[str], conf: Path) -> str:
    listed = {group: sorted(file.stem for file in (conf / group.split("@")[0]).glob("*.yaml")) for group in choices}
    return "\n".join(
        fill(f"{group}: {', '.join(names)}", 118, subsequent_indent="  ") for group, names in listed.items()
    )


def _lines(keys: Mapping[str, Any], comments: Comments, place: Place = ()) -> Iterator[str]:
    for key, value in keys.items():
        if key.startswith("_"):
            continue
        here = (*place, key)
        comment = f"  # {comments[here]}" if here in comments else ""
        below = isinstance(value, dict)
        yield f"{'  ' * len(place)}{key}:{'' if below else ' ' + _shown(value)}{comment}"
        if below:
            yield from _lines(value, comments, here)


def _shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
