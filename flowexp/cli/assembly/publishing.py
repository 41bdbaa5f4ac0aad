"""From a run to the model that is published: its parts by name, and nothing that only this machine has."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import flowexp
from flowexp.backbones import list_backbones
from flowexp.cli.assembly.building import backbone_config
from flowexp.data import ImageDataModule
from flowexp.flow.choices import check_choice
from flowexp.flow.interpolants import Interpolant
from flowexp.flow.solvers import SOLVERS
from flowexp.integrations.published import INTERPOLANTS, PICTURES, PublishedModel
from flowexp.objectives import FlowMatching
from flowexp.records.run_folder import RunFolder

FORMATS = ("flowexp", "diffusers")


def check_format(name: str) -> None:
    """Raises ValueError for a format that no export has."""
    check_choice("format", name, FORMATS)


def publish(config: DictConfig, module: FlowMatching, datamodule: ImageDataModule, step: int) -> PublishedModel:
    """The model of `config.run` with the weights and the sampler that `module` has chosen, on the CPU.

    Raises:
        ValueError: a part is none of flowexp's registries, by whose names others load it.
    """
    trained = RunFolder(Path(config.run)).trained_config()
    model = PublishedModel(
        backbone=_backbone(trained, datamodule),
        interpolant=_interpolant(module.interpolant),
        parameterization=asdict(module.parameterization),
        sampler=_sampler(config.sampler),
        about={
            "name": str(trained.name),
            "objective": _objective(module, trained),
            "data": datamodule.name,
            "steps": step,
            "weights": module.weights_name,
            "space": datamodule.pictures_protocol().get("decoder", PICTURES),
            "flowexp": flowexp.__version__,
        },
    )
    with module.averaged():
        model.backbone.load_state_dict(module.backbone.state_dict())
    return model.eval()


def _objective(module: FlowMatching, trained: DictConfig) -> str:
    """The objective with its settings, such as "mafm (lam 0.2, profile linear, form rms_squared)"."""
    settings = [f"{key} {value}" for key, value in trained.objective.items() if key != "_target_" and value is not None]
    return f"{module.objective} ({', '.join(settings)})" if settings else module.objective


def _backbone(trained: DictConfig, datamodule: ImageDataModule) -> dict[str, Any]:
    keys = _plain(backbone_config(trained, datamodule))
    target = keys.pop("_target_")
    if target != "flowexp.backbones.create_backbone" or keys.get("name") not in list_backbones():
        raise ValueError(
            f"an export names a network of flowexp's list, and this run has {target}: give its file to the reader, or "
            "list it with flowexp.backbones.register_backbone"
        )
    return keys


def _interpolant(interpolant: Interpolant) -> dict[str, Any]:
    if INTERPOLANTS.get(interpolant.name) is not type(interpolant):
        raise ValueError(
            f"an export names a path of {', '.join(INTERPOLANTS)}, and this run has {type(interpolant).__name__}"
        )
    return {"name": interpolant.name, **asdict(interpolant)}


def _sampler(sampler: DictConfig) -> dict[str, Any]:
    keys = _plain(sampler)
    keys.pop("_target_", None)
    if keys["solver"] not in SOLVERS:
        raise ValueError(f"an export names a solver of {', '.join(SOLVERS)}, got {keys['solver']}: give sampler=euler")
    return keys


def _plain(config: DictConfig) -> dict[str, Any]:
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
