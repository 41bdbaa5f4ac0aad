"""A Python that has its imports already, for tests which need processes of their own: torch alone takes seconds.

A server imports once and forks for each process. A program in the place of `sys.executable` asks it for a fork with the
same words, environment, folder and files, passes signals on, and ends as the fork ends: processes are real, and so are
those that they start. What is neither a module of flowexp nor a child of multiprocessing is run by the real Python.
What imports do themselves cannot be seen so: tests of that start `sys.executable`.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
MODULES = (
    "flowexp.cli.launch", "flowexp.cli.jobs", "flowexp.cli.assembly.building", "flowexp.cli.assembly.rebuilding",
    "flowexp.train", "flowexp.sample", "flowexp.evaluate", "flowexp.diagnose", "flowexp.encode", "flowexp.adopt",
    "flowexp.report", "flowexp.reproduce", "flowexp.data", "flowexp.measuring.callbacks",
    "flowexp.integrations.encoders", "matplotlib.pyplot", "sklearn.datasets", "torchvision.utils", "timm.layers",
    "torch.distributed.fsdp", "torch._dynamo", "wandb",
)  # fmt: skip
MOST = 1 << 20  # bytes of a request
_OPEN = "/proc/self/fd"


# --- the program that takes Python's place ----------------------------------------------------------------------------


def ask(place: str, words: list[str]) -> None:
    """Has the server at `place` run `words`, and ends as they end."""
    files = sorted(number for number in map(int, os.listdir(_OPEN)) if _is_inherited(number))
    request = {"words": words, "environment": dict(os.environ), "folder": os.getcwd(), "files": files}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(place)
        text = json.dumps(request).encode()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(text) + 4096)
        server.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))])
        for number in PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: server.send(bytes([number])))
        status = int(server.recv(64) or 9)  # nothing comes where the server is gone
    _end_like(status)


def _is_inherited(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:  # of the listing itself
        return False


def _end_like(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def is_ours(words: list[str]) -> bool:
    """Whether a command line without Python's options is of flowexp, of multiprocessing or of a job of submitit."""
    if words[:1] == ["-m"]:
        return words[1].startswith(("flowexp", "submitit"))
    return words[:1] == ["-c"] and "multiprocessing.spawn" in words[1]


# --- the server -------------------------------------------------------------------------------------------------------


class Server:
    """Forks for each request, and tells it the end of its fork; with the one that asks, its fork ends."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.selector = selectors.DefaultSelector()
        self.asking: dict[int, socket.socket] = {}  # by fork

    def serve(self) -> tuple[dict, list[int]] | None:
        """Returns in each fork, with what it is to do; in the server when its standard input is closed."""
        woken, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(sys.stdin, selectors.EVENT_READ, "stop")
        self.selector.register(woken, selectors.EVENT_READ, "ended")
        self.selector.register(self.listening, selectors.EVENT_READ, "new")
        while True:
            for key, _ in self.selector.select():
                if key.data == "stop":
                    return self._stop()
                if key.data == "ended":
                    woken.recv(4096)
                    self._tell_ends()
                elif key.data == "new":
                    if (work := self._fork()) is not None:
                        signal.set_wakeup_fd(-1)
                        woken.close()
                        wake.close()
                        return work
                else:
                    self._pass_on(key.data)

    def _stop(self) -> None:
        for fork in self.asking:
            os.kill(fork, signal.SIGKILL)

    def _fork(self) -> tuple[dict, list[int]] | None:
        asking, _ = self.listening.accept()
        text, files, _, _ = socket.recv_fds(asking, MOST, 64)
        if not text:
            asking.close()
            return None
        if (fork := os.fork()) == 0:
            for other in (asking, self.listening, *self.asking.values()):
                other.close()
            self.selector.close()
            return json.loads(text), files
        for number in files:
            os.close(number)
        self.asking[fork] = asking
        self.selector.register(asking, selectors.EVENT_READ, fork)
        return None

    def _pass_on(self, fork: int) -> None:
        """A signal to the one that asked, or its death."""
        try:
            numbers = self.asking[fork].recv(64)
        except OSError:
            numbers = b""
        for number in numbers:
            os.kill(fork, number)
        if not numbers:
            self.selector.unregister(self.asking[fork])
            os.kill(fork, signal.SIGKILL)

    def _tell_ends(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                fork, status = ended
                asking = self.asking.pop(fork)
                with contextlib.suppress(KeyError):
                    self.selector.unregister(asking)
                with contextlib.suppress(OSError):
                    asking.send(str(status).encode())
                asking.close()


def serve(place: str, executable: str) -> None:
    """Imports, listens at `place`, says so, and becomes what is asked for in each fork."""
    import gc
    import importlib

    base = sys.path[1:]
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(place)
        listening.listen(64)
        print("ready", flush=True)
        work = Server(listening).serve()  # each fork goes on from here
    end(lambda: become(*work, base, executable) if work is not None else None)


# --- a fork of it -----------------------------------------------------------------------------------------------------


def become(request: dict, files: list[int], base: list[str], executable: str) -> None:
    """Runs the words of a request as a Python that was started with them."""
    import multiprocessing
    import runpy

    _take(files, request["files"])
    for number in (*PASSED_ON, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    words = request["words"]
    own = [request["folder"]] if words[0] == "-m" else [""]
    given = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[:] = [*own, *given, *(folder for folder in base if folder not in given)]
    sys.executable, sys.argv, sys.orig_argv = executable, ["-c", *words[2:]], [executable, *words]
    multiprocessing.set_executable(executable)
    _forget_the_rank()
    if words[0] == "-m":
        sys.modules.pop(words[1], None)  # else runpy warns that it is imported
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        exec(words[1], {"__name__": "__main__"})


def end(run: Callable[[], None]) -> None:
    """Runs and ends as Python does, but for taking its modules apart, which takes longer than most that is run."""
    import atexit
    import threading

    code: object = 0
    try:
        run()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


def _take(received: list[int], wanted: list[int]) -> None:
    """Gives the files that were received the numbers that they had."""
    above = max([*received, *wanted]) + 1
    free = [os.dup(number) for number in received]
    free = [_moved_above(number, above) for number in free]
    for number in received:
        os.close(number)
    for number, place in zip(free, wanted, strict=True):
        os.dup2(number, place, inheritable=True)
        os.close(number)


def _moved_above(number: int, limit: int) -> int:
    import fcntl

    moved = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, limit)
    os.close(number)
    return moved


def _forget_the_rank() -> None:
    """Lightning reads a process's rank from the environment as it is imported."""
    from lightning_fabric.utilities import rank_zero as of_fabric
    from lightning_utilities.core.rank_zero import rank_zero_only

    rank_zero_only.rank = of_fabric._get_rank() or 0


if __name__ == "__main__":
    place, python, *words = sys.argv[1:]
    plain = words[1:] if words[:1] in (["-B"], ["-u"]) else words  # from multiprocessing's parent, and submitit
    if words[:1] == ["serve"]:
        serve(place, python)
    elif is_ours(plain):
        ask(place, plain)
    else:
        os.execv(python, [python, *words])
