"""The commands of `flowexp`, with a line for each: what the console script prints of itself. Imports no torch."""

from __future__ import annotations

import ast
from pathlib import Path

import flowexp

COMMANDS = ("train", "encode", "sample", "evaluate", "diagnose", "adopt", "export")
WITHOUT_A_JOB = ("report", "replay", "reproduce")  # they make no run folder of their own
DEMO = ("side_by_side", "budget=digits")  # of reproduce
_ORDER = ("train", "sample", "evaluate", "diagnose", "report", "reproduce", "export", "adopt", "encode", "replay")


def overview() -> str:
    """A line for each command, from the docstring of its module."""
    lines = {
        "demo": "FM, LCF and MAFM on real digits side by side, in minutes on a CPU",
        **{n: _about(n) for n in _ORDER},
    }
    listed = "\n".join(f"  {name:<10} {about}" for name, about in lines.items())
    return (
        f"{version()}: experiments on flow matching\n\nusage: flowexp COMMAND [key=value ...]\n\n{listed}\n\n"
        "flowexp COMMAND --help explains every key; run=last is the newest run."
    )


def version() -> str:
    """`flowexp 0.1.0`."""
    return f"flowexp {flowexp.__version__}"


def _about(command: str) -> str:
    """The first sentence of a command's docstring, without the command line before it."""
    file = Path(flowexp.__file__).with_name(f"{command}.py")
    first = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").splitlines()[0]
    return first.rpartition("`: ")[2].rstrip(".")
