"""A damaged dataset, cache, weight file or saved step is named in a sentence, or made anew; no number comes of it."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import struct
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from damage import DAMAGES, Asked, assert_answered, damage
from torch import Tensor

from flowexp import replay
from flowexp.backbones import create_backbone
from flowexp.measuring.metrics import write_adm_batch
from flowexp.training.checkpoints import list_checkpoints, load_checkpoint

sys.path.append(str(Path(__file__).parents[1] / "data"))
from trees import put_coco, put_imagenet

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SMALL = ("+backbone.depth=1", "+backbone.width=16", "+backbone.heads=2")
BRIEF = (
    "trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "callbacks=none",
    "progress_bar=false", "log_every_n_steps=1", "sampler.num_steps=1",
)  # fmt: skip
DIGITS = (*SMALL, *BRIEF, "data=digits", "data.train_size=16", "data.batch_size=8")


@pytest.fixture
def asked(in_this_process: Callable[..., int], capsys, caplog, workdir: Path) -> Asked:
    return Asked(in_this_process, capsys, caplog)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable[..., int]) -> Path:
    """The folder of a run of two steps on digits."""
    run = tmp_path_factory.mktemp("trained") / "run"
    assert in_this_process("train", *DIGITS, f"run_dir={run}") == 0
    return run


# --- datasets ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def fashion(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Fashion-MNIST of sixteen and eight images, which can be had from nowhere else."""
    shapes = {"train-images-idx3-ubyte": (16, 28, 28), "train-labels-idx1-ubyte": (16,),
              "t10k-images-idx3-ubyte": (8, 28, 28), "t10k-labels-idx1-ubyte": (8,)}  # fmt: skip
    contents = {name: _idx(shape) for name, shape in shapes.items()}
    packed = {name: gzip.compress(content, mtime=0) for name, content in contents.items()}
    md5s = [{name: hashlib.md5(each).hexdigest() for name, each in files.items()} for files in (contents, packed)]
    for name, value in {"num_train": 16, "num_test": 8, "contents_md5": md5s[0], "packed_md5": md5s[1],
                        "system_folder": workdir / "system", "url": (workdir / "site").as_uri()}.items():  # fmt: skip
        monkeypatch.setattr(f"flowexp.data.FashionMNIST.{name}", value)
    root = workdir / "fashion"
    root.mkdir()
    for name, content in packed.items():
        (root / f"{name}.gz").write_bytes(content)
    return root


def _idx(shape: tuple[int, ...]) -> bytes:
    elements = np.random.default_rng(0).integers(0, 10, shape, np.uint8)
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + elements.tobytes()


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_a_damaged_file_of_a_dataset_is_named(asked: Asked, fashion: Path, name: str, how: str):
    damage(fashion / name, how)
    answer = asked("train", *SMALL, *BRIEF, "data=fashion_mnist", f"data.root={fashion}", "data.batch_size=8")
    assert_answered(answer, fashion / name, must_name=True)
    assert answer.code == 2


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_captions_are_named(asked: Asked, workdir: Path, monkeypatch: pytest.MonkeyPatch, how: str):
    monkeypatch.setattr("flowexp.data.COCO.num_images", {"train": 5, "val": 3})
    captions = put_coco(workdir / "coco") / "annotations/captions_train2014.json"
    damage(captions, how)
    text = ("data=coco", f"data.root={workdir / 'coco'}", "text@data.text=words", "data.resolution=16")
    answer = asked("train", *SMALL, *BRIEF, *text, "backbone=mmdit_nano", "data.batch_size=4")
    assert_answered(answer, captions, must_name=True)
    assert answer.code == 2


# --- latents ----------------------------------------------------------------------------------------------------------


class Posterior(tuple):
    mean = property(lambda self: self[0])


class Pooling:
    """Takes the place of the autoencoder: means of 8 x 8 pixels, and their brightness."""

    fingerprint = "0123456789abcdef"

    def __init__(self, name: str, scale: float, **_: Any) -> None:
        self.name, self.scale = name, scale

    def encode(self, images: Tensor) -> Posterior:
        mean = F.avg_pool2d(images, 8)
        return Posterior((torch.cat((mean, mean.mean(1, keepdim=True)), dim=1), torch.full_like(mean[:, :1], 0.1)
                          .expand(-1, 4, -1, -1)))  # fmt: skip

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents[:, :3], scale_factor=8)


