"""Signals are noted and answered where work can be left; the terminal may be gone by then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import flowexp
from flowexp.training import signals

pytestmark = pytest.mark.usefixtures("begun_by_a_terminal")


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", signals.SIGNALS, ids=lambda number: number.name)
def test_a_signal_is_noted_and_answered_once(number: signal.Signals, capfd: pytest.CaptureFixture[str]):
    before = signal.getsignal(number)
    with signals.listening("stops after this step"):
        send(number)
        send(signal.SIGTERM)
        assert signals.asked() == number
        with pytest.raises(signals.Stopped) as stop:
            signals.leave_if_stopped()
    assert stop.value.code == 128 + number
    assert capfd.readouterr().err.count(f"{number.name}: stops after this step") == 1
    assert signals.asked() is None and signal.getsignal(number) is before


def test_a_second_ctrl_c_does_not_wait():
    with signals.listening("stops"), pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
        send(signal.SIGINT)


def test_work_that_can_be_left_anywhere_is_left_at_once():
    with signals.listening("stops"), pytest.raises(signals.Stopped), signals.at_once("leaves"):
        with signals.not_now():
            send(signal.SIGTERM)
            done = True
        send(signal.SIGUSR1)
        done = False
    assert done


def test_what_another_process_was_asked_counts():
    with pytest.raises(signals.Stopped) as stop:
        signals.leave_if_stopped(lambda own: True)
    assert stop.value.code == 143


def test_a_run_that_nohup_protects_goes_on():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.listening("stops"):
            send(signal.SIGHUP)
            assert signals.asked() is None
    finally:
        signal.signal(signal.SIGHUP, before)


CLOSED_TERMINAL = """
import os, pty, signal, sys
from flowexp.training import signals

leader, follower = pty.openpty()
os.dup2(follower, 1), os.dup2(follower, 2), os.close(follower)
with signals.listening("stops"):
    os.close(leader)  # now every print fails
    os.kill(os.getpid(), signal.SIGHUP)
    print("a step later", flush=True), print("a line of a log", file=sys.stderr, flush=True)
    signals.leave_if_stopped()
"""


def in_a_process(code: str) -> int:
    source = str(Path(flowexp.__file__).parent.parent)
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": source}, timeout=60).returncode


def test_a_closed_terminal_costs_nothing_but_what_is_printed():
    assert in_a_process(CLOSED_TERMINAL) == 129


def test_ctrl_c_while_a_command_is_imported_ends_it_quietly(tmp_path: Path):
    """As in `python -m flowexp.report` before its imports have ended: no trace, exit code 130."""
    (tmp_path / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # `make test &` ignores Ctrl-C
    code = f"{heard}; import sys; sys.argv = ['-m']; import flowexp; import slow"
    source = os.pathsep.join([str(Path(flowexp.__file__).parent.parent), str(tmp_path)])
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (130, "")
