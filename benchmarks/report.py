"""The report of a run: where and with what it was measured, the table, and what each case compares."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks.cases import CASES
from benchmarks.sizes import Size
from benchmarks.table import Result, to_markdown
from flowexp.records.run_folder import git_commit


def describe(budget: str, size: Size) -> list[str]:
    """Machine, versions and sizes: the lines above the table."""
    gpu = f"{torch.cuda.get_device_name(size.device)}, " if size.device.type == "cuda" else ""
    threads = f"{torch.get_num_threads()} threads on {os.cpu_count()} cores"
    lines = [
        f"- machine: {gpu}{processor_name()}, {threads}, load {os.getloadavg()[0]:.1f} at the start",
        f"- versions: flowexp {git_commit() or 'without a commit'}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        f"- budget: {budget}; {size}",
        "- ratio: the median over rounds of this / against, taken within each round, with its quartiles; "
        "`median within`: where it lies with 95 %",
        "- met: whether the median keeps the promise; within noise: the limit lies in that range too",
    ]
    if not size.judged:
        lines.append("- nothing is judged: on a network this small, fixed costs weigh more than at real sizes")
    title = "# Benchmarks on a GPU" if gpu else "# Benchmarks"
    return [title, "", *lines, ""]


def processor_name() -> str:
    """The processor's name where the system tells, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write_report(header: list[str], timed: Mapping[str, tuple[Result, float]], size: Size) -> str:
    """The whole report as markdown."""
    table = to_markdown({name: result for name, (result, _) in timed.items()}, size.judged)
    parts = [_about(name, seconds, size) for name, (_, seconds) in timed.items()]
    total = sum(seconds for _, seconds in timed.values())
    return "\n".join([*header, table, f"## What is compared ({total:.0f} s in all)", "", *parts])


def _about(name: str, seconds: float, size: Size) -> str:
    case = CASES[name]
    rounds = case.rounds_at(size)
    counted = f"{rounds} round{'' if rounds == 1 else 's'}"
    return f"- **{name}** ({counted}, {seconds:.0f} s): {' '.join(case.paragraphs)}\n"
