"""Lines of a recipe that train at the same time: a bar for each, and all that they print in a log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from flowexp.cli.recipes.runs import run_of
from flowexp.cli.threads import THREADS, threads_of_each
from flowexp.records.run_folder import RunFolder

_STEP = re.compile(r"step ([\d,]+) of ([\d,]+), (loss [^,\s]+)")
_SHOWN = ("warning: ", "error: ", "measuring ")
_LAST_LINES = 15  # of the log of a line that failed


def train_together(lines: Mapping[str, Sequence[str]], most: int, logs: Path) -> dict[str, RunFolder]:
    """The finished runs of `flowexp.train` with these overrides, by label; as many as `most` train at a time.

    Small networks leave cores idle: each process gets its share of them. logs: folder of what each prints.

    Raises:
        SystemExit: one has failed; the end of its log is shown when the others have ended.
    """
    logs.mkdir(parents=True, exist_ok=True)
    width = max(map(len, lines))
    bars = [Bar(label.ljust(width), place) for place, label in enumerate(lines)]

    def train(label: str, bar: Bar) -> RunFolder:
        file = logs / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', label)}.txt"
        return run_of(lines[label], lambda words: _watched(words, most, file, bar), bar.tell)

    try:
        with ThreadPoolExecutor(most) as pool:
            return dict(zip(lines, pool.map(train, lines, bars), strict=True))
    finally:
        for bar in bars:
            bar.close()


class Bar:
    """The steps of one line: a bar on a terminal, else lines with its label."""

    def __init__(self, label: str, place: int) -> None:
        self.label = label
        self._bar = tqdm(desc=label, total=0, position=place, unit="step", disable=None)  # None: not in a log

    def tell(self, text: str) -> None:
        """What is going on beside the steps."""
        if self._bar.disable:
            print(f"{self.label}  {text}", file=sys.stderr, flush=True)
        else:
            self._bar.set_postfix_str(text)

    def read(self, line: str) -> None:
        """Shows a line of a training, where it is of a step, of a measurement or a warning."""
        if (step := _STEP.match(line)) is None:
            if line.startswith(_SHOWN):
                self.tell(line)
            return
        if self._bar.disable:
            self.tell(line)
            return
        done, total = (int(number.replace(",", "")) for number in step.groups()[:2])
        self._bar.total = total
        self._bar.set_postfix_str(step[3], refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


def command_of(words: Sequence[str]) -> list[str]:
    """The training with these overrides, whose steps are lines."""
    return [sys.executable, "-m", "flowexp.train", *words, "progress_bar=false"]


def _watched(words: Sequence[str], most: int, log: Path, bar: Bar) -> None:
    """Runs `python -m flowexp.train` with its lines read by `bar` and written to `log`. Raises SystemExit."""
    environment = {**os.environ, THREADS: str(threads_of_each(most))}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with (
        subprocess.Popen(command_of(words), env=environment, **pipes) as process,
        log.open("w", encoding="utf-8") as file,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            bar.read(line.rstrip())
    if process.returncode != 0:
        end = log.read_text(encoding="utf-8").splitlines()[-_LAST_LINES:]
        tqdm.write("\n".join([f"{bar.label.strip()} failed, see {log}:", *end]), file=sys.stderr)
        raise SystemExit(process.returncode)
