"""Every method of both papers on one dataset, with one network and one protocol: a table of what each costs and gives.

`python -m flowexp.reproduce methods` writes results/methods/BUDGET: methods.csv, table.md, protocol.json. With
`missing=true` it keeps the lines that are there, and makes those that the yaml has beside them; with `seeds=3` every
line is a mean with its spread. Training-free methods (SSC, solvers, guidance) measure the weights of the method that
their line names, and show what is known of those.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from flowexp.cli.assembly.building import build_datamodule, build_module
from flowexp.cli.assembly.hardware import resolve_precision
from flowexp.cli.recipes import Recipe, over_seeds, spread_in
from flowexp.cli.recipes.runs import compose_run, measurement_of, protocol_of, run_of, seeded
from flowexp.cli.threads import THREADS, threads_of_each
from flowexp.data import ImageDataModule, Pick
from flowexp.measuring.callbacks.autocast import autocast
from flowexp.objectives import FlowMatching
from flowexp.records.files import atomic
from flowexp.records.protocol_card import card_hash
from flowexp.records.run_folder import RunFolder
from flowexp.records.tables import markdown_table, read_csv, write_csv
from flowexp.training.optimization import clip_gradients, create_optimizer
from flowexp.training.step_draws import StepKey

BASE = "experiment=fashion_fm"
SCORES = "samples_efficientnet_lite"  # the measurement that counts network calls
DISTANCE = "frechet/efficientnet_lite"
LOSSES = "loss terms at the end"
SPREAD = "spread of"
SCORED = ("num_samples", "batch_size", "max_reference", "precision")  # settings that scores depend on
OF_WEIGHTS = ("parameters", "time / FM", LOSSES, "probe at t = 0", "probe at its peak", "|v| / |v*|")
OF_SAMPLES = ("network calls", "Frechet distance", "card")
AVERAGED = ("probe at t = 0", "probe at its peak", "|v| / |v*|", "Frechet distance")  # over seeds, with their spread

Row = dict[str, Any]


def main(recipe: Recipe) -> None:
    """Makes the table; `flowexp.reproduce` calls it in place of `measure` and `draw`."""
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        make_table(recipe, chosen(OmegaConf.load(recipe.file).methods, recipe.settings))
    rows = read_csv(recipe.results / "methods.csv", words=["card"])
    atomic.write_text(recipe.results / "table.md", markdown_table(rows))
    print(f"\n{(recipe.results / 'table.md').read_text()}")
    print(f"the table: {recipe.results / 'table.md'} (and methods.csv), with its protocol in protocol.json")


def make_table(recipe: Recipe, methods: Mapping[str, DictConfig]) -> None:
    """Trains and measures what has no line yet, and writes methods.csv and protocol.json."""
    rows, protocol = kept(recipe, methods) if recipe.missing else ({}, {})
    wanted = with_sources(methods, set(methods) - set(rows))
    print(f"{len(wanted)} of {len(methods)} lines are to be made or found again: {', '.join(wanted)}")
    first, *others = [run_all(wanted, recipe.settings, seed) for seed in recipe.seeds_of(recipe.seeds)]
    for name in wanted:
        rows[name] = averaged([row_of(runs[name], trains=is_trained(methods[name])) for runs in (first, *others)])
    add_costs({name: rows[name] for name in wanted if is_trained(methods[name])}, methods, recipe.settings)
    how = {name: how_it_came(methods[name], run, first, recipe.settings) for name, run in first.items()}
    protocol |= {name: entry | {"seeds": recipe.seeds} for name, entry in how.items()}
    write_csv(recipe.results / "methods.csv", [line_of(name, methods, rows) for name in methods])
    entries = [f"{json.dumps(name)}: {json.dumps(protocol[name])}" for name in methods]  # a line each: there are many
    atomic.write_text(recipe.results / "protocol.json", "{\n" + ",\n".join(entries) + "\n}\n")


# --- which lines are to be made ---------------------------------------------------------------------------------------


def chosen(methods: Mapping[str, DictConfig], settings: DictConfig) -> dict[str, DictConfig]:
    """Those that the budget's `only` names, in the order of the yaml; all where it names none."""
    only = settings.get("only")
    return {name: method for name, method in methods.items() if only is None or name in only}


def is_trained(method: DictConfig) -> bool:
    """Whether the line has weights of its own."""
    return method.get("from") is None


def kept(recipe: Recipe, methods: Mapping[str, DictConfig]) -> tuple[dict[str, Row], dict[str, Any]]:
    """The lines of an earlier table, and their protocols, by method: those made with the settings of today."""
    table, how = recipe.results / "methods.csv", recipe.results / "protocol.json"
    if not (table.exists() and how.exists()):
        return {}, {}
    protocol = {name: entry for name, entry in json.loads(how.read_text()).items() if name in methods}
    rows = {row["method"]: dict(row) for row in read_csv(table, words=["card"]) if row["method"] in protocol}
    same = {name for name in rows if _is_of_today(methods[name], protocol[name], recipe)}
    same = {name for name in same if is_trained(methods[name]) or methods[name]["from"] in same}
    for name in same:
        scored = protocol[name]["measured"][SCORES]
        calls, parameters = scored["nfe"], int(rows[name]["parameters"])
        rows[name] |= {"network calls": calls, "card": _card_in(scored), "parameters": parameters}
    return {name: rows[name] for name in same}, {name: protocol[name] for name in same}


