"""Text to image where nothing can be downloaded: captions of class names, through the public commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

CAPTIONS = (
    "data=fashion_mnist_captions", "data@data.pictures=digits", "data.train_size=64", "data.batch_size=16",
    "data.on_device=false", "backbone=mmdit_nano", "+backbone.depth=2", "+backbone.width=16", "+backbone.heads=2",
    "trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "sampler.num_steps=2",
    "callbacks.samples.num_samples=4", "callbacks.frechet.num_samples=4", "callbacks.frechet.max_reference=8",
    "callbacks.frechet.cache=null", "callbacks.probe.levels=[0.1]", "callbacks.probe.baselines=[pixels]",
    "callbacks.noise_levels.num_images=8", "progress_bar=false",
)  # fmt: skip


def test_the_commands_train_measure_and_sample_with_captions(in_process, workdir: Path, monkeypatch):
    assert in_process("train", *CAPTIONS, "run_dir=captions") == 0
    summary = json.loads((workdir / "captions" / "summary.json").read_text())
    assert {"frechet/efficientnet_lite", "probe/peak", "noise_levels/velocity_ratio"} <= set(summary["scalars"])
    card = summary["protocol"]["samples_efficientnet_lite"]
    assert (card["labels"], card["captions"]["order"]) == ("captions", "classes in turns, a sentence each round")
    assert card["captions"]["sentences"] == ["a grey picture of {}", "{} on a black background", "{}"]
    for scale in (1, 2):
        said = ("num_samples=12", "device=cpu", f"sampler.guidance_scale={scale}", f"run_dir=samples_{scale}")
        assert in_process("sample", "run=captions", *said) == 0
    one, two = (np.load(workdir / f"samples_{scale}" / "samples.npz")["arr_0"] for scale in (1, 2))
    assert one.shape == two.shape == (12, 8, 8, 3) and (one != two).any()
    said = ("num_samples=4", "device=cpu", "prompts=[a zero, an odd, prompt]", "run_dir=prompted")
    monkeypatch.setattr("flowexp.data.ClassCaptions.setup", lambda *_: pytest.fail("prompts need no dataset"))
    assert in_process("sample", "run=captions", *said) == 0
    card = json.loads((workdir / "prompted" / "summary.json").read_text())["protocol"]
    assert card["captions"] == {"order": "prompts in turns", "prompts": ["a zero", "an odd", "prompt"]}
    for wrong in ("prompts=one", "prompts=[]", "prompts=[1]"):
        assert in_process("sample", "run=captions", *said, wrong) == 2