PICTURES = ("data.resolution=32", "data.num_workers=1")
ON_LATENTS = (
    "data=imagenet_latents_256", "data.root=cache", "data.pictures.resolution=32", "data.pictures.num_workers=1",
    "data.batch_size=4", "backbone=sit_s2", "data.pictures.root=imagenet",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable[..., int]) -> Path:
    folder = tmp_path_factory.mktemp("encoded")
    put_imagenet(folder / "imagenet")
    with pytest.MonkeyPatch.context() as patch:
        _with_three_classes(patch)
        patch.chdir(folder)
        made = (
            "data=imagenet",
            "data.root=imagenet",
            *PICTURES,
            "output=cache",
            "shard_size=8",
            "batch_size=4",
            "data.batch_size=4",
            "device=cpu",
        )
        assert in_this_process("encode", *made) == 0
    return folder


def _with_three_classes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("flowexp.data.ImageNet.num_classes", 3)
    patch.setattr("flowexp.integrations.encoders.vae.VAE", Pooling)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["manifest.json", "train/00001.npy", "train_labels.npy"])
def test_damaged_latents_are_named(asked: Asked, encoded: Path, workdir: Path, monkeypatch, name: str, how: str):
    _with_three_classes(monkeypatch)
    shutil.copytree(encoded, workdir, dirs_exist_ok=True)
    damage(Path("cache") / name, how)
    answer = asked("train", *SMALL, *BRIEF, *ON_LATENTS, "trainer.max_steps=3")  # all twelve are read
    if name == "manifest.json" and how == "missing":
        assert answer.code == 2 and "latents not found in cache" in answer.text
    else:
        assert_answered(answer, Path(name), must_name=True)
        assert answer.code == 2


@pytest.mark.parametrize("name", ["train/00001.npy", "train_labels.npy"])
def test_latents_of_fewer_pictures_than_the_manifest_says_are_named(
    asked: Asked, encoded: Path, workdir: Path, monkeypatch, name: str
):
    _with_three_classes(monkeypatch)
    shutil.copytree(encoded, workdir, dirs_exist_ok=True)
    file = Path("cache") / name
    np.save(file, np.load(file)[:-1])
    answer = asked("train", *SMALL, *BRIEF, *ON_LATENTS, "trainer.max_steps=3")  # all twelve are read
    assert_answered(answer, file, must_name=True)
    assert answer.code == 2


# --- caches that can be made anew -------------------------------------------------------------------------------------


MEASURED = (
    "callbacks=[frechet]", "callbacks.frechet.metrics=[frechet,precision_recall]", "callbacks.frechet.num_samples=4",
    "callbacks.frechet.max_reference=6", "callbacks.frechet.cache=cache", "+callbacks.frechet.options.k=1",
    "device=cpu",
)  # fmt: skip


def _numbers(folder: Path) -> dict[str, float]:
    return json.loads((folder / "summary.json").read_text())["scalars"]


@pytest.fixture(scope="module")
def cached(trained: Path, tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable[..., int]) -> Path:
    """A folder with what is known of a reference set, and the numbers of a measurement that made it."""
    folder = tmp_path_factory.mktemp("cached")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert in_this_process("evaluate", f"run={trained}", *MEASURED, "run_dir=first") == 0
    return folder


@pytest.mark.parametrize(
    "pattern, damages",
    [
        ("moments_*.safetensors", ["cut in half", "one bit flipped"]),
        ("features_*.npy", ["empty", "one bit flipped"]),
        ("features_*.json", ["one bit flipped", "a list"]),
    ],
)
def test_damaged_statistics_of_the_reference_are_computed_anew(
    asked: Asked, trained: Path, cached: Path, workdir: Path, pattern: str, damages: Sequence[str]
):
    for how in damages:
        shutil.copytree(cached / "cache", "cache")
        (file,) = Path("cache").glob(pattern)
        damage(file, how)
        answer = asked("evaluate", f"run={trained}", *MEASURED, f"run_dir={how}")
        assert_answered(answer, file, must_name=False)
        assert answer.code == 0 and _numbers(Path(how)) == _numbers(cached / "first"), how
        shutil.rmtree("cache")


