"""Two processes train what one does with the same global batch: every objective, term, network and coupling."""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))  # processes of their own import what they run
from training_processes import TRAININGS, Found, Training, train, train_all

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("training_processes"),  # one pair of processes for all
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(not torch.distributed.is_available(), reason="needs gloo"),
]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Training], Found]:
    """What two processes found, which train everything one after the other: their imports are what takes time."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    folder = tmp_path_factory.mktemp("together")
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=train_all, args=(rank, folder)) for rank in range(2)]
    try:
        for process in both:
            process.start()
        for process in both:
            process.join(300)
    finally:
        for process in both:
            process.kill()

    def found(training: Training) -> Found:
        file = folder / f"{TRAININGS.index(training)}.pt"
        assert file.exists(), f"the processes ended with {[process.exitcode for process in both]}"
        return torch.load(file, weights_only=True)

    return found


@pytest.mark.parametrize("training", TRAININGS, ids=str)
def test_two_processes_train_what_one_does(together: Callable[[Training], Found], training: Training, tmp_path: Path):
    expected, found = train(training, 1, tmp_path), together(training)
    assert list(found) == list(expected)
    largest = max(value.abs().max() for name, value in expected.items() if name.startswith("gradient"))
    for name, value in expected.items():
        assert value.dtype in (torch.float64, torch.int64), (
            f"{name} is {value.dtype}, whose rounding is the processor's"
        )
        error = (found[name] - value).abs().max() / value.abs().max().clamp(min=1e-3 * largest)
        assert error < 1e-9, f"{name} differs by {error:.1e}"  # float64 leaves 1e-14, and AdamW may enlarge that
