"""Every experiment composes, and trains one step on a few images with its network shrunken; the papers' names sweep."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments.catalogue import compose_experiment, first_comment, list_experiments
from flowexp.cli.assembly.building import build, build_module, build_monitors
from flowexp.cli.launch import _accept_both_spellings
from flowexp.data import ImageDataModule, ImageSet, LatentCache, Latents, Manifest
from flowexp.data.captioned import Captioned
from flowexp.data.sets.identity import identity_of
from flowexp.integrations.encoders import TEACHERS, FeatureNet
from flowexp.objectives.terms import repa

EXPERIMENTS = list_experiments()
NUM_IMAGES, BATCH = 8, 4

TRANSFORMER = {"depth": 2, "width": 32, "heads": 2}
UNET = {"width": 32, "multipliers": [1, 1], "num_res": 1, "head_width": 32, "attention_levels": [1]}
QUICK = {"digits_lcf", "fashion_mafm", "imagenet256_unet", "imagenet512_b_repa", "coco_mmdit_repa"}


def marked(name: str, *marks: pytest.MarkDecorator):
    """The experiment as a parameter: quick where it has parts of its own, slow where it only has other numbers."""
    slow = [] if name in QUICK else [pytest.mark.slow]
    return pytest.param(name, marks=[*slow, *marks])


# --- composition -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [marked(name) for name in EXPERIMENTS])
def test_every_experiment_composes_under_its_own_name(name: str) -> None:
    config = compose_experiment(name)
    assert config.name == name
    assert config.objective._target_ and config.data._target_


def test_the_first_comment_says_what_it_reproduces() -> None:
    words = ("Figure", "Table", "demo", "VD trains", "fashion_fm", "CPU", "beyond")
    assert [name for name in EXPERIMENTS if not any(word in first_comment(name) for word in words)] == []


def test_a_child_wins_over_its_parents() -> None:
    config = compose_experiment("imagenet512_xl_repa")
    assert config.backbone.name == "sit_xl2"  # the grandparent has sit_b2
    assert config.data.pictures.resolution == 512
    assert (config.terms.repa.tap, config.terms.repa.teacher) == (8, "dinov2_vitb14")
    assert (config.trainer.gradient_clip_val, config.data.flip, config.trainer.max_steps) == (1.0, False, 400_000)


@pytest.mark.slow
def test_the_command_line_wins_over_an_experiment() -> None:
    config = compose_experiment("imagenet256_b_mafm", "objective=fm", "sampler=heun", "ssc=linear", "data.batch_size=8")
    assert config.objective._target_ == "flowexp.objectives.FlowMatching"
    assert (config.sampler.solver, config.sampler.s0, config.data.batch_size) == ("heun", 1.1, 8)


# --- the papers' settings ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "cifar10_lcf",
            {"objective.T_min": 20, "objective.tau": 0.5, "objective.lam": 1.0},
        ),
        ("cifar10_fm_contrast", {"objective.T_min": 20, "objective.regress_below": True, "data.batch_size": 256}),
        ("cifar10_truncated_fm", {"objective.lam": 0.0, "lr_schedule.warmup_epochs": 13, "trainer.max_epochs": 1200}),
        ("tinyimagenet_lcf", {"objective.T_min": 100, "data.batch_size": 32, "optimizer.lr": 1e-4}),
        ("imagenet_pixel_lcf", {"objective.T_min": 200, "trainer.max_epochs": 40, "class_conditional": False}),
        ("imagenet256_xl_mafm", {"trainer.max_steps": 400_000, "sampler.solver": "euler_maruyama", "ssc": None}),
        ("imagenet256_l_fm", {"sampler.num_steps": 50, "optimizer.weight_decay": 0.0, "class_conditional": True}),
        ("imagenet256_b_repa", {"terms.repa.tap": 4, "terms.repa.lam": 0.5, "data.batch_size": 256}),
        ("imagenet256_xl_fm_7m", {"trainer.max_steps": 7_000_000, "optimizer.lr": 1e-4}),
        ("imagenet256_s_mafm_quad_in", {"objective.profile": "quad_in", "backbone.name": "sit_s2"}),
        ("coco_mmdit_repa", {"trainer.max_steps": 150_000, "sampler.guidance_scale": 2.0, "terms.repa.tap": 8}),
    ],
)
def test_the_papers_numbers_arrive(name: str, settings: dict[str, object]) -> None:
    config = compose_experiment(name)
    assert {key: OmegaConf.select(config, key) for key in settings} == settings


# --- one step --------------------------------------------------------------------------------------------------------


class _FakeTeacher(torch.nn.Module):
    """Tokens of a teacher whose weights are not on this machine."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def tokens(self, images: torch.Tensor, side: int) -> torch.Tensor:
        assert images.dtype == torch.uint8
        return torch.randn(len(images), side**2, self.dim)


