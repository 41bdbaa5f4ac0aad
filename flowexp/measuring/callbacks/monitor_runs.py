"""Several monitors in a row: what is recorded already is taken, a signal ends it, and a failure costs only itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Protocol

from flowexp.data import ImageDataModule
from flowexp.objectives import FlowMatching
from flowexp.records.recording import Measurement, Recorder
from flowexp.training import signals
from flowexp.training.parallel.work import collect, rank_and_world_size

_ANSWER = "stops measuring; what is measured already stays"

Failures = Sequence[tuple[str, Exception]]  # what could not be measured, and why


class Measuring(Protocol):
    """What `measure_now` needs of a monitor."""

    settings: str | None
    last_step: int | None
    latest: Measurement | None
    failures: list[tuple[str, Exception]]

    def run(
        self, module: FlowMatching, datamodule: ImageDataModule, recorder: Recorder | None, step: int
    ) -> Measurement: ...

    def take(self, measurement: Measurement, step: int) -> None: ...

    def fail(self, step: int, error: Exception) -> None: ...

    def identity(self, module: FlowMatching) -> dict[str, str]: ...


class MeasuringError(RuntimeError):
    """Monitors that failed; all others have measured, and their numbers are recorded."""

    def __init__(self, failures: Failures) -> None:
        self.failures = tuple(failures)
        super().__init__("; ".join(f"{what} failed: {type(error).__name__}: {error}" for what, error in failures))


def tell_failures(monitors: Iterable[Measuring]) -> None:
    """Raises MeasuringError where a monitor has failed; to be called when the numbers of the others are safe."""
    failures = [failure for monitor in monitors for failure in monitor.failures]
    if failures:
        errors = [error for _, error in failures]
        cause = errors[0] if len(errors) == 1 else ExceptionGroup("monitors failed", errors)
        raise MeasuringError(failures) from cause


def measure_now(
    monitors: Iterable[Measuring],
    module: FlowMatching,
    datamodule: ImageDataModule,
    recorder: Recorder | None,
    step: int,
) -> dict[str, Measurement]:
    """Runs those monitors that have not measured `step` yet; returns what all of them measured there, by name.

    A measurement of these weights by the same settings that is recorded is not repeated. One that fails
    does not keep the others from measuring, and `tell_failures` raises its error. Of several processes, one that fails
    ends at once: the others may wait for it.

    Raises:
        Stopped: a signal has come; what is recorded stays.
    """
    monitors = list(monitors)
    fresh = [monitor for monitor in monitors if monitor.last_step != step]
    new = [monitor for monitor in fresh if not _take_recorded(monitor, module, recorder, step)]
    for place, monitor in enumerate(new, 1):
        leave_if_stopped()
        if recorder is not None:
            print(f"measuring {screen_name(monitor)} ({place} of {len(new)})", file=sys.stderr)
        _try(monitor, module, datamodule, recorder, step)
    return {m.latest.name: m.latest for m in monitors if m.last_step == step and m.latest is not None}


def leave_if_stopped() -> None:
    """Raises `Stopped` where a signal has reached this process or one beside it; all must call it."""
    signals.leave_if_stopped(_on_any)


def _try(
    monitor: Measuring, module: FlowMatching, datamodule: ImageDataModule, recorder: Recorder | None, step: int
) -> None:
    """Runs a monitor; alone, a process goes on after its failure, which the monitor then holds."""
    is_alone = rank_and_world_size()[1] == 1
    try:
        with signals.at_once(_ANSWER, raises=is_alone):
            monitor.run(module, datamodule, recorder, step)
    except Exception as error:
        if not is_alone:
            raise
        monitor.fail(step, error)
        print(f"{screen_name(monitor)} failed at step {step}: {type(error).__name__}: {error}", file=sys.stderr)


def _take_recorded(monitor: Measuring, module: FlowMatching, recorder: Recorder | None, step: int) -> bool:
    """Whether a monitor's measurement is recorded, by the first process; then the monitor has it on all."""
    if monitor.settings is None:
        return False
    identity = monitor.identity(module)
    recorded = None if recorder is None else recorder.recorded(step, identity)
    found: Measurement | None = collect({"recorded": recorded} if rank_and_world_size()[0] == 0 else {})["recorded"]
    if found is None:
        return False
    monitor.take(found, step)
    if recorder is not None:
        print(f"{screen_name(monitor)} is measured already at step {step}", file=sys.stderr)
    return True


def _on_any(flag: bool) -> bool:
    """Whether `flag` is true on any process."""
    return any(collect({rank_and_world_size()[0]: flag}).values())


def screen_name(monitor: Measuring) -> str:
    """What a monitor is called on the screen: `VelocityNorms` is "velocity norms", `ProbeMonitor` is "probe"."""
    name = type(monitor).__name__.removesuffix("Monitor")
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()
