"""What is installed works without the repository: the wheel carries its configuration and its command."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Standard output of a command that must succeed."""
    environment = {**os.environ, **env}
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=ROOT)
    return next(out.glob("flowexp-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel: what an installer puts into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_wheel_carries_every_config_and_the_types(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    configs = {f"flowexp/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert "flowexp/conf/train.yaml" in configs
    assert configs <= names
    assert "flowexp/py.typed" in names


def test_the_wheel_carries_no_tests_and_no_data(wheel: Path):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"flowexp"}


def test_the_installed_train_module_composes_its_config_anywhere(installed: Path, tmp_path: Path):
    output = run(sys.executable, "-m", "flowexp.train", "--cfg", "job", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "backbone:" in output


def test_the_installed_command_composes_its_config_anywhere(installed: Path, tmp_path: Path):
    entry_points = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert "flowexp = flowexp.launch:main" in entry_points
    script = "import sys; from flowexp.launch import main; sys.argv[0] = 'flowexp'; sys.exit(main())"
    output = run(sys.executable, "-c", script, "train", "--cfg", "job", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "backbone:" in output
