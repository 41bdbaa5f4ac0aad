"""Every key of conf/ with its default and the comment of its yaml: what `--help` prints of one choice, for all."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from flowexp.cli.composing import Configs, config_folder
from flowexp.cli.help import Comments, Place, comments_of, shown

COMMANDS = ("train", "sample", "evaluate", "diagnose", "report", "export", "encode", "adopt")
ELSEWHERE = {"averaging": "ema", "saving": "checkpoint", "text": "data.text", "vae": "data.vae"}  # where keys go
IN_THE_CATALOGUE = ("experiment",)
TAKEN_BY_THEMSELVES = {"per_data": "The file with the name of the dataset is taken by itself"}
Entry = tuple[Place, Any, str]


def entries(keys: Mapping[str, Any], comments: Comments, place: Place = ()) -> Iterator[Entry]:
    """Place, value and comment of every key that holds a value, in the order of the yaml."""
    for key, value in keys.items():
        here = (*place, key)
        if isinstance(value, dict) and value and not key.startswith("_"):
            yield from entries(value, comments, here)
        elif not key.startswith("_"):
            yield here, value, comments.get(here, "")


def table(rows: list[Entry]) -> str:
    """Markdown of the rows; a note where there are none."""
    if not rows:
        return "No keys.\n"
    lines = [
        f"| `{'.'.join(place)}` | `{_in_a_cell(shown(value))}` | {_in_a_cell(comment)} |"
        for place, value, comment in rows
    ]
    return "\n".join(["| key | default | meaning |", "| --- | --- | --- |", *lines, ""])


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|") or " "


def groups() -> list[str]:
    """The folders of conf/ that the site explains key by key."""
    folders = sorted(path.name for path in config_folder().iterdir() if path.is_dir())
    return [name for name in folders if name not in IN_THE_CATALOGUE]


def choice(group: str, name: str, configs: Configs) -> str:
    """The section of one yaml: what its first line says, and its keys."""
    file = configs.file(group, name)
    assert file is not None
    text = file.read_text()
    about = next((line[2:] for line in text.splitlines() if re.match(r"# [^@]", line)), "")
    if "# @package _global_" in text:  # it changes keys of other groups
        return f"## {name}\n\n{about}\n\n```yaml\n{text}```\n"
    place = ELSEWHERE.get(group, group)
    content = cast("dict[str, Any]", OmegaConf.to_container(configs.compose(f"{group}/{name}"), resolve=False))
    option = f"{group}@{place}" if place != group else group
    comments = comments_of("train", {option: name}, configs)
    keys = content.get(group, content) if place != group else content
    prefix = tuple(place.split(".")) if place != group else ()
    rows = [*entries(keys, comments, prefix)]
    return f"## {name}\n\n{about}\n\n{table(rows)}"


def group_page(group: str, configs: Configs) -> str:
    """All choices of a group."""
    names = configs.names(group)
    key = {"text": "text@data.text"}.get(group, group)
    chosen = ", ".join(f"[`{name}`](#{name})" for name in names)
    sections = "\n".join(choice(group, name, configs) for name in names)
    how = TAKEN_BY_THEMSELVES.get(group, f"Chosen by `{key}=NAME`; a key is changed by `key=value`")
    title = group if group in TAKEN_BY_THEMSELVES else f"{key}="
    return f"# {title}\n\n{how}: {chosen}.\n\n{sections}"


def command_page(command: str, configs: Configs) -> str:
    """A command's own keys, and the head of its `--help` where it has one."""
    config = configs.compose(command, with_hydra=True)
    keys = cast("dict[str, Any]", OmegaConf.to_container(config, resolve=False))
    hydra = keys.pop("hydra")
    own = {key: value for key, value in keys.items() if not configs.is_group(key) and key not in ELSEWHERE.values()}
    rows = [*entries(own, comments_of(command, {}, configs))]
    head = str(hydra["help"]["header"]).strip()
    shown_head = "" if "${" in head else f"```text\n{head}\n```\n\n"
    return f"# flowexp {command}\n\n{shown_head}{table(rows)}"


def write_keys(folder: Path) -> None:
    """Pages below `folder`: one for each command, one for each group."""
    configs = Configs()
    warnings.filterwarnings("ignore", message=".*missing `_self_`")  # of yamls that are never composed alone elsewhere
    for name, write, names in (("commands", command_page, COMMANDS), ("keys", group_page, groups())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for each in names:
            (folder / name / f"{each}.md").write_text(write(each, configs))
