"""`--help`: every key of the config that the command line chooses, with its value and the comment of its yaml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any, cast

from omegaconf import OmegaConf

from flowexp.cli.composing import Configs

Place = tuple[str, ...]  # of a key: ("sampler", "s0")
Comments = dict[Place, str]
_KEY_WITH_COMMENT = re.compile(r"( *)(\w+):(?: [^#].*?)?(?: +# ?(.*))?")


def help_page(command: str, overrides: Iterable[str] = (), configs: Configs | None = None) -> str:
    """What `python -m flowexp.COMMAND --help [group=name ...]` prints.

    configs: what can be chosen, with None the yamls of `conf/`.
    """
    configs = configs or Configs()
    config = configs.compose(command, overrides, with_hydra=True)
    header = str(config.hydra.help.header).strip()
    keys = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    keys.pop("hydra")
    choices = _choices(config.hydra.runtime.choices, keys, configs)
    lines = "\n".join(_lines(keys, comments_of(command, choices, configs)))
    return f"{header}\n\n== Groups: group=name ==\n{_groups(choices, configs)}\n\n== Keys: key=value ==\n{lines}"


def _choices(chosen: Mapping[str, Any], keys: Mapping[str, Any], configs: Configs) -> dict[str, Any]:
    """The name or names of each group; Hydra keeps no record of groups that were given several, such as terms=[a,b]."""
    single = {group: name for group, name in chosen.items() if configs.is_group(_folder_of(group))}
    several = [key for key in keys if key not in single and isinstance(keys[key], dict) and configs.is_group(key)]
    return {**single, **{group: list(keys[group]) for group in several}}


def _folder_of(group: str) -> str:
    """`saving` of `saving@checkpoint`."""
    return group.split("@")[0]


def comments_of(command: str, choices: Mapping[str, Any], configs: Configs) -> Comments:
    """The comments on each key: of the command's yaml, and of the chosen files under their group's name."""
    found = _comments_in(configs.file("", command), (), configs)
    files = [(group, file) for group, chosen in choices.items() for file in _files(configs, group, chosen)]
    for group, file in sorted(files, key=lambda pair: _place_of(*pair) != (pair[0],)):  # keys of other groups last
        place = _place_of(group, file)
        said = _first_comment(file)
        about = {place: said, (group,): f"{file.stem}: {said}" if said else file.stem}
        found = {**about, **_comments_in(file, place, configs), **found}
    return found


def _files(configs: Configs, group: str, chosen: Any) -> list[Path]:
    """The chosen file of a group, or files of one that takes several."""
    names = [chosen] if isinstance(chosen, str) else list(chosen or [])
    return [file for name in names if (file := configs.file(_folder_of(group), name))]


def _place_of(group: str, file: Path) -> Place:
    """Where the keys of a group's file go: to its package, if it or the defaults list names one, else to the group."""
    match = re.match(r"# @package ([\w.]+)", file.read_text())
    package = group.partition("@")[2] or (match[1] if match else group)
    return () if package == "_global_" else tuple(package.split("."))


def _first_comment(file: Path) -> str:
    """The comment in the first line of a file; empty where there is none."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("# @package")]
    return lines[0].removeprefix("# ") if lines and lines[0].startswith("#") else ""


def _comments_in(file: Path | None, place: Place, configs: Configs) -> Comments:
    """The comments of a file's keys below `place`, over those of the files that it builds on.

    A line at a time: ruamel.yaml, which keeps comments, finds the same ones in conf/, but takes twice the code and ten
    times the time, and would be a dependency for this alone. A key in `{a: 1}` has no comment of its own.
    """
    found: Comments = {}
    if file is None:
        return found
    content = cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.load(file), resolve=False))
    for entry in content.get("defaults", []):
        found |= _comments_of_base(entry, file, place, configs)
    around: list[tuple[int, str]] = []  # indent and key of the groups that a line is in, and of its own key
    for line in file.read_text().splitlines():
        if match := _KEY_WITH_COMMENT.fullmatch(line):
            indent = len(match[1])
            around = [*(outer for outer in around if outer[0] < indent), (indent, match[2])]
            found |= {(*place, *(key for _, key in around)): match[3]} if match[3] else {}
    return found


def _comments_of_base(entry: Any, file: Path, place: Place, configs: Configs) -> Comments:
    """Of an entry of a defaults list: `euler`, `probe@probe`, `/vae@vae: sd_ft_mse`. Others are choices of the root."""
    is_base = isinstance(entry, str)
    key, name = (entry, None) if is_base else next(iter(entry.items()))
    base, _, package = key.partition("@")
    inside = place if package in ("", "_here_") else (*place, *package.split("."))
    if is_base and base != "_self_":
        found = configs.file(_group_of(file, configs), base)
        about = {inside: _first_comment(found)} if inside != place and found else {}
        return {**about, **_comments_in(found, inside, configs)}
    if base.startswith("/") and isinstance(name, str):
        return _comments_in(configs.file(base[1:], name), inside, configs)
    return {}


def _group_of(file: Path, configs: Configs) -> str:
    """The group that a file lies in; "" for that of a command."""
    folder = next(folder for folder in configs.folders if file.is_relative_to(folder))
    return str(file.parent.relative_to(folder))


def _groups(choices: Iterable[str], configs: Configs) -> str:
    listed = {group: configs.names(_folder_of(group)) for group in choices}
    return "\n".join(
        fill(f"{group}: {', '.join(names)}", 118, subsequent_indent="  ") for group, names in listed.items()
    )


def _lines(keys: Mapping[str, Any], comments: Comments, place: Place = ()) -> Iterator[str]:
    for key, value in keys.items():
        if key.startswith("_"):
            continue
        here = (*place, key)
        comment = f"  # {comments[here]}" if comments.get(here) else ""
        below = isinstance(value, dict)
        yield f"{'  ' * len(place)}{key}:{'' if below else ' ' + shown(value)}{comment}"
        if below:
            yield from _lines(value, comments, here)


def shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)
