"""`python -m benchmarks [case ...]`: runs the cases, all by default, and prints their ratios as one table."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import loading, probing, sampling, training
from benchmarks.sizes import Size, quick_size, real_size
from benchmarks.table import Result, to_markdown
from flowexp.building import resolve_device
from flowexp.errors import nearest

CASES: dict[str, Callable[[Size], Result]] = {
    "lightning": training.lightning,
    "objectives": training.objectives,
    "precision": training.precision,
    "ema": training.ema,
    "loader": loading.loader,
    "solver": sampling.solver,
    "probe": probing.probe,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if a case could not be run. A broken promise is a result, not a failure."""
    options = read_options(arguments)
    size = choose_size(options)
    header = describe(size, quick=options.quick)
    print(header, flush=True)
    results = {name: run_case(name, size) for name in options.cases or CASES}
    done = {name: result for name, result in results.items() if result is not None}
    table = to_markdown(done, size.judged)
    print(table, end="")
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(f"{header}\n{table}")
    return 0 if len(done) == len(results) else 1


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line, checked."""
    summaries = "\n".join(f"  {name:<11} {(case.__doc__ or '').splitlines()[0]}" for name, case in CASES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Speed of the parts, each side by side with what it is compared to, as ratios.",
        epilog=f"cases:\n{summaries}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="case", help="what to measure (default: everything)")
    parser.add_argument("--rounds", type=int, help="rounds of each comparison; those of long rounds take half")
    parser.add_argument("--quick", action="store_true", help="a small network, few rounds: under a minute, not judged")
    parser.add_argument("--device", default="auto", help="cpu, cuda (default: the accelerator where there is one)")
    parser.add_argument("--output", type=Path, help="also write the report to this markdown file")
    options = parser.parse_args(arguments)
    for case in options.cases:
        if case not in CASES:
            parser.error(f"there is no case {case}{nearest(case, list(CASES))}. Choices: {', '.join(CASES)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    return options


def choose_size(options: argparse.Namespace) -> Size:
    """The real or the quick size for the device, with the rounds that were asked for."""
    device = resolve_device(options.device)
    size = quick_size(device) if options.quick else real_size(device)
    return size if options.rounds is None else replace(size, rounds=options.rounds)


def describe(size: Size, quick: bool) -> str:
    """Where, with what and how large: the lines above the table."""
    processor = f"{processor_name()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    gpu = f"{torch.cuda.get_device_name(size.device)}, " if size.device.type == "cuda" else ""
    lines = [
        f"- machine: {gpu}{processor}, load {os.getloadavg()[0]:.1f} at the start",
        f"- versions: torch {torch.__version__}, Python {platform.python_version()}",
        f"- size: {size}",
        "- ratio: median over rounds of this / against, taken within each round; quartiles beside it",
    ]
    if quick:
        lines.append("- quick: a small network, on which fixed costs weigh more; promises are made for real sizes")
    return "\n".join(["# Benchmarks", "", *lines, ""])


def processor_name() -> str:
    """The processor's name where the system tells, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def run_case(name: str, size: Size) -> Result | None:
    """The result of a case; None, and its traceback on stderr, if it failed."""
    print(f"{name} ...", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    try:
        result = CASES[name](size)
    except Exception:
        print(" failed", file=sys.stderr)
        traceback.print_exc()
        return None
    print(f" {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main())