def shrunken(name: str, root: Path) -> DictConfig:
    """The experiment with two narrow blocks, batches of four, no long MLPs, and its data in `root`."""
    config = deepcopy(compose_experiment(name))
    OmegaConf.set_readonly(config, False)
    with open_dict(config):
        config.backbone.update(UNET if "unet" in config.backbone.name else TRANSFORMER)
        config.data.update(root=str(root), batch_size=BATCH, train_size=None)
        if "self_conditioning" in config.backbone:
            config.backbone.self_conditioning = 1
        for term in config.terms.values():
            term.update({"tap": 1, **({"hidden": 16} if "hidden" in term else {})})
    return config


def few_images(datamodule: ImageDataModule) -> tuple[ImageSet, ImageSet]:
    shape = (NUM_IMAGES, datamodule.channels, datamodule.resolution, datamodule.resolution)
    pixels = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = ImageSet(pixels, torch.arange(NUM_IMAGES) % max(1, datamodule.num_classes))
    if isinstance(datamodule, Captioned) and datamodule.text is not None:
        train, test = (datamodule.captioned(split, images, [["a cat"]] * NUM_IMAGES) for split in ("train", "test"))
        return train, test
    return images, images


def write_latents(datamodule: Latents) -> None:
    """A cache of a few latents, with two captions each where the data has captions, in the format of `encode`."""
    shape, text = [4, datamodule.resolution, datamodule.resolution], datamodule.text_shape
    sizes = {"train": NUM_IMAGES, "test": BATCH}
    manifest = Manifest(
        dataset=datamodule.pictures.name,
        resolution=datamodule.pictures.resolution,
        num_images=sizes,
        images=dict.fromkeys(sizes, identity_of(few_images(datamodule.pictures)[0])),
        flips=2,
        vae=datamodule.vae.name,
        vae_weights="0" * 16,
        scale=datamodule.vae.scale,
        shape=shape,
        text=None if text is None else datamodule.pictures.text.name,
        text_shape=None if text is None else list(text),
    )
    arrays = {f"{split}_labels": np.arange(size) for split, size in sizes.items()}
    if text is not None:
        arrays |= {f"{split}_captions": np.full(size, 2) for split, size in sizes.items()}
        arrays["null_text"] = np.zeros(text, np.float16)
    datamodule.cache.begin(manifest, arrays)
    _write_shards(datamodule.cache, text)


def _write_shards(cache: LatentCache, text: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(0)
    for shard in cache.shards():
        rows = shard.stop - shard.start
        cache.write(shard, [rng.random((rows, 2, 2, *cache.manifest.shape)).astype(np.float16)])
        if text is not None:
            cache.write_text(shard, [rng.random((2 * rows, *text)).astype(np.float16)])


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch):
    """Builds the data of a config, with a few images in place of its files."""

    def build_and_fill(config: DictConfig) -> ImageDataModule:
        datamodule: ImageDataModule = build(config.data)
        if isinstance(datamodule, Latents):
            write_latents(datamodule)
            monkeypatch.setattr(type(datamodule.pictures), "load", few_images)
        else:
            monkeypatch.setattr(type(datamodule), "load", few_images)
            monkeypatch.setattr(type(datamodule), "prepare_data", lambda self: None)
        datamodule.setup("fit")
        return datamodule

    return build_and_fill


