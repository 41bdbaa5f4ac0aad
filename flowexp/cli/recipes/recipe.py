"""A recipe: a yaml with budgets and a Python file with `measure` and `draw` beside it, found by its name."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowexp.cli.composing import config_folder
from flowexp.cli.named_runs import named_run
from flowexp.cli.recipes.budgets import read_budget
from flowexp.flow.choices import nearest
from flowexp.records.run_folder import RunFolder

ARGUMENTS = {  # with examples
    "seeds": "3",
    "minutes": "15",
    "run": "FOLDER",
    "redraw": "true",
    "missing": "true",
    "pipeline": "FOLDER",
    "prompts": "FILE",
}
PATHS = ("run", "pipeline", "prompts")  # arguments whose characters are not read as yaml
TAKES = ("seeds", "minutes", "run", "redraw")  # those that a recipe takes whose yaml does not say otherwise by `takes`


@dataclass(frozen=True)
class Recipe:
    """A recipe's yaml at one of its budgets.

    Arguments:
        name: path of the yaml below its folder, without suffix, such as lcf/fig04_probe_curve.
        file: the yaml.
        budget: name of the budget.
        settings: the budget: `lines` or `panels` of lines to train, each with its overrides, and what the recipe's own
            Python file reads.
        redraw: whether to draw again from the tables in `results`, without training.
        missing: whether to keep the lines that the table in `results` has, and to add the others.
        minutes: time limit, see `flowexp.cli.recipes.minutes`; None is none.
        run: folder of a trained run to measure, for a recipe of one line; None trains the line of the yaml.
        seeds: how many seeds, from 0 or the budget's `first_seed`, every line is trained with.
        figure_format: that every figure is saved as beside PNG, pdf or svg; None is none.
        pipeline, prompts: folder of a pipeline of diffusers and a file of prompts, for a recipe that draws from them.
    """

    name: str
    file: Path
    budget: str
    settings: DictConfig
    redraw: bool = False
    missing: bool = False
    minutes: float | None = None
    run: Path | None = None
    seeds: int = 1
    pipeline: Path | None = None
    prompts: Path | None = None
    figure_format: str | None = None

    @property
    def results(self) -> Path:
        """Folder of the figures, the tables and the protocol."""
        return Path("results") / self.name / self.budget

    @property
    def command(self) -> str:
        """The command line that makes the results."""
        run = f" run={self.run}" if self.run else ""
        return f"python -m flowexp.reproduce {self.name} budget={self.budget} seeds={self.seeds}{run}"

    @property
    def claims(self) -> Mapping[str, Mapping[str, Any]]:
        """What the recipe decides, see `flowexp.cli.recipes.claims`."""
        return dict(OmegaConf.to_container(read_yaml(self.file).get("claims", OmegaConf.create())))  # type: ignore[arg-type]

    @property
    def lines(self) -> dict[tuple[str, ...], list[str]]:
        """The overrides of every line, by (panel, label), or (label,) where there are no panels."""
        shared = self.settings.get("shared", [])
        if "panels" in self.settings:
            panels = self.settings.panels.items()
            return {(panel, label): [*own, *shared] for panel, lines in panels for label, own in lines.items()}
        return {(label,): [*own, *shared] for label, own in self.settings.get("lines", {}).items()}

    def seeds_of(self, number: int) -> range:
        """So many seeds, from the budget's `first_seed` on."""
        first = int(self.settings.get("first_seed", 0))
        return range(first, first + number)

    def module(self) -> ModuleType:
        """The Python file beside the yaml.

        Raises:
            ValueError: there is none.
        """
        file = self.file.with_suffix(".py")
        spec = importlib.util.spec_from_file_location(f"flowexp_recipe_{self.file.stem}", file)
        if not file.is_file() or spec is None or spec.loader is None:
            raise ValueError(f"{self.file} has no {file.name} beside it: a recipe is a yaml and a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module


def read_yaml(file: Path) -> DictConfig:
    """A recipe's yaml."""
    config = OmegaConf.load(file)
    assert isinstance(config, DictConfig)
    return config


def shipped() -> Path:
    """`experiments/`: beside the package in a checkout, inside it in an installed wheel."""
    return config_folder().with_name("experiments")


def find_recipes() -> dict[str, Path]:
    """The yaml of every recipe by its name: the shipped ones, those of `experiments/` here and of this folder."""
    places = [(shipped(), "**/*.yaml"), (Path("experiments"), "**/*.yaml"), (Path(), "*.yaml")]
    return {
        file.relative_to(folder).with_suffix("").as_posix(): file.absolute()
        for folder, pattern in places
        for file in sorted(folder.glob(pattern), key=_shelf)
        if file.with_suffix(".py").is_file()
    }


def _shelf(file: Path) -> tuple[int, Path, int, str]:
    """Where a recipe stands in the list: a paper's figures, its tables, what else it says, then what is ours.

    >>> sorted(map(Path, ["methods", "vd/table1", "lcf/ours", "lcf/fig13", "lcf/table01"]), key=_shelf)[-2:]
    [PosixPath('vd/table1'), PosixPath('methods')]
    """
    kinds = ("fig", "table", "proposition", "appendix")
    kind = next((place for place, start in enumerate(kinds) if file.name.startswith(start)), len(kinds))
    return -len(file.parts), file.parent, kind, file.name


def spelt_in_full(name: str) -> str:
    """A figure's or table's recipe by any of its short names.

    >>> spelt_in_full("lcf-fig9"), spelt_in_full("vd/table11"), spelt_in_full("vd/fig03_latent_distance")
    ('lcf/fig09', 'vd/table11', 'vd/fig03_latent_distance')
    >>> spelt_in_full("lcf-prop5")
    'lcf/proposition5'
    """
    if proposition := re.fullmatch(r"lcf[-/](?:prop|proposition)(\d)", name):
        return f"lcf/proposition{proposition[1]}"
    match = re.fullmatch(r"(lcf|vd)[-/](fig|table)0*(\d+)", name)
    return f"{match[1]}/{match[2]}{int(match[3]):02d}" if match else name


def _also(file: Path) -> list[str]:
    """Other figures and tables that a recipe draws: `also: [fig12]` of its yaml, beside it."""
    return [str(name) for name in read_yaml(file).get("also", [])]


def find_recipe(name: str) -> tuple[str, Path]:
    """Name and yaml of the recipe that `name` stands for: a whole name, or its beginning where that fits one alone.

    Raises:
        ValueError: none or several have that name.
    """
    recipes = find_recipes()
    wanted = spelt_in_full(name.removesuffix(".py").removesuffix(".yaml").removeprefix("experiments/"))
    if wanted in recipes:
        return wanted, recipes[wanted]
    fitting = [known for known in recipes if known.startswith(f"{wanted}_")]
    if len(fitting) == 1:
        return fitting[0], recipes[fitting[0]]
    folder, _, item = wanted.rpartition("/")
    others = [known for known, file in recipes.items() if known.rpartition("/")[0] == folder and item in _also(file)]
    if not fitting and others:
        return others[0], recipes[others[0]]
    if fitting:
        raise ValueError(f"there are several recipes named {name}: {', '.join(fitting)}")
    raise ValueError(f"there is no recipe named {name}{nearest(wanted, list(recipes))}. Recipes: {', '.join(recipes)}")


def read_recipe(name: str, arguments: Sequence[str] = ()) -> Recipe:
    """The recipe called `name` with the command line's `arguments`, such as budget=smoke.

    Raises:
        ValueError: an unknown recipe, argument or budget, or a value of the wrong kind.
    """
    name, file = find_recipe(name)
    config = read_yaml(file)
    given = _given(arguments, config.get("takes", TAKES))
    budget = str(given.get("budget", "cpu"))
    settings = read_budget(config, budget)
    minutes = given.get("minutes", settings.get("minutes"))
    if minutes is not None and (isinstance(minutes, bool) or not isinstance(minutes, int | float) or minutes <= 0):
        raise ValueError(f"minutes is the most that the recipe may take, such as 25, got {minutes}")
    run = _run(arguments)
    seeds = given.get("seeds", settings.get("seeds", 1) if run is None else 1)
    if run is not None and seeds != 1:
        raise ValueError(f"run= is one training, with one seed: leave seeds= out, got {seeds}")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ValueError(f"seeds is how many seeds each line is trained with, such as 3, got {seeds}")
    recipe = Recipe(
        name,
        file,
        budget,
        settings,
        redraw=_switch("redraw", given.get("redraw", False)),
        missing=_switch("missing", given.get("missing", False)),
        minutes=minutes,
        run=run,
        seeds=seeds,
        pipeline=_path("pipeline", arguments),
        prompts=_path("prompts", arguments),
        figure_format=(given.get("figure") or {}).get("format"),
    )
    if recipe.redraw and not any(recipe.results.glob("*.csv")):
        raise ValueError(f"redraw=true draws the tables in {recipe.results}, and there are none: leave it out once")
    return recipe


def taken(config: DictConfig, arguments: Sequence[str]) -> list[str]:
    """Those of the command line's arguments that a recipe's yaml takes."""
    takes = ("budget", "figure", *config.get("takes", TAKES))
    return [argument for argument in arguments if re.split(r"[=.]", argument)[0] in takes]


def without(config: DictConfig, arguments: Sequence[str]) -> list[str]:
    """The arguments that a recipe's yaml `needs` and the command line does not give, such as pipeline=FOLDER."""
    given = {argument.partition("=")[0] for argument in arguments}
    return [f"{key}={ARGUMENTS[key]}" for key in config.get("needs", []) if key not in given]


def _given(arguments: Sequence[str], takes: Sequence[str]) -> Mapping[str, Any]:
    paths = [key for key in PATHS if _path(key, arguments) is not None]
    given = OmegaConf.to_container(OmegaConf.from_cli([a for a in arguments if a.partition("=")[0] not in paths]))
    assert isinstance(given, dict)
    given |= dict.fromkeys(paths, "")
    if unknown := [str(key) for key in given if key not in ("budget", "figure", *takes)]:
        examples = ", ".join(f"{key}={ARGUMENTS[key]}" for key in takes)
        hint = nearest(unknown[0], ["budget", *takes])
        raise ValueError(f"this recipe takes budget=cpu, {examples}; got {', '.join(unknown)}{hint}")
    return {str(key): value for key, value in given.items()}


def _switch(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false, got {value}")
    return value


def _path(key: str, arguments: Sequence[str]) -> Path | None:
    """The last path that `key=` names, in whatever characters."""
    named = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{key}=")]
    return Path(os.path.expanduser(named[-1])) if named else None


def _run(arguments: Sequence[str]) -> Path | None:
    """The folder that `run=` names, in whatever characters. Raises ValueError where it is no run, or is damaged."""
    if (path := _path("run", arguments)) is None:
        return None
    run = RunFolder(named_run(str(path)))
    if not run.config_file.exists():
        raise ValueError(f"run={run.path} is no run folder: give the one that a training or `adopt` printed at its end")
    run.trained_config(), run.origin()
    return run.path