ALIGNED = (*DIGITS, "terms=repa", "terms.repa.hidden=8", "terms.repa.cache=tokens")


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable[..., int]) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert in_this_process("train", *ALIGNED, "run_dir=first") == 0
    return folder / "tokens"


@pytest.mark.parametrize("how", [how for how in DAMAGES if how != "a list"])
@pytest.mark.parametrize("suffix", [".keys", ".tokens"])
def test_damaged_tokens_of_a_teacher_are_not_trained_on(
    asked: Asked, tokens: Path, workdir: Path, suffix: str, how: str
):
    shutil.copytree(tokens, "tokens")
    (file,) = Path("tokens").rglob(f"*{suffix}")
    damage(file, how)
    answer = asked("train", *ALIGNED, "run_dir=second")
    # Without its key, or where the damage is seen, the teacher is asked once more: the weights are the same.
    is_unharmed = answer.code == 0 and _same_weights(tokens.parent / "first", Path("second"))
    assert_answered(answer, file, must_name=not is_unharmed)


def _same_weights(*runs: Path) -> bool:
    one, other = (load_checkpoint(list_checkpoints(run / "checkpoints")[-1])["state_dict"] for run in runs)
    return all(torch.equal(value, other[name]) for name, value in one.items())


# --- weights of others, reference batches, saved steps ----------------------------------------------------------------


@pytest.mark.parametrize("how", [*DAMAGES, "a word"])
def test_a_damaged_file_to_adopt_is_named(asked: Asked, workdir: Path, how: str):
    network = create_backbone("sit_s2", resolution=8, channels=1, depth=1, width=16, heads=2)
    torch.save(network.state_dict(), file := workdir / "theirs.pt")
    file.write_text("hello") if how == "a word" else damage(file, how)
    answer = asked("adopt", f"file={file}", "backbone=sit_s2", *SMALL, "data=digits", "run_dir=adopted")
    assert_answered(answer, file, must_name=True)
    assert answer.code == 2 and not (workdir / "adopted/checkpoints").exists()


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_guide_is_named(asked: Asked, trained: Path, workdir: Path, how: str):
    shutil.copytree(trained, "guide")
    (file,) = list_checkpoints(Path("guide/checkpoints"))
    damage(file, how)
    guided = ("guide=guide", f"guide_checkpoint={file}", "sampler.autoguidance_scale=2", "num_samples=1", "device=cpu")
    answer = asked("sample", f"run={trained}", *guided)
    assert_answered(answer, file, must_name=True)
    assert answer.code == 2


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_reference_batch_is_named(asked: Asked, trained: Path, workdir: Path, how: str):
    images = torch.randint(0, 256, (12, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    write_adm_batch(file := workdir / "reference.npz", images)
    damage(file, how)
    measured = ("callbacks=[frechet]", f"callbacks.frechet.reference={file}", "callbacks.frechet.num_samples=8")
    answer = asked("evaluate", f"run={trained}", *measured, "callbacks.frechet.cache=null", "device=cpu")
    assert_answered(answer, file, must_name=True)
    assert answer.code == 2


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable[..., int]) -> Path:
    """The folder of a run that a batch of NaN has stopped."""
    run = tmp_path_factory.mktemp("incident") / "run"
    poison = ("+callbacks.poison._target_=witnesses.Poison", "+callbacks.poison.step=1")
    assert in_this_process("train", *DIGITS, *poison, f"run_dir={run}") == 2
    return run


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["nonfinite_step_00000001.pt", "config.yaml"])
def test_a_damaged_step_is_not_taken_again(asked: Asked, incident: Path, workdir: Path, monkeypatch, name, how: str):
    shutil.copytree(incident, "run")
    monkeypatch.setattr(sys, "argv", ["flowexp.replay", "run/nonfinite_step_00000001.pt"])
    assert asked.of(replay.main).code == 0
    damage(Path("run") / name, how)
    answer = asked.of(replay.main)
    assert_answered(answer, Path(name), must_name=True)
    assert answer.code == 2