@pytest.fixture(autouse=True)
def teacher_without_download(monkeypatch: pytest.MonkeyPatch) -> None:
    load = repa.create_teacher

    def create(name: str, **options: object):
        return _FakeTeacher(TEACHERS[name].dim) if name == "dinov2_vitb14" else load(name, **options)

    monkeypatch.setattr(repa, "create_teacher", create)


class _Everything(FeatureNet):
    """Stands for Inception, whose weights are not on this machine: it offers all outputs."""

    name, dim, outputs = "everything", 4, ("features", "spatial", "logits")

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().flatten(1)[:, :4]

    def protocol(self) -> dict[str, object]:
        return {"encoder": self.name}


@pytest.mark.slow
def test_every_experiment_builds_its_monitors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowexp.integrations.encoders.create_encoder", lambda **_: _Everything())
    for name in EXPERIMENTS:
        assert all(monitor.at_end for monitor in build_monitors(compose_experiment(name))), name


@pytest.mark.parametrize("name", [marked(name) for name in EXPERIMENTS])
def test_every_experiment_trains_a_step(name: str, read, tmp_path: Path) -> None:
    config = shrunken(name, tmp_path)
    datamodule = read(config)
    module = build_module(config, datamodule)
    before = {key: value.clone() for key, value in module.backbone.named_parameters()}
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=datamodule)
    assert trainer.global_step == 1
    assert torch.isfinite(module.latest["loss"]) and set(config.terms) <= set(module.latest)
    assert any(not torch.equal(value, before[key]) for key, value in module.backbone.named_parameters())


# --- sweeps ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "swept", "key", "values"),
    [
        ("cifar10_lcf", "objective.T_min=10,0.5", "objective.T_min", [10, 0.5]),
        ("cifar10_lcf", "objective.tau=0.1,0.5", "objective.tau", [0.1, 0.5]),
        ("cifar10_lcf", "objective.lambda=0.5,1", "objective.lam", [0.5, 1]),
        ("imagenet256_xl_fm_7m", "sampler.s0=1.05,1.1", "sampler.s0", [1.05, 1.1]),
        ("imagenet256_xl_fm_7m", "sampler.s1=1.05,1.1", "sampler.s1", [1.05, 1.1]),
        ("imagenet256_xl_fm_7m", "sampler.profile=cosine,quad_in", "sampler.profile", ["cosine", "quad_in"]),
        ("imagenet256_xl_fm_7m", "sampler.num_steps=10,250", "sampler.num_steps", [10, 250]),
        ("imagenet256_xl_fm_7m", "sampler=euler,heun", "sampler.solver", ["euler", "heun"]),
        ("imagenet256_xl_fm_7m", "sampler.solver=euler,rk4", "sampler.solver", ["euler", "rk4"]),
        ("imagenet256_xl_fm_7m", "ssc=linear,quad_out", "sampler.s0", [1.1, 1.15]),
        ("coco_mmdit_repa", "sampler.guidance_scale=1,4", "sampler.guidance_scale", [1, 4]),
        ("imagenet256_b_fm", "interpolant=gvp,sbdm_vp", "hydra.runtime.choices.interpolant", ["gvp", "sbdm_vp"]),
        ("cifar10_logit_normal", "time_sampler.m=0,0.5", "time_sampler.m", [0, 0.5]),
        ("cifar10_fm_sizes", "data.train_size=1000,50000", "data.train_size", [1000, 50_000]),
        ("imagenet256_s_mafm", "objective.profile=linear,cosine", "objective.profile", ["linear", "cosine"]),
    ],
)  # fmt: skip
def test_the_names_of_the_papers_sweep(name: str, swept: str, key: str, values: list[object]) -> None:
    parsed = OverridesParser.create().parse_overrides([_accept_both_spellings(swept)])
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    configs = [compose_experiment(name, *job) for job in jobs]
    assert [OmegaConf.select(config, key) for config in configs] == values
