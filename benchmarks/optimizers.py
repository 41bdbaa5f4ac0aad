"""`python -m benchmarks.optimizers [steps=240] [seeds=3] [output=FILE]`: images that optimizers need to a given loss.

AdamW, Muon and schedule-free AdamW train the same network on Fashion-MNIST. The protocol stood before the
runs that it judges; the grids of rates were widened once, after trials of 20 steps that all ended at an edge:

- network: a DiT of 6 blocks of width 64, patch 4, without classes; flow matching on the linear path, t uniform; batch
  64; gradients clipped at norm 1; fp32; no EMA. Weight decay 0.01, and a rate that rises over the first 20 steps and
  stays. The k-th steps of all runs of a seed see the same images, t and noise.
- learning rate: that of RATES at which a run of a fifth of the steps, with seed 0, ends with the lowest loss.
- loss: of 512 test images, each at a fixed t (the 512 equal parts of [0, 1]) with fixed noise, every 20 steps. Of
  schedule-free AdamW it is that of its average.
- target: the mean over the seeds of AdamW's loss after two thirds of the steps.
- result: the images that each run has seen when its loss first is at the target, interpolated between two losses.

Ten minutes of one core. A finished run is kept in outputs/benchmarks/optimizers and not repeated, so the same command
goes on where it was stopped. `steps=20 seeds=1` only shows that everything runs. The default command writes
docs/results/optimizers/README.md.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from itertools import count, pairwise
from pathlib import Path
from statistics import mean

import torch
from omegaconf import DictConfig, OmegaConf

from benchmarks.loading import endless
from flowexp.backbones import Backbone, create_backbone
from flowexp.cli.assembly.building import build_partial
from flowexp.cli.launch import config_folder
from flowexp.data import BatchLoader, FashionMNIST, Images, to_float
from flowexp.flow.randomness import keyed_generator
from flowexp.objectives import FlowMatching
from flowexp.records.files import atomic
from flowexp.training.lr_schedules import rising
from flowexp.training.optimization import clip_gradients, create_optimizer, use_weights
from flowexp.training.step_draws import StepKey, TrainingBatch

RATES = {  # by the names of conf/optimizer
    "adamw": (1e-3, 2e-3, 4e-3, 8e-3),
    "muon": (1e-3, 2e-3, 4e-3, 8e-3),
    "schedule_free": (5e-3, 1e-2, 2e-2, 4e-2),
}
NEEDS = {"schedule_free": "schedulefree"}  # packages beyond torch
BATCH, WIDTH, WARMUP, EVERY, NUM_TESTED = 64, 64, 20, 20, 512
ROOT = Path(__file__).resolve().parents[1]
KEPT = Path("outputs", "benchmarks", "optimizers")
COLUMNS = (
    "optimizer", "learning rate", "images to the target, by seed", "against AdamW's", "loss at the end, by seed",
    "processor's ms per step",
)  # fmt: skip
REPORT = ROOT / "docs" / "results" / "optimizers" / "README.md"


@dataclass(frozen=True)
class Run:
    """What decides a run."""

    optimizer: str
    lr: float
    seed: int
    steps: int

    @property
    def file(self) -> Path:
        return KEPT / f"{self.optimizer}_{self.lr:g}_seed{self.seed}_{self.steps}.json"


@dataclass(frozen=True)
class Curve:
    """Losses of a run by the steps before them, and the processor's seconds of a training step."""

    losses: dict[int, float]
    seconds_per_step: float

    @property
    def last(self) -> float:
        return self.losses[max(self.losses)]

    def loss_after(self, steps: float) -> float:
        """Interpolated between the two losses around it."""
        (before, low), (after, high) = next(pair for pair in pairwise(self.losses.items()) if pair[1][0] >= steps)
        return low + (high - low) * (steps - before) / (after - before)

    def images_to(self, target: float) -> float | None:
        """Images seen when the loss first is at the target; None where it never is."""
        for (before, high), (after, low) in pairwise(self.losses.items()):
            if low <= target:
                return BATCH * (after if high <= target else before + (after - before) * (high - target) / (high - low))
        return None


@dataclass(frozen=True)
class Score:
    """What an optimizer comes to: one curve for each seed."""

    optimizer: str
    lr: float
    curves: Sequence[Curve]


# --- training ---------------------------------------------------------------------------------------------------------


class Bench:
    """The data, and what is tested on them."""

    @cached_property
    def data(self) -> tuple[Images, Images]:
        """Training and test images. Raises `DataError` where they are not to be had."""
        datamodule = FashionMNIST(batch_size=BATCH)
        datamodule.prepare_data()
        datamodule.setup("fit")
        return datamodule.train, datamodule.test

    def tested(self, module: FlowMatching) -> TrainingBatch:
        """Test images with their fixed noise and levels, in an order that mixes levels and classes."""
        images = self.data[1].subset(NUM_TESTED)
        drawn = module.draw(to_float(images.images), images.labels, StepKey(seed=0, step=0))
        levels = (torch.randperm(len(images), generator=keyed_generator(0)) + 0.5) / len(images)
        return TrainingBatch(**{**vars(drawn), "t": levels, "everyone_t": levels})

    def curve(self, run: Run) -> Curve:
        """The losses of a run: those of its file, or those of a training, which is then kept there."""
        if run.file.exists():
            kept = json.loads(run.file.read_text())
            return Curve({int(step): loss for step, loss in kept["losses"].items()}, kept["seconds_per_step"])
        curve = self.train(run)
        run.file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(run.file, json.dumps({**asdict(run), **asdict(curve)}))
        print(f"{run.optimizer} lr {run.lr:g} seed {run.seed}: {curve.last:.4f}", file=sys.stderr, flush=True)
        return curve

    def train(self, run: Run) -> Curve:
        """One training."""
        module = FlowMatching(create_network(run.seed))
        optimizer = create_optimizer(optimizer_of(run), module.named_parameters())
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, partial(rising, warmup_steps=WARMUP))
        batches, tested = self.batches(module, run.seed), self.tested(module)
        losses, seconds = {0: loss_of(module, tested)}, 0.0
        for step in range(1, run.steps + 1):
            start = time.process_time()
            take_step(module, optimizer, next(batches))
            schedule.step()
            seconds += time.process_time() - start
            if step % EVERY == 0 or step == run.steps:
                use_weights(optimizer, to_train=False)
                losses[step] = loss_of(module, tested)
        return Curve(losses, seconds / run.steps)

    def batches(self, module: FlowMatching, seed: int) -> Iterator[TrainingBatch]:
        """Batches with their t and noise, which depend on the seed alone."""
        keys = (StepKey(seed=seed, step=step) for step in count())
        for batch, key in zip(endless(BatchLoader(self.data[0], BATCH, seed=seed)), keys, strict=False):
            yield module.draw(to_float(batch["image"]), batch["label"], key)


