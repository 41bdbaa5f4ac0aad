"""`python -m benchmarks [cases=...] [budget=...]`: runs the cases, all by default, and reports their ratios.

`cases=lightning,solver` runs these two. `budget=cpu` (the default without an accelerator) and `budget=gpu` measure real
sizes, `budget=smoke` only shows within seconds that everything runs. `rounds=N` gives every comparison N rounds.
`peak=TFLOPS` is the bf16 peak of a card that benchmarks/peaks.py does not know.

A run of all cases writes docs/results/benchmarks.md (budget cpu) or benchmarks_gpu.md, any other only prints;
`output=FILE` writes FILE in either case. build/benchmarks_so_far.md has what was measured before a run was stopped or a
case failed. `budget=gpu device=cpu` makes a miniature of the GPU's report where there is none, of budget smoke's sizes,
in build/benchmarks_gpu.md.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks.cases import CASES
from benchmarks.report import describe, write_report
from benchmarks.sizes import BUDGETS, CPU, Size, smoke_size
from benchmarks.table import Result
from flowexp.cli.assembly.hardware import resolve_device
from flowexp.flow.choices import nearest
from flowexp.records.files import atomic

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
MINIATURE = "gpu, in miniature"
REPORTS = {
    "cpu": RESULTS / "benchmarks.md",
    "gpu": RESULTS / "benchmarks_gpu.md",
    MINIATURE: ROOT / "build" / "benchmarks_gpu.md",
}
SO_FAR = ROOT / "build" / "benchmarks_so_far.md"  # after every case, for what is stopped or fails on the way
OPTIONS = ("cases", "budget", "rounds", "peak", "device", "output")


@dataclass(frozen=True)
class Command:
    """What the command line asks for, checked."""

    cases: Sequence[str]
    budget: str
    size: Size
    output: Path | None


def main(arguments: Sequence[str]) -> int:
    """Runs the command; returns 1 if a case could not be run. A broken promise is a result, not a failure."""
    if {"-h", "--help", "help"} & set(arguments):
        print("\n".join([__doc__ or "", "cases:", *(f"  {name:<11} {case.summary}" for name, case in CASES.items())]))
        return 0
    try:
        command = read_command(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    header = describe(command.budget, command.size)
    print("\n".join(header), flush=True)
    done: dict[str, tuple[Result, float]] = {}
    report = ""
    for name in command.cases:
        if (found := run_case(name, command.size)) is not None:
            done[name] = found
            report = write_report(header, done, command.size)
            keep(report, SO_FAR)
    print(report.removeprefix("\n".join(header)), end="")
    if len(done) < len(command.cases):
        missing = ", ".join(name for name in command.cases if name not in done)
        print(f"\nnot measured: {missing}" + (f"; the others are in {SO_FAR}" if done else ""), file=sys.stderr)
        return 1
    if command.output is not None:
        keep(report, command.output)
        print(f"\nwritten to {command.output}", file=sys.stderr)
    return 0


def keep(report: str, file: Path) -> None:
    """Writes it, in a folder that is made where it is not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(file, report)


def read_command(arguments: Sequence[str]) -> Command:
    """The command line. Raises ValueError for what is not there."""
    given = OmegaConf.to_container(OmegaConf.from_cli(list(arguments)))
    assert isinstance(given, dict)
    for option in map(str, given):
        check_choice("option", option, OPTIONS)
    cases = str(given.get("cases", ",".join(CASES))).split(",")
    for case in cases:
        check_choice("case", case, CASES)
    budget, size = sized(given)
    if "rounds" in given:
        size = replace(size, rounds=positive(given["rounds"]))
    if "peak" in given:
        size = replace(size, peak=1e12 * tflops(given["peak"]))
    default = REPORTS.get(budget) if set(cases) == set(CASES) else None
    return Command(cases, budget, size, Path(str(given["output"])) if "output" in given else default)


def sized(given: dict[Any, Any]) -> tuple[str, Size]:
    """The budget's name and sizes. Raises ValueError for a budget or a device that is not there."""
    budget = str(given.get("budget", "cpu" if resolve_device("auto") == CPU else "gpu"))
    check_choice("budget", budget, BUDGETS)
    if "device" not in given:
        return budget, BUDGETS[budget]()
    if (budget, given["device"]) != ("gpu", "cpu"):
        raise ValueError(f"device={given['device']} is for a miniature alone: budget=gpu device=cpu")
    return MINIATURE, smoke_size()


def check_choice(kind: str, name: str, choices: Collection[str]) -> None:
    """Raises ValueError, with the nearest right name, for a name that is none of the choices."""
    if name not in choices:
        raise ValueError(
            f"there is no {kind} {name}{nearest(name, list(choices)) or '.'} Choices: {', '.join(choices)}"
        )


def positive(rounds: object) -> int:
    """The number of rounds. Raises ValueError below 1."""
    if not isinstance(rounds, int) or rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    return rounds


def tflops(peak: object) -> float:
    """The peak of a card. Raises ValueError for what is no positive number."""
    if not isinstance(peak, int | float) or peak <= 0:
        raise ValueError(f"peak must be the card's dense bf16 TFLOP/s, such as 989, got {peak}")
    return float(peak)


def run_case(name: str, size: Size) -> tuple[Result, float] | None:
    """The result of a case and the seconds that it took; None, and its traceback on stderr, if it failed."""
    print(f"{name} ...", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        result = CASES[name].run(size)
    except Exception:
        print(" failed", file=sys.stderr)
        traceback.print_exc()
        return None
    seconds = time.perf_counter() - start
    print(f" {seconds:.0f} s", file=sys.stderr, flush=True)
    return result, seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
