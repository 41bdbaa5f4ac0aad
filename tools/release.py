"""The release's dry run: `python -m tools.release` builds sdist and wheel into dist/, and looks into both.

It publishes nothing. Each check that fails is a line; with one or more the exit code is 1.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_SHIPPED = ("results/", "outputs/", "data/", ".venv/", "build/")
IN_THE_SDIST = ("CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "conf/train.yaml", "flowexp/__init__.py")


def declared_version() -> str:
    """The version in pyproject.toml."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def wrong_words(version: str, root: Path = ROOT) -> Iterator[str]:
    """What the files of the repository say of another version, or leave undated."""
    module = (root / "flowexp/__init__.py").read_text()
    if f'__version__ = "{version}"' not in module:
        yield f"flowexp/__init__.py does not give version {version} of pyproject.toml"
    dated = re.search(rf"^## {re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)$", (root / "CHANGELOG.md").read_text(), re.M)
    if dated is None:
        yield f"CHANGELOG.md has no heading '## {version} (YYYY-MM-DD)'"
    citation = (root / "CITATION.cff").read_text()
    if f"\nversion: {version}\n" not in citation:
        yield f"CITATION.cff does not give version {version}"
    if dated and f'\ndate-released: "{dated[1]}"\n' not in citation:
        yield f"CITATION.cff does not give the date of CHANGELOG.md, {dated[1]}"


def built(version: str) -> tuple[Path, Path]:
    """The sdist and the wheel in dist/."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(ROOT / "dist"), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return ROOT / "dist" / f"flowexp-{version}.tar.gz", ROOT / "dist" / f"flowexp-{version}-py3-none-any.whl"


def wrong_contents(sdist: Path, wheel: Path) -> Iterator[str]:
    """Files that are missing in either archive, or have no place there."""
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    yield from (f"{sdist.name} lacks {name}" for name in IN_THE_SDIST if name not in inside)
    yield from (f"{sdist.name} has {name}" for name in sorted(inside) if name.startswith(NOT_SHIPPED))
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    configs = {f"flowexp/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    yield from (f"{wheel.name} lacks {name}" for name in sorted({*configs, "flowexp/py.typed"} - packed))


def wrong_version(wheel: Path, version: str) -> Iterator[str]:
    """What `flowexp --version` of the unpacked wheel prints outside the repository, where it is not the version."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        script = (
            "import sys; from flowexp.cli.launch import main; sys.argv[:] = ['flowexp', '--version']; sys.exit(main())"
        )
        shown = subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder},
            capture_output=True,
            text=True,
        )
    if shown.returncode or shown.stdout.strip() != f"flowexp {version}":
        yield f"`flowexp --version` of {wheel.name} prints: {(shown.stdout + shown.stderr).strip()}"


def main() -> int:
    """Builds, checks, and prints what is wrong."""
    version = declared_version()
    problems = [*wrong_words(version)]
    sdist, wheel = built(version)
    problems += [*wrong_contents(sdist, wheel), *wrong_version(wheel, version)]
    print("\n".join(problems) or f"ready: {sdist.relative_to(ROOT)}, {wheel.relative_to(ROOT)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
