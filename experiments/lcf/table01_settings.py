"""LCF Tables 1 to 3: every printed setting beside the one that `experiment=` composes; nothing is trained.

`make reproduce-lcf-table1` (also table2, table3). What differs says so in its row, and docs/ledger.md says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from omegaconf import DictConfig

from flowexp.backbones import Backbone
from flowexp.cli.assembly.building import build_backbone, look_for_data
from flowexp.cli.recipes import Judgement, Lines, Rows, published
from flowexp.cli.recipes.runs import compose_run
from flowexp.measuring.diagnostics import create_protocol

ARCHITECTURE = ("resolution", "depth", "width", "heads", "mlp", "patch", "params_m")
PARTS = {"architecture": "Table 1", "training": "Table 2 and text", "probe": "Table 3"}
TOLERANCE = 0.01  # of the parameters, which are printed with two or three digits


@dataclass(frozen=True)
class Composed:
    """An experiment as it is composed: its config, and its network without weights."""

    config: DictConfig
    backbone: Backbone
    resolution: int


def compose(experiment: str) -> Composed:
    """The network has no adaLN: the paper's parameters are those without (docs/ledger.md)."""
    config = compose_run([f"experiment={experiment}", "backbone.conditioning=none"])
    datamodule, _ = look_for_data(config)
    with torch.device("meta"):
        return Composed(config, build_backbone(config, datamodule), datamodule.resolution)


def architecture(composed: Composed) -> dict[str, Any]:
    """The columns of Table 1."""
    network: Any = composed.backbone
    block = network.blocks[0]
    parameters = sum(p.numel() for p in network.parameters() if p.requires_grad)
    return {
        "resolution": composed.resolution, "depth": network.depth, "width": network.width,
        "heads": block.attn.num_heads, "mlp": block.mlp.fc1.out_features, "patch": network.patch,
        "params_m": round(parameters / 1e6, 1),
    }  # fmt: skip


def training(composed: Composed) -> dict[str, Any]:
    """The columns of Table 2, and what sections 6.2 and A.5 add for one dataset."""
    config = composed.config
    return {
        "feature_layer": composed.backbone.default_tap if config.objective.tap is None else config.objective.tap,
        "batch": config.data.batch_size, "lr": config.optimizer.lr, "epochs": config.trainer.max_epochs,
        "warmup_epochs": config.lr_schedule.warmup_epochs, "t_min": config.objective.T_min,
        "prediction": {"velocity": "v", "data": "x"}[config.parameterization.prediction],
        "probe_epochs": config.callbacks.probe.epochs,
    }  # fmt: skip


def shared(composed: Composed) -> dict[str, Any]:
    """What holds for all datasets: sections 6.1, 6.2 and A.4.2."""
    config = composed.config
    return {
        "optimizer": str(config.optimizer["_target_"]).rpartition(".")[2],
        "weight_decay": config.optimizer.weight_decay, "grad_clip": config.trainer.gradient_clip_val,
        "ema": config.ema.decay, "lambda": config.objective.lam, "tau": config.objective.tau,
        "fid_samples": config.callbacks.frechet.num_samples, "conditional": config.class_conditional,
    }  # fmt: skip


def probe(composed: Composed) -> dict[str, Any]:
    """Table 3, as the experiment has it."""
    said = composed.config.callbacks.probe
    changes = {key: said[key] for key in ("epochs", "batch_size", "lr", "weight_decay", "optimizer")}
    protocol = create_protocol(said.protocol).but(**changes)
    return {
        "optimizer": {"adamw": "AdamW", "adam": "Adam"}[protocol.optimizer], "batch": protocol.batch_size,
        "lr": protocol.lr, "weight_decay": protocol.weight_decay, "epochs": protocol.epochs,
    }  # fmt: skip


def measure(lines: Lines) -> dict[str, Rows]:
    return {"settings": [*settings(lines.settings.experiments)]}


def settings(experiments: DictConfig) -> Iterator[dict[str, Any]]:
    """A row for every printed setting that a config has."""
    setup = published("lcf", "setup")
    for data, experiment in experiments.items():
        composed = compose(experiment)
        parts = {"architecture": architecture(composed), "training": training(composed)}
        for part, ours in parts.items():
            yield from rows(part, str(data), ours, setup[data])
        yield from rows("training", str(data), shared(composed), setup["shared"])
        own = {"epochs": setup[data]["probe_epochs"]} if "probe_epochs" in setup[data] else {}  # section A.5
        ours = probe(composed) | {"layer": composed.backbone.default_tap}
        yield from rows("probe", str(data), ours, setup["probe"] | own)


def rows(part: str, data: str, ours: dict[str, Any], printed: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings that both have."""
    for key, value in ours.items():
        if key in printed:
            equal = is_equal(key, value, printed[key])
            yield {"part": part, "data": data, "setting": key, "ours": value, "paper": printed[key], "equal": equal}


def is_equal(key: str, ours: Any, paper: Any) -> bool:
    if key == "params_m":
        return abs(float(ours) / float(paper) - 1) <= TOLERANCE
    return bool(ours == paper)


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    """Nothing: these are tables."""
    return {}


def summarise(tables: dict[str, Rows]) -> Rows:
    return [
        {"place": PARTS[row["part"]], "data": row["data"], "setting": row["setting"], "ours": row["ours"],
         "paper": row["paper"], "equal": "yes" if row["equal"] in (True, "True") else "no"}
        for row in tables["settings"]
    ]  # fmt: skip


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    return {part: judge_part([row for row in tables["settings"] if row["part"] == part]) for part in PARTS}


def judge_part(rows: Rows) -> Judgement:
    """Supported where no setting differs; else refuted, with those that do."""
    different = [row for row in rows if row["equal"] not in (True, "True")]
    if not different:
        return Judgement("supported", f"all {len(rows)} settings are equal")
    named = [f"{row['data']} {row['setting']} {row['ours']}, not {row['paper']}" for row in different]
    return Judgement("refuted", f"{len(different)} of {len(rows)} differ: {'; '.join(named)}")
