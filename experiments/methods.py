"""Every method of both papers on one dataset, with one network and one protocol: a table of what each costs and gives.

`python -m experiments.methods budget=cpu` writes results/methods/BUDGET: methods.csv, table.md, protocol.json.
Training-free methods (SSC, solvers, guidance) measure the weights of the method that their line names.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from benchmarks.timing import Comparison, stopwatch
from experiments.recipes import compose_run, markdown_table, read_recipe, run_of, write_protocol
from flowexp.building import build_datamodule, build_module, resolve_precision
from flowexp.callbacks.precision import autocast
from flowexp.data import ImageDataModule, to_float
from flowexp.draws import StepKey
from flowexp.modules import FlowMatching
from flowexp.runs import RunFolder
from flowexp.tables import read_csv, write_csv

BASE = "experiment=fashion_fm"
STEPS_PER_ROUND = 3


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    methods = OmegaConf.load(Path(__file__).with_suffix(".yaml")).methods
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        runs = train_all(methods, recipe.settings)
        rows = [row_of(name, method, runs[name]) for name, method in methods.items()]
        add_costs(rows, methods, recipe.settings)
        write_csv(recipe.results / "methods.csv", rows)
        write_protocol(recipe, runs)
    rows = read_csv(recipe.results / "methods.csv")
    (recipe.results / "table.md").write_text(markdown_table(rows))
    print(f"\n{(recipe.results / 'table.md').read_text()}")
    print(f"the table: {recipe.results / 'table.md'} (and methods.csv), with its protocol in protocol.json")


def train_all(methods: Mapping[str, DictConfig], settings: DictConfig) -> dict[str, RunFolder]:
    """The runs of all methods, `settings.side_by_side` at a time; those that measure another's weights come last."""
    runs: dict[str, RunFolder] = {}
    for training_free in (False, True):
        names = [name for name, method in methods.items() if ("from" in method) == training_free]
        wanted = [[*overrides_of(methods[name], settings.shared), f"name={folder_of(name)}"] for name in names]
        with ThreadPoolExecutor(settings.side_by_side) as pool:
            runs |= zip(names, pool.map(run_of, wanted), strict=True)
    return {name: runs[name] for name in methods}


def folder_of(name: str) -> str:
    """A method's name as that of a folder, so that runs which start in one second have folders of their own."""
    return "methods_" + re.sub(r"[^a-z0-9.-]+", "_", name.lower()).strip("_")


def overrides_of(method: DictConfig, shared: Sequence[str]) -> list[str]:
    """What the command line of a method's run says."""
    own = list(method.overrides)
    base = [] if any(override.startswith("experiment=") for override in own) else [BASE]
    measured = [] if method.get("from") is None else ["callbacks.probe=null", "callbacks.noise_levels=null"]
    kept = [s for s in shared if not (measured and s.startswith(("callbacks.probe.", "callbacks.noise_levels.")))]
    return [*base, *kept, *own, *measured]


def row_of(name: str, method: DictConfig, run: RunFolder) -> dict[str, Any]:
    """A method's line of the table without its costs; what it shares with the line that it measures is left out."""
    found = run.summary()["scalars"]
    terms = {} if method.get("from") else last_losses(run)
    return {
        "method": name,
        "shows": method.shows,
        "parameters": None,
        "time / FM": None,
        "loss terms at the end": ", ".join(f"{term} {value:.3g}" for term, value in terms.items()),
        "Frechet distance": found["frechet/efficientnet_lite"],
        "probe at t = 0": found.get("probe/at_clean"),
        "probe at its peak": found.get("probe/peak"),
        "|v| / |v*|": found.get("noise_levels/velocity_ratio"),
    }


def last_losses(run: RunFolder) -> dict[str, float]:
    """The parts of the loss that the run logged last, by name."""
    tables = sorted(run.path.glob("csv/version_*/metrics.csv"))
    logged = [row for table in tables for row in read_csv(table) if isinstance(row.get("train/loss"), float)]
    if not logged:  # a run shorter than `log_every_n_steps`
        return {}
    hidden = ("train/loss", "train/grad_norm", "train/lr", "train/steps_per_second")
    last = {key: value for key, value in logged[-1].items() if key.startswith("train/") and key not in hidden}
    return {key.removeprefix("train/"): value for key, value in last.items() if isinstance(value, float)}


def add_costs(rows: list[dict[str, Any]], methods: Mapping[str, DictConfig], settings: DictConfig) -> None:
    """Trained parameters of every method, and the time of its training step over FM's, measured in turns."""
    fm, _ = stepper(overrides_of(methods["FM"], settings.shared))
    for row in tqdm(rows, desc="timing steps", unit="method", leave=False):
        if methods[row["method"]].get("from"):
            continue
        step, row["parameters"] = stepper(overrides_of(methods[row["method"]], settings.shared))
        contestants = {"FM": stopwatch(fm, repeats=STEPS_PER_ROUND), "it": stopwatch(step, repeats=STEPS_PER_ROUND)}
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
    batch = datamodule.train.select(torch.arange(datamodule.batch_size))
    data, label = to_float(batch.images), batch.labels
    optimizer, _ = module.optimization.create(module.parameters())
    module.on_train_start()
    keys = (StepKey(module.seed, step) for step in count())

    def step() -> None:
        with autocast(precision, module.device):
            loss = module.losses(module.draw(data, label, next(keys))).loss
        optimizer.zero_grad()
        loss.backward()
        module.optimization.clip(module.parameters())
        optimizer.step()
        module.after_step()

    return step


if __name__ == "__main__":
    main()
