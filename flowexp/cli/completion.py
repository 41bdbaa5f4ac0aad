"""Shell completion: `eval "$(flowexp -sc install=bash)"`. Hydra completes keys and names, this file the commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO

Door = Callable[[str, Sequence[str]], int]


def complete(arguments: Sequence[str], commands: Sequence[str], door: Door, others: Sequence[str] = ()) -> int:
    """Answers `-sc install=SHELL`, and `-sc query=SHELL` for the line in COMP_LINE. Returns the exit code.

    commands: those of `flowexp` whose keys Hydra completes. door: composes the config of a command, see
    `flowexp.cli.launch`. others: commands that are completed by name alone.
    """
    words = os.environ.get("COMP_LINE", "").split(" ")
    if not any(argument.startswith("query=") for argument in arguments):
        return _install(arguments, commands[0], door)
    if len(words) < 3:
        print(" ".join((*commands, *others)))
        return 0
    if words[1] not in commands:
        return 0
    os.environ["COMP_LINE"] = " ".join(words[1:])  # Hydra takes the first word for the program
    return door(words[1], arguments)


def _install(arguments: Sequence[str], command: str, door: Door) -> int:
    """Prints Hydra's script for the shell, for `flowexp` in place of the one command that Hydra completes."""
    with redirect_stdout(StringIO()) as script:
        code = door(command, arguments)
    print(script.getvalue().replace(f"flowexp.{command}", "flowexp"), end="")
    return code