def _card_in(scored: Mapping[str, Any]) -> str | None:
    """The hash of the distance's card; older protocols have one hash for all numbers. None where neither is known."""
    return (scored.get("cards") or {}).get(DISTANCE) or card_hash(scored)


def _is_of_today(method: DictConfig, protocol: Mapping[str, Any], recipe: Recipe) -> bool:
    today = overrides_of(method, recipe.settings)
    same = protocol.get("overrides", today) == today  # older protocols do not say
    return bool(same and protocol.get("seeds", 1) == recipe.seeds)


def with_sources(methods: Mapping[str, DictConfig], names: Collection[str]) -> dict[str, DictConfig]:
    """The methods of these names, and those whose weights they measure or are guided by, in the order of the yaml."""
    sources = {methods[name].get(key) for name in names for key in ("from", "guide")}
    return {name: method for name, method in methods.items() if name in names or name in sources}


# --- runs -------------------------------------------------------------------------------------------------------------


def run_all(methods: Mapping[str, DictConfig], settings: DictConfig, seed: int = 0) -> dict[str, RunFolder]:
    """The runs of methods with a seed, `settings.side_by_side` at a time; those of another's weights come last.

    Each gets its share of the cores.
    """
    runs: dict[str, RunFolder] = {}

    def run(name: str) -> RunFolder:
        return _run(name, methods[name], runs, settings, seed)

    for trained in (True, False):
        names = [name for name, method in methods.items() if is_trained(method) == trained]
        with ThreadPoolExecutor(settings.side_by_side) as pool, cores_shared(settings.side_by_side):
            runs |= zip(names, pool.map(run, names), strict=True)
    return {name: runs[name] for name in methods}


@contextmanager
def cores_shared(num: int) -> Iterator[None]:
    """Within it each of `num` commands that are called side by side has its share of the cores."""
    given = os.environ.get(THREADS)
    os.environ[THREADS] = str(threads_of_each(num))
    try:
        yield
    finally:
        del os.environ[THREADS]
        if given is not None:
            os.environ[THREADS] = given


def _run(name: str, method: DictConfig, runs: Mapping[str, RunFolder], settings: DictConfig, seed: int) -> RunFolder:
    overrides = overrides_of(method, settings)
    if method.get("guide") is None:
        return run_of([*overrides, f"name={folder_of(name)}", *seeded(seed)])
    weights, guide = runs[method["from"]], runs[method.guide]
    return measurement_of(weights, "evaluate", [*_of_evaluation(overrides, weights), f"guide={guide.path}"])


def _of_evaluation(overrides: Sequence[str], run: RunFolder) -> list[str]:
    """What `flowexp.evaluate` is told, to sample as `overrides` say and to score as the run's own samples were."""
    scored = run.config().callbacks.frechet
    values = {key: "null" if scored[key] is None else scored[key] for key in SCORED}
    others = [f"callbacks.{name}=null" for name in ("probe", "noise_levels", "samples")]
    sampling = [said for said in overrides if said.startswith(("sampler", "ssc"))]
    return [*sampling, *(f"callbacks.frechet.{key}={value}" for key, value in values.items()), *others]


def folder_of(name: str) -> str:
    """A method's name as that of a folder, so that runs which start in one second have folders of their own."""
    return "methods_" + re.sub(r"[^a-z0-9.-]+", "_", name.lower()).strip("_")


def overrides_of(method: DictConfig, settings: DictConfig) -> list[str]:
    """What the command line of a method's run says. The solver gets the steps that `network_calls` are enough for."""
    own = list(method.overrides)
    base = [] if any(override.startswith("experiment=") for override in own) else [BASE]
    steps = f"sampler.num_steps={max(1, int(settings.network_calls * method.get('steps_per_call', 1)))}"
    measured = [] if is_trained(method) else ["callbacks.probe=null", "callbacks.noise_levels=null"]
    unused = ("callbacks.probe.", "callbacks.noise_levels.") if measured else ()
    return [*base, *(said for said in settings.shared if not said.startswith(unused)), steps, *own, *measured]


# --- lines ------------------------------------------------------------------------------------------------------------


