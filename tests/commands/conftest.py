"""Real runs of the commands, in processes of their own and shared by the tests here: each costs seconds of imports."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from flowexp.training.checkpoints import load_checkpoint

sys.path.append(str(Path(__file__).parent))  # tests compare with what witnesses.py wrote
from shells import HERE, Shell

NUM_STEPS = 12
TINY = (
    "data=digits", "data.train_size=64", "data.batch_size=16", "+backbone.depth=2", "+backbone.width=16",
    "+backbone.heads=2", f"trainer.max_steps={NUM_STEPS}", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "callbacks=none", "sampler.num_steps=4", "checkpoint.every_n_steps=2", "checkpoint.keep=99", "log_every_n_steps=2",
    "progress_bar=false", "class_conditional=false",
)  # fmt: skip
LCF = (*TINY, "objective=lcf", "objective.T_min=200")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file stay on one of pytest-xdist's workers, so that the runs which they share are made once."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def commands_draw_quickly(quick_pictures: None) -> None:
    """How pictures look is asked in tests/records and tests/reporting."""


@pytest.fixture(scope="session")
def shell(
    tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable[..., int], request: pytest.FixtureRequest
) -> Shell:
    return Shell(tmp_path_factory.mktemp("commands"), in_this_process, lambda: request.getfixturevalue("warm_python"))


@pytest.fixture(scope="session")
def tiny() -> Sequence[str]:
    """Settings of a training of a second."""
    return TINY


@pytest.fixture(scope="session")
def lcf() -> Sequence[str]:
    """The same for LCF, with about three anchors in a batch."""
    return LCF


@pytest.fixture(scope="session")
def alone(shell: Shell) -> Path:
    """The folder of an LCF training that nobody disturbs."""
    shell.run("train", *LCF, "run_dir=alone").succeeded()
    return shell.folder / "alone"


@pytest.fixture(scope="session")
def trained_state() -> Callable[[Path], dict[str, Any]]:
    """Reads what training carries from step to step out of a checkpoint."""

    def read(file: Path) -> dict[str, Any]:
        content = load_checkpoint(file)
        return {name: content[name] for name in ("state_dict", "ema", "optimizer_states", "lr_schedulers")}

    return read


@pytest.fixture(scope="session")
def assert_identical() -> Callable[[Any, Any], None]:
    """Fails unless two nests of containers and tensors are equal bit for bit."""

    def compare(one: Any, other: Any) -> None:
        torch.testing.assert_close(one, other, rtol=0, atol=0)

    return compare
