"""The catalogue: `python -m experiments.catalogue` writes docs/experiments.md, all of conf/experiment with its cost."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from flowexp.backbones import Backbone
from flowexp.cli.assembly.building import build, build_backbone
from flowexp.cli.composing import Configs, config_folder
from flowexp.data import ImageDataModule
from flowexp.records.files import atomic

PAGE = Path(__file__).parents[1] / "docs" / "experiments.md"

H100 = 0.4 * 990e12  # FLOP per second: 40 % of dense bf16
TWO_CORES = 0.4e12  # measured: dit_s2, 64 images of 3 x 16 x 16 in 1.34 s (docs/results/benchmarks.md)
TEACHERS = {"dinov2_vitb14": 46e9, "efficientnet_lite": 1.0e9}  # forward FLOP for a grid of 16 x 16 tokens
TO_THE_TAP = 2 / 3  # of the depth: what self-distillation runs

SECTIONS = {  # by the first word of a name
    "LCF: pixels": ("cifar10", "tinyimagenet", "imagenet"),
    "The Velocity Deficit: latents": ("imagenet256", "imagenet512", "coco"),
    "For a CPU": ("fashion", "emoji", "digits"),
}
HEAD = """# Experiments

Made by `python -m experiments.catalogue` from conf/experiment; do not edit. Each row is `python -m flowexp.train
+experiment=NAME`, and `dry_run=true` prints its plan. Method: the objective, and every other choice that is not the
default. Parameters are the trained ones of the backbone.

Costs are estimates of the training alone, without measuring and retries:

    training FLOP = (3 forward + extra) x batch x steps

`forward` is counted, operation by operation, in one pass of one image; backward costs twice as much. For a plain
transformer 3 forward is near the rule 6 x parameters x tokens; here it is less, as modulation is computed once per
image and not per token. `extra` is REPA's teacher (DINOv2 ViT-B/14: 46 GFLOP for 16 x 16 tokens; EfficientNet-Lite0:
about 1), or self-distillation's passes (8 forward to two thirds of the depth). LCF's positives cost about what its rows
below T_min save. Projectors, ExFM's distances and optimal transport are left out. GPU hours are those of one H100 at
40 % of its 990 TFLOP/s in bf16. CPU hours are those of two cores with bf16 at 0.4 TFLOP/s, where they are less than a
day; small networks do not reach that rate. EFLOP is 10^18 operations.
"""


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue.

    Arguments:
        name: of the yaml in conf/experiment.
        about: its first comment.
        data, backbone: names of the choices.
        method: the objective, and other choices that are not the default.
        steps, batch: optimizer steps, and images in each.
        parameters: trained ones of the backbone.
        flops: of the training.
    """

    name: str
    about: str
    data: str
    backbone: str
    method: str
    steps: int
    batch: int
    parameters: int
    flops: float


@dataclass(frozen=True)
class Size:
    """Trained parameters of a network, FLOP of one image's forward pass, and tokens behind its last block."""

    parameters: int
    forward: int
    tokens: int


def list_experiments() -> list[str]:
    """The names in conf/experiment, sorted."""
    return Configs().names("experiment")


@cache
def compose_experiment(name: str, *overrides: str) -> DictConfig:
    """The training config of an experiment, with `hydra` in it for the names of its choices. It is read-only."""
    config = Configs().compose("train", [f"experiment={name}", "run_dir=.", *overrides], with_hydra=True)
    OmegaConf.set_readonly(config, True)
    return config


def first_comment(name: str) -> str:
    """The line that says what an experiment is."""
    lines = (config_folder() / "experiment" / f"{name}.yaml").read_text().splitlines()
    return lines[1].removeprefix("# ")


def entry_of(name: str) -> Entry:
    """The catalogue's row of an experiment. Nothing is loaded, no weight is allocated."""
    config = compose_experiment(name)
    size = size_of(config)
    steps, batch = steps_of(config), config.data.batch_size
    chosen = config.hydra.runtime.choices
    return Entry(
        name=name,
        about=first_comment(name),
        data=chosen.data,
        backbone=chosen.backbone,
        method=method_of(config),
        steps=steps,
        batch=batch,
        parameters=size.parameters,
        flops=(3 * size.forward + extra_flops(config, size)) * batch * steps,
    )