def row_of(run: RunFolder, trains: bool) -> Row:
    """What a run knows of its samples and, if it has weights of its own, of those; costs are not in it."""
    found, scored = run.summary()["scalars"], run.summary()["protocol"][SCORES]
    samples = {"network calls": scored["nfe"], "Frechet distance": found[DISTANCE], "card": _card_in(scored)}
    if not trains:
        return samples
    return samples | {
        LOSSES: ", ".join(f"{term} {value:.3g}" for term, value in last_losses(run).items()),
        "probe at t = 0": found.get("probe_paper/at_clean"),
        "probe at its peak": found.get("probe_paper/peak"),
        "|v| / |v*|": found.get("noise_levels/velocity_ratio"),
    }


def averaged(rows: Sequence[Row]) -> Row:
    """The row of a line, of those of its seeds: their mean, with the spread in a column of its own where it has one."""
    first, (over,) = rows[0], over_seeds(rows, [], AVERAGED)
    if len(rows) == 1:
        return first
    measured = [column for column in AVERAGED if column in over]
    spread = {f"{SPREAD} {column}": spread_in(over, column) for column in measured}
    return first | {column: over[column] for column in measured} | spread


def line_of(name: str, methods: Mapping[str, DictConfig], rows: Mapping[str, Row]) -> Row:
    """A line of the table: of the weights what is known of the line that trained them, of the samples its own."""
    method = methods[name]
    weights = name if is_trained(method) else method["from"]
    about = {"method": name, "shows": method.shows, "weights of": "" if is_trained(method) else weights}
    return about | _columns(rows[weights], OF_WEIGHTS) | _columns(rows[name], OF_SAMPLES)


def _columns(row: Row, columns: Sequence[str]) -> Row:
    """Some columns of a row, each with its spread behind it where it has one."""
    named = [name for column in columns for name in (column, f"{SPREAD} {column}")]
    return {name: row[name] for name in named if name in columns or name in row}


def how_it_came(
    method: DictConfig, run: RunFolder, runs: Mapping[str, RunFolder], settings: DictConfig
) -> dict[str, Any]:
    """The protocol of a line, see `protocol_of`, with what its command line said."""
    said = {"overrides": overrides_of(method, settings)}
    if method.get("guide") is None:
        return protocol_of(run) | said
    about = {"measured": run.summary()["protocol"], "guide": method.guide}
    return protocol_of(runs[method["from"]]) | about | said


def last_losses(run: RunFolder) -> dict[str, float]:
    """The parts of the loss that were logged last when the run's weights were trained, by name."""
    tables = sorted(run.trained_by().path.glob("csv/version_*/metrics.csv"))
    logged = [row for table in tables for row in read_csv(table) if isinstance(row.get("train/loss"), float)]
    if not logged:  # adopted weights, or a run of an earlier version that was shorter than `log_every_n_steps`
        return {}
    hidden = ("train/loss", "train/grad_norm", "train/lr", "train/steps_per_second")
    last = {key: value for key, value in logged[-1].items() if key.startswith("train/") and key not in hidden}
    return {key.removeprefix("train/"): value for key, value in last.items() if isinstance(value, float)}


def add_costs(rows: Mapping[str, Row], methods: Mapping[str, DictConfig], settings: DictConfig) -> None:
    """Trained parameters of every method, and the time of its training step over FM's, measured in turns."""
    from benchmarks.timing import Comparison, stopwatch  # of the checkout: an installed flowexp has none

    fm, _ = stepper(overrides_of(methods["FM"], settings))
    for name, row in tqdm(rows.items(), desc="timing steps", unit="method", leave=False):
        step, row["parameters"] = stepper(overrides_of(methods[name], settings))
        repeats = int(settings.steps_per_round)
        contestants = {"FM": stopwatch(fm, repeats=repeats), "it": stopwatch(step, repeats=repeats)}
        row["time / FM"] = Comparison(contestants).run(settings.rounds).ratio("it", "FM").median


def stepper(overrides: Sequence[str]) -> tuple[Callable[[], None], int]:
    """A function that takes the next training step of such a run, and its number of trained parameters."""
    config = compose_run(overrides)
    datamodule = build_datamodule(config)
    module = build_module(config, datamodule)
    precision = resolve_precision(config.trainer.precision, config.trainer.accelerator)
    return steps_of(module, datamodule, precision), sum(p.numel() for p in module.parameters() if p.requires_grad)


def steps_of(module: FlowMatching, datamodule: ImageDataModule, precision: str) -> Callable[[], None]:
    """Draw, loss, backward, clip, AdamW and EMA, again and again on one batch."""
    stored = datamodule.train.batch(Pick(torch.arange(datamodule.batch_size)))
    batch = datamodule.on_after_batch_transfer(stored, 0)
    optimizer = create_optimizer(module.make_optimizer, module.named_parameters())
    module.on_train_start()
    keys = (StepKey(module.seed, step) for step in count())

    def step() -> None:
        with autocast(precision, module.device):
            loss = module.losses(module.draw(batch["image"], batch["label"], next(keys))).loss
        optimizer.zero_grad()
        loss.backward()
        clip_gradients(module.parameters())
        optimizer.step()
        module.after_step()

    return step
