"""The whole way of docs/first_steps.md, from a folder of pictures to a network that others load and fine-tune."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from flowexp.records.run_folder import RunFolder

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/first_steps.md"
SMALL = (
    "data.batch_size=4", "trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "callbacks=none", "progress_bar=false", "+backbone.depth=2", "+backbone.width=16", "+backbone.heads=2",
    "sampler.num_steps=2",
)  # fmt: skip


def lines() -> list[str]:
    """The commands of the section."""
    (block,) = re.findall(r"## Your own pictures, the whole way\n.*?```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return re.split(r"\n(?=python )", block.replace("\\\n", " ").strip())


def test_the_whole_way_from_a_folder_of_pictures(
    in_process: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, colour in {"PICTURES": (250, 10, 10), "OTHERS": (10, 20, 240)}.items():
        (workdir / name).mkdir()
        for number in range(6):
            Image.new("RGB", (30 + number, 20), colour).save(workdir / name / f"{number}.png")
    for line in lines():
        words = shlex.split(line.replace("=64", "=16"))
        if words[1] == "-c":
            exec(words[2], {})
            assert "torch.Size([4, 3, 16, 16])" in capsys.readouterr().out
            continue
        command = words[2].removeprefix("flowexp.")
        small = {"train": SMALL, "sample": ("device=cpu", "sampler.num_steps=2"), "export": ("num_samples=4",)}
        assert in_process(command, *words[3:], *small[command]) == 0, (line, capsys.readouterr().err)
    origin = RunFolder(workdir / "outputs/tuned").origin()
    assert "mine_export" in str(origin.get("init") or origin)
    assert len(list((workdir / "outputs").rglob("samples.npz"))) == 3