def method_of(config: DictConfig) -> str:
    """The objective and the other choices that differ from those of conf/train.yaml."""
    chosen, default = config.hydra.runtime.choices, _defaults()
    groups = ("terms", "interpolant", "time_sampler", "parameterization", "coupling")
    others = [chosen[group] for group in groups if chosen[group] != default[group]]
    return " + ".join([chosen.objective, *others])


@cache
def _defaults() -> dict[str, str]:
    listed = OmegaConf.load(config_folder() / "train.yaml").defaults
    entries = [entry for entry in listed if isinstance(entry, DictConfig)]
    return {str(key): value for entry in entries for key, value in entry.items_ex(resolve=False)}  # one names ${data}


def size_of(config: DictConfig) -> Size:
    """Parameters and FLOP of an experiment's network, which is built on the meta device."""
    return _size(
        *(OmegaConf.to_yaml(config[key], resolve=True) for key in ("backbone", "data")), config.class_conditional
    )


@cache
def _size(backbone: str, data: str, class_conditional: bool) -> Size:
    """The same, for yamls: many experiments share a network."""
    datamodule = build(DictConfig(OmegaConf.create(data)))
    config = OmegaConf.create({"backbone": OmegaConf.create(backbone), "class_conditional": class_conditional})
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = build_backbone(config, datamodule)
        x, t = torch.zeros(1, network.channels, network.resolution, network.resolution), torch.zeros(1)
        state = network.encode(x, t, _label(network, datamodule))
        network.decode(state)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return Size(trained, counter.get_total_flops(), state.tokens.shape[1])


def _label(network: Backbone, data: ImageDataModule) -> Tensor | None:
    if network.takes == "text":
        assert data.text_shape is not None
        return torch.zeros(1, *data.text_shape)
    return torch.zeros(1, dtype=torch.int64) if network.takes == "class" else None


def steps_of(config: DictConfig) -> int:
    """Optimizer steps, from trainer.max_steps or trainer.max_epochs."""
    if config.trainer.max_steps > 0:
        return int(config.trainer.max_steps)
    images = build(DictConfig(OmegaConf.to_container(config.data, resolve=True))).num_train_images
    return int(config.trainer.max_epochs * (images // config.data.batch_size))


def extra_flops(config: DictConfig, size: Size) -> float:
    """FLOP per image of what the terms run beside the network."""
    extra = 0.0
    if "repa" in config.terms:
        extra += TEACHERS[config.terms.repa.teacher] * size.tokens / 16**2
    if "self_distillation" in config.terms:
        extra += 2 * (3 + 1) * TO_THE_TAP * size.forward  # two views, with gradient and by the slow copy
    return extra


def render(entries: Sequence[Entry]) -> str:
    """The page."""
    parts = [HEAD]
    for title, words in SECTIONS.items():
        rows = [_row(entry) for entry in entries if section_word(entry.name) in words]
        parts.append(f"\n## {title}\n\n" + _table(rows))
    return "".join(parts)


def section_word(name: str) -> str:
    """The first word of an experiment's name: its data."""
    return name.split("_")[0]


def _row(entry: Entry) -> dict[str, str]:
    return {
        "experiment": f"`{entry.name}`",
        "what": entry.about,
        "data": entry.data,
        "backbone": entry.backbone,
        "method": entry.method,
        "steps x batch": f"{entry.steps:,} x {entry.batch:,}",
        "parameters": f"{entry.parameters / 1e6:.1f} M",
        "EFLOP": f"{entry.flops / 1e18:.2g}" if entry.flops < 1e20 else f"{entry.flops / 1e18:,.0f}",
        "H100 hours": hours(entry.flops / H100),
        "CPU hours": hours(entry.flops / TWO_CORES) if entry.flops / TWO_CORES < 24 * 3600 else "",
    }


def hours(seconds: float) -> str:
    """Seconds as hours, to two digits.

    >>> hours(360), hours(36_000), hours(1)
    ('0.1', '10', '< 0.01')
    """
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.01 else "< 0.01"


def _table(rows: Iterable[dict[str, str]]) -> str:
    rows = list(rows)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *[list(row.values()) for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def catalogue() -> str:
    """docs/experiments.md as it should be."""
    return render([entry_of(name) for name in list_experiments()])


def main() -> None:
    if sys.argv[1:]:
        raise SystemExit(f"error: the catalogue takes no arguments, got {' '.join(sys.argv[1:])}")
    atomic.write_text(PAGE, catalogue())
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
