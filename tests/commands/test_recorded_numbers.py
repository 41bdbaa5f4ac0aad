"""Short trainings give the numbers that were recorded: a change that should move none moves none.

Where processor, torch and number of threads are those of the record, they are equal bit for bit. Elsewhere kernels add
in another order, and they agree as far as that reaches. To record anew, where a change moves numbers by intent:

    FLOWEXP_RECORD=1 python -m pytest -n 0 tests/commands/test_recorded_numbers.py
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from witnesses import Losses

from flowexp.cli.assembly.rebuilding import load_run

pytestmark = pytest.mark.slow

RECORD = Path(__file__).with_suffix(".json")
SHORT = (
    "seed=0", "data.batch_size=32", "data.train_size=256", "trainer.max_steps=30", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "sampler.num_steps=5", "checkpoint.every_n_steps=30", "progress_bar=false",
    "callbacks=[probe,frechet]", "callbacks.probe.levels=[0.1]", "callbacks.probe.epochs=20",
    "callbacks.probe.readings=[paper]", "callbacks.probe.baselines=[]",
    "callbacks.probe.max_train_images=256", "callbacks.probe.lr=0.01", "callbacks.frechet.num_samples=24",
    "callbacks.frechet.max_reference=24", "callbacks.frechet.cache=null",
    "+callbacks.losses._target_=witnesses.Losses",
)  # fmt: skip
SMALL = ("+backbone.depth=2", "+backbone.width=32", "+backbone.heads=2")
TRAININGS: dict[str, tuple[str, ...]] = {
    "digits_fm": ("experiment=digits_fm", "class_conditional=false", *SMALL[:1], "backbone.width=32"),
    "digits_lcf": ("experiment=digits_lcf", "class_conditional=false", *SMALL[:1], "backbone.width=32"),
    "digits_mafm": ("experiment=digits_mafm", "class_conditional=false", *SMALL[:1], "backbone.width=32"),
    "unet_nano": (
        "backbone=unet_nano", "+backbone.width=32", "+backbone.multipliers=[1,2]", "+backbone.num_res=1",
        "+backbone.attention_levels=[1]", "+backbone.head_width=32", "class_conditional=true", "data=digits",
        "optimizer.lr=1e-3",
    ),
    "mmdit_nano": (
        "data=fashion_mnist_captions", "data@data.pictures=digits", "backbone=mmdit_nano", *SMALL, "optimizer.lr=1e-3",
    ),
}  # fmt: skip
# What the order of sums leaves of 30 steps of AdamW. AVX2, kernels without vector units and two threads move losses by
# 1e-7 of themselves, pixels by 9e-7 of the largest and the distance by 3e-7: a hundred times as much is no rounding.
# The probe may give a picture to another class: one of 360 is 0.003.
LIMITS = {"losses": 1e-5, "pixels": 1e-4, "probe": 0.01, "frechet": 1e-4}


def machine() -> dict[str, Any]:
    """What decides the rounding: equal here and in the record, the numbers are equal bit for bit."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
    settings = {name: value for name, value in os.environ.items() if name.startswith(_DECIDING)}
    return {
        "processor": next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), ""),
        "flags": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "settings": {name: value for name, value in settings.items() if name not in _NOT_DECIDING},
    }


_DECIDING = ("ONEDNN_", "DNNL_", "MKL_", "ATEN_", "OPENBLAS_", "FLOWEXP_ROUNDING")
_NOT_DECIDING = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def hash_of(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode() + value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@pytest.fixture
def trained(in_process: Callable[..., int]) -> Callable[[str], dict[str, Any]]:
    """The numbers of a training, by what they are."""

    def train(name: str) -> dict[str, Any]:
        assert in_process("train", *TRAININGS[name], *SHORT, "run_dir=run") == 0
        module, _, step = load_run(Path("run"))
        assert step == len(Losses.noted) == 30
        with module.averaged():
            images = module.sample(range(2), seed=0).images
        scalars = json.loads(Path("run/summary.json").read_text())["scalars"]
        return {
            "weights": hash_of(dict(module.state_dict())),
            "losses": [Losses.noted[step] for step in (0, 1, 9, 29)],
            "pixels": images[:, 0, ::3, ::3].flatten().tolist(),
            "samples": hash_of({"images": images}),
            "probe": scalars["probe_paper/peak"],
            "frechet": scalars["frechet/efficientnet_lite"],
        }

    return train


@pytest.fixture(scope="module")
def record() -> Iterator[dict[str, Any]]:
    """What was recorded; with FLOWEXP_RECORD it is written anew."""
    content = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if "FLOWEXP_RECORD" in os.environ:
        content = {"machine": machine(), "trainings": {}}
    yield content
    if "FLOWEXP_RECORD" in os.environ:
        RECORD.write_text(json.dumps(content, indent=1) + "\n")


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_gives_the_recorded_numbers(name: str, trained: Callable[[str], dict[str, Any]], record):
    found = trained(name)
    if "FLOWEXP_RECORD" in os.environ:
        record["trainings"][name] = found
    expected = record["trainings"][name]
    if record["machine"] == machine():
        assert found == expected
    for what, limit in LIMITS.items():
        one, other = np.array(found[what]), np.array(expected[what])
        difference = float(np.abs(one - other).max() / (1 if what == "probe" else np.abs(other).max()))
        assert difference < limit, f"{what} of {name} differ by {difference:.1e}"
