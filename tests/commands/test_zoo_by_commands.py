"""What a newcomer does first, with a trained network that comes with flowexp: sample it, correct it, take it out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from flowexp.records import zoo

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fashion_mnist")]

SCORED = ("callbacks=frechet", "callbacks.frechet.num_samples=60", "callbacks.frechet.max_reference=600",
          "callbacks.frechet.cache=null", "encoder.input_size=48", "sampler.num_steps=8", "device=cpu")  # fmt: skip


def test_its_samples_are_pictures_of_its_data(in_process: Callable[..., int], fashion_mnist):
    sampled = ("num_samples=40", "sampler.num_steps=10", "run_dir=drawn")
    assert in_process("sample", "run=zoo:fashion_fm", *sampled, "device=cpu") == 0
    drawn = np.load("drawn/samples.npz")["arr_0"][..., :1].reshape(40, -1) / 255.0
    real = fashion_mnist.test.images[:2000].numpy().reshape(2000, -1) / 255.0
    shuffled = np.random.default_rng(0).permuted(drawn, axis=1)  # the same pixels in another order

    def to_real(pictures: np.ndarray) -> float:
        """The mean distance to the nearest real picture."""
        squares = (pictures**2).sum(1)[:, None] - 2 * pictures @ real.T + (real**2).sum(1)
        return float(np.sqrt(squares.min(axis=1)).mean())

    assert to_real(drawn) < 0.6 * to_real(shuffled), (to_real(drawn), to_real(shuffled))


def test_ssc_moves_its_samples_towards_the_data(in_process: Callable[..., int], workdir: Path):
    distances = {}
    for name, ssc in (("plain", "none"), ("corrected", "linear")):
        assert in_process("evaluate", "run=zoo:fashion_fm", *SCORED, f"ssc={ssc}", f"run_dir={name}") == 0
        distances[name] = json.loads((workdir / name / "summary.json").read_text())["scalars"][
            "frechet/efficientnet_lite"
        ]
    assert distances["corrected"] < distances["plain"]


def test_its_weights_and_its_card_leave_as_they_came(in_process: Callable[..., int]):
    leaving = ("to=mine", "num_samples=0", "license=mit")
    assert in_process("export", "run=zoo:fashion_mafm", *leaving) == 0
    ours, theirs = load_file("mine/model.safetensors"), load_file(zoo.find("fashion_mafm") / zoo.WEIGHTS)
    assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in theirs)
    config = Path("mine/config.json").read_text(encoding="utf-8")
    assert config == (zoo.find("fashion_mafm") / "config.json").read_text(encoding="utf-8")
