"""Forks that have their imports are processes of their own: folder, environment, exit code, and what they import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = """
import os, sys

def main():
    print(os.getpid(), os.getcwd(), os.environ["SAID"], "colorsys" in sys.modules, *sys.argv[1:], flush=True)
    return 3
"""
RECIPE = """
import os
from flowexp.cli import warm_starts

if __name__ == "__main__":
    warm_starts.IMPORTED = ("colorsys",)
    for number, warm in enumerate((True, False)):
        os.environ["SAID"] = f"run {number}"
        with warm_starts.warm_starts(warm):
            print("ended", warm_starts.run_process("said", ["step=1"]), flush=True)
    print("recipe", os.getpid(), "GOMP_SPINCOUNT" in os.environ)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux alone")
def test_a_fork_is_a_process_with_the_imports_of_the_server(workdir: Path) -> None:
    (workdir / "said.py").write_text(f"{COMMAND}\nif __name__ == '__main__':\n    sys.exit(main())\n")
    (workdir / "recipe.py").write_text(RECIPE)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run(
        [sys.executable, "recipe.py"], env=environment, capture_output=True, text=True, timeout=100, check=True
    )
    fork, its_end, plain, end_of_plain, recipe = (line.split() for line in done.stdout.splitlines())
    folder = str(workdir.resolve())
    assert fork[1:] == [folder, "run", "0", "True", "step=1"]
    assert plain[1:] == [folder, "run", "1", "False", "step=1"]
    assert its_end == end_of_plain == ["ended", "3"]
    assert len({fork[0], plain[0], recipe[1]}) == 3
    assert recipe[2] == "False"  # the server's own variable is not left to the recipe
