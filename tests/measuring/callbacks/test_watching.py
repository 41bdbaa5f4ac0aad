"""Every monitor says beforehand which numbers it gives, and a number of another name is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from flowexp.measuring.callbacks.diagnostics_along_t import CrossTerms, IntegrationLag, VelocityNorms
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.watching import check_watched, logged_names
from flowexp.objectives import FlowMatching
from flowexp.records.recording import Measurement

sys.path.append(str(Path(__file__).parent))
from processes import monitors

NORMS = VelocityNorms(levels=[0.5, 0.9], num_images=4, every_n_steps=2)
NUMBER = "velocity_norms/deficit_at_noise"


class Own(Monitor):
    """A monitor from elsewhere, which does not say what it gives."""

    def measure(self, module, datamodule, seed) -> Measurement:
        return Measurement("own", {"own/number": 1.0})


class Other(pl.Callback):
    """A callback from elsewhere, which may log anything."""


class Huber(FlowMatching):
    """An objective from elsewhere, whose loss has parts of its own."""

    def losses(self, batch):
        return super().losses(batch)


def check(module, watched: str, *callbacks: pl.Callback, kind=EarlyStopping) -> None:
    watcher = kind(monitor=watched)
    check_watched([watcher, *callbacks], module, {id(watcher): "mine"})


@pytest.mark.slow
def test_monitors_give_the_numbers_that_they_announce(tmp_path, module, datamodule):
    short = {"levels": [0.5, 0.9], "num_images": 8}
    curves = [NORMS, CrossTerms(num_images=8), IntegrationLag(num_levels=2, **short)]
    for monitor in [*monitors(tmp_path / "cache"), *curves]:
        measured = monitor.run(module, datamodule, None, 1)
        assert monitor.scalar_names() == tuple(measured.scalars), type(monitor).__name__


@pytest.mark.parametrize("watched", ["train/loss", "train/velocity", "train/grad_norm", "train/lr", NUMBER])
def test_what_is_logged_or_measured_on_the_way_may_be_watched(module, watched: str):
    check(module, watched, NORMS)
    check(module, watched, NORMS, kind=ModelCheckpoint)


def test_lightnings_own_numbers_may_be_watched(module):
    check(module, "step", kind=ModelCheckpoint)


def test_a_number_that_is_not_measured_yet_does_not_end_a_training(module):
    watcher = EarlyStopping(monitor=NUMBER)
    check_watched([watcher, NORMS], module, {})
    assert not watcher.strict


@pytest.mark.parametrize(
    ("watched", "callbacks", "words"),
    [
        ("train/los", [], r"callbacks\.mine\.monitor=train/los is nothing .* did you mean train/loss\?"),
        ("val/loss", [NORMS], r"did you mean train/loss\?"),
        ("velocity_norm/deficit_at_nois", [NORMS], rf"did you mean {NUMBER}\?"),
        ("zzz", [], r"is nothing that this run logs or measures\. There are train/loss, train/velocity"),
        (NUMBER, [VelocityNorms()], "measured at the end of training alone: set every_n_steps of VelocityNorms"),
        ("own/number", [Own()], "is nothing that this run logs"),
        ("train/velocty", [Own(every_n_steps=1)], r"did you mean train/velocity\?"),
    ],
)
def test_a_number_that_nothing_gives_is_refused(module, watched: str, callbacks: list, words: str):
    with pytest.raises(ValueError, match=words):
        check(module, watched, *callbacks)


def test_what_is_not_known_beforehand_is_let_through(module):
    check(module, "own/number", Own(every_n_steps=1))
    check(module, "mine/number", Other())
    huber = Huber(module.backbone)
    assert logged_names(huber) is None and logged_names(module) is not None
    check(huber, "train/huber")
