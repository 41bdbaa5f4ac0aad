"""Signals to stop: noted at arrival, obeyed where no work is lost. Imports no torch."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

STDOUT, STDERR = 1, 2
# Ctrl-C, what schedulers and `kill` send, a terminal that is closed, and SLURM's notice before it preempts a job.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)  # Windows has the first two


class Stopped(SystemExit):
    """Ends the work at a signal; the exit status is 128 + signal."""


@dataclass
class _State:
    """The state of the handler; one for the process, as signals are."""

    asked: signal.Signals | None = None
    words: str = ""  # what a signal is answered with
    answers: bool = True
    at_once: bool = False  # whether a signal raises where it finds the process
    is_held: bool = False  # whether `listening` is active


_state = _State()


def leave_quietly() -> None:
    """Has Ctrl-C end the process with exit code 130 and no trace: imports have nothing to lose."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def work_begins() -> None:
    """Has Ctrl-C raise KeyboardInterrupt from now on, where it ended the process quietly."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)


def asked() -> signal.Signals | None:
    """The first signal to stop this process; None before one."""
    return _state.asked


def listen(words: str, answers: bool = True) -> None:
    """Notes signals from now on, and answers the first one with `words`.

    answers: of several processes, which all get a terminal's Ctrl-C, one does.
    """
    _state.words, _state.answers = words, answers
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if number in (signal.SIGTERM, signal.SIGINT) or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, _on_signal)


def forget() -> None:
    """Forgets the signals of work that has ended, unless `listening` still holds them for the work around it."""
    if not _state.is_held:
        _state.asked = None


@contextmanager
def listening(words: str, answers: bool = True) -> Iterator[None]:
    """Within it signals are noted; afterwards the handlers from before have them again."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    forget()
    listen(words, answers)
    _state.is_held = True
    try:
        yield
    finally:
        _state.is_held = False
        forget()
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def at_once(words: str, raises: bool = True) -> Iterator[None]:
    """Within it a signal is answered with `words` and ends the work where it stands, by `Stopped`.

    raises: False where other processes would wait for this one; `leave_if_stopped` then ends the work of all.
    """
    before = _state.words, _state.at_once
    _state.words, _state.at_once = words, raises
    try:
        if raises:
            leave_if_stopped()
        yield
    finally:
        _state.words, _state.at_once = before


@contextmanager
def not_now() -> Iterator[None]:
    """Within `at_once`, what must not be left half-done."""
    before, _state.at_once = _state.at_once, False
    try:
        yield
    finally:
        _state.at_once = before


def leave_if_stopped(on_any: Callable[[bool], bool] = bool) -> None:
    """Raises `Stopped` where a signal has come; `on_any` agrees over several processes."""
    if on_any(_state.asked is not None):
        raise Stopped(128 + (_state.asked or signal.SIGTERM))


def _on_signal(signum: int, frame: FrameType | None) -> None:
    number, is_first = signal.Signals(signum), _state.asked is None
    if number == signal.SIGINT and not is_first:
        raise KeyboardInterrupt
    _state.asked = _state.asked or number
    if is_first and _state.answers:
        _answer(number)
    if _state.at_once:
        raise Stopped(128 + _state.asked)


def _answer(number: signal.Signals) -> None:
    again = "; Ctrl-C again stops at once" if number == signal.SIGINT and not _state.at_once else ""
    try:  # not print: the signal may have come while something was printed
        os.write(STDERR, f"\n{number.name}: {_state.words}{again}\n".encode())
    except OSError:  # the terminal is closed
        _print_nowhere()


def _print_nowhere() -> None:
    """Lets what is printed to a closed terminal vanish: an error in printing would cost the step to be saved."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if os.path.sameopenfile(STDOUT, STDERR):
        os.dup2(nowhere, STDOUT)
    os.dup2(nowhere, STDERR)
    os.close(nowhere)
