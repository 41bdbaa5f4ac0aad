"""A folder of anybody's pictures through the public commands, by any name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

SMALL = (
    "data.resolution=16", "data.batch_size=4", "trainer.max_steps=2", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "sampler.num_steps=2", "callbacks=none", "progress_bar=false", "+backbone.depth=2",
    "+backbone.width=16", "+backbone.heads=2",
)  # fmt: skip


@pytest.fixture
def root(workdir: Path) -> Path:
    """Two classes of six pictures each, with captions beside them."""
    folder = workdir / "ü, my = pictures [1]"
    for kind, colour in {"red": (250, 10, 10), "blue": (10, 20, 240)}.items():
        (folder / kind).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (30 + number, 20), colour).save(folder / kind / f"{number} = {kind}.png")
            (folder / kind / f"{number} = {kind}.txt").write_text(f"a {kind} picture")
    return folder


def test_a_folder_is_trained_on_by_its_classes_and_sampled(in_process, root: Path, workdir: Path, capsys):
    said = ("data=folder", f"data.root={root}", "class_conditional=true", *SMALL)
    assert in_process("train", *said, "run_dir=run") == 0, capsys.readouterr().err
    assert "decoding 12 pictures once into" in capsys.readouterr().out
    drawn = ("sample", "run=run", "num_samples=4", "device=cpu")
    assert in_process(*drawn, "run_dir=drawn") == 0
    assert np.load(workdir / "drawn/samples.npz")["arr_0"].shape == (4, 16, 16, 3)
    shutil.move(root, workdir / "moved")  # the classes are the names of its folders
    assert in_process(*drawn) == 2
    assert "pictures [1] is no folder: give one with pictures" in capsys.readouterr().err


def test_a_run_without_classes_is_sampled_where_the_folder_is_gone(in_process, root: Path, workdir: Path):
    assert in_process("train", "data=folder", f"data.root={root}", *SMALL, "run_dir=run") == 0
    shutil.move(root, workdir / "moved")
    assert in_process("sample", "run=run", "num_samples=4", "device=cpu") == 0


def test_captions_beside_the_pictures_are_trained_on_and_prompts_sampled(in_process, root: Path, workdir: Path):
    said = ("data=folder_captions", f"data.root={root}", "backbone=mmdit_nano", *SMALL, "run_dir=run")
    assert in_process("train", *said) == 0
    prompts = ("prompts=[a red picture,a blue picture]", "num_samples=4", "run_dir=drawn", "device=cpu")
    assert in_process("sample", "run=run", *prompts) == 0
    assert np.load(workdir / "drawn/samples.npz")["arr_0"].shape == (4, 16, 16, 3)


def test_a_folder_that_cannot_be_read_ends_in_a_sentence(in_process, root: Path, capsys):
    (root / "red/cut.png").write_bytes((root / "red/0 = red.png").read_bytes()[:60])
    assert in_process("train", "data=folder", f"data.root={root}", *SMALL) == 2
    said = capsys.readouterr().err
    assert "red/cut.png" in said and "data.broken=skip" in said and "Traceback" not in said
    assert in_process("train", "data=folder", *SMALL) == 2
    assert "data.root is needed: give data.root=..." in capsys.readouterr().err