def create_network(seed: int) -> Backbone:
    """The network, freshly initialised."""
    torch.manual_seed(seed)
    return create_backbone("dit_nano4", width=WIDTH, resolution=28, channels=1)


def optimizer_of(run: Run) -> partial[torch.optim.Optimizer]:
    """The optimizer of conf/optimizer with the run's rate, but for the parameters."""
    config = OmegaConf.load(config_folder() / "optimizer" / f"{run.optimizer}.yaml")
    assert isinstance(config, DictConfig)
    config.lr, config.weight_decay = run.lr, 0.01
    made: partial[torch.optim.Optimizer] = build_partial(config)
    return made


def take_step(module: FlowMatching, optimizer: torch.optim.Optimizer, batch: TrainingBatch) -> None:
    """One update of the weights."""
    use_weights(optimizer, to_train=True)
    loss = module.losses(batch).loss
    optimizer.zero_grad()
    loss.backward()
    clip_gradients(module.parameters())
    optimizer.step()


@torch.no_grad()
def loss_of(module: FlowMatching, tested: TrainingBatch) -> float:
    """The loss of the tested images."""
    return float(module.losses(tested).loss)


# --- the protocol -----------------------------------------------------------------------------------------------------


def scores(bench: Bench, steps: int, seeds: int) -> list[Score]:
    """Of each optimizer that can be built here: its rate, and its curves."""
    found = []
    for optimizer in available():
        lr = best_rate(bench, optimizer, max(1, steps // 5))
        curves = [bench.curve(Run(optimizer, lr, seed, steps)) for seed in range(seeds)]
        found.append(Score(optimizer, lr, curves))
    return found


def available() -> list[str]:
    """The optimizers whose packages are installed."""
    return [name for name in RATES if name not in NEEDS or find_spec(NEEDS[name]) is not None]


def best_rate(bench: Bench, optimizer: str, steps: int) -> float:
    """The rate with the lowest loss after so many steps; one that diverges has none."""
    ends = {lr: bench.curve(Run(optimizer, lr, 0, steps)).last for lr in RATES[optimizer]}
    return min(ends, key=lambda lr: ends[lr] if ends[lr] == ends[lr] else float("inf"))


# --- the report -------------------------------------------------------------------------------------------------------


def report(found: Sequence[Score], steps: int, seeds: int) -> str:
    """The result as markdown, with the protocol."""
    target = mean(curve.loss_after(2 * steps / 3) for curve in found[0].curves)
    made_with = f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} thread(s)"
    missing = [name for name in RATES if name not in available()]
    lines = [
        "# Optimizers by the images to a given loss",
        "",
        f"- target: loss {target:.4f}, AdamW's after {2 * steps / 3 * BATCH:,.0f} images, mean of {seeds} seeds",
        f"- made by: `python -m benchmarks.optimizers steps={steps} seeds={seeds}` with {made_with}",
        *(f"- left out: {name}, which needs `pip install {NEEDS[name]}`" for name in missing),
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(f"| {' | '.join(cells(score, found[0], target))} |" for score in found),
        "",
        *(__doc__ or "").split("\n\n", 1)[1].strip().splitlines(),
    ]
    return "\n".join(lines) + "\n"


def cells(score: Score, adamw: Score, target: float) -> list[str]:
    """The line of an optimizer, with the ratio of its images to AdamW's of the same seed."""
    needed, by_adamw = ([curve.images_to(target) for curve in each.curves] for each in (score, adamw))
    ratios = [one / other for one, other in zip(needed, by_adamw, strict=True) if one and other]
    whole = len(ratios) == len(needed)
    grid = RATES[score.optimizer]
    return [
        score.optimizer,
        f"{score.lr:g}" + (" (an end of the grid)" if score.lr in (grid[0], grid[-1]) else ""),
        ", ".join("not reached" if images is None else f"{images:,.0f}" for images in needed),
        f"{mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if whole else "",
        ", ".join(f"{curve.last:.4f}" for curve in score.curves),
        f"{1000 * mean(curve.seconds_per_step for curve in score.curves):.0f}",
    ]


# --- the command ------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Runs what is not there yet, and reports."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if unknown := given.keys() - {"steps", "seeds", "output"}:
        print(f"error: there is no option {', '.join(unknown)}: give steps=, seeds= or output=", file=sys.stderr)
        return 2
    steps, seeds = int(given.get("steps", 240)), int(given.get("seeds", 3))
    text = report(scores(Bench(), steps, seeds), steps, seeds)
    print(text)
    output = Path(given["output"]) if "output" in given else REPORT if not {"steps", "seeds"} & given.keys() else None
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(output, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
