"""The rules of the house, read off the source: who imports whom, one time axis, nothing heavy at the door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "flowexp").rglob("*.py"))
PROGRAMS = [path for folder in ("experiments", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))

# run before torch is needed
DOORS = [path for folder in ("", "cli", "cli/sweeps") for path in (ROOT / "flowexp" / folder).glob("*.py")]
OF_A_CONFIG = [ROOT / "flowexp/records" / name for name in ("run_folder.py", "keys.py", "origin.py")]
KNOW_HYDRA = {*DOORS, *(ROOT / "flowexp/cli").rglob("*.py"), *OF_A_CONFIG}
MATHEMATICS = [path for room in ("flow", "backbones") for path in (ROOT / "flowexp" / room).rglob("*.py")]
OF_MATHEMATICS = {"torch", "torchdiffeq", "numpy", "scipy", "einops", "timm", "flowexp"}  # beside the standard library


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax of a file, parsed once."""
    return ast.parse(path.read_text())


@cache
def imported_packages(path: Path) -> frozenset[str]:
    """Top-level packages that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return frozenset(names)


def word_of(node: ast.expr) -> str:
    """The name that `t`, `t[i]`, `t.view(-1, 1)` or `self.t` is about."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute) and is_time(node.attr):
            return node.attr
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""
    return node.id


def is_time(word: str) -> bool:
    return word in {"t", "ts", "time", "times", "progress", "noise_level"} or word.startswith("t_")


def flips_of_time(tree: ast.Module) -> list[str]:
    """Every `1 - t` written by hand."""
    flips = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and isinstance(node.left, ast.Constant)):
            continue
        if node.left.value == 1 and is_time(word_of(node.right)):
            flips.append(f"line {node.lineno}: {ast.unparse(node)}")
    return flips


def test_imports_point_one_way():
    command = (
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True, no_cache=True))"
    )
    result = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    analysed = re.search(r"Analyzed (\d+) files", result.stdout)
    assert analysed and int(analysed[1]) == len(LIBRARY), "a folder without __init__.py is not looked at"


def test_no_two_files_need_each_other():
    """Those that types alone need count too."""
    graph = grimp.build_graph("flowexp", cache_dir=None)
    TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules}).prepare()


def test_the_library_knows_nothing_of_recipes_tests_and_benchmarks():
    guilty = {
        place(path): names
        for path in LIBRARY
        if (names := imported_packages(path) & {"experiments", "tests", "benchmarks", "tools"})
    }
    assert not guilty


def test_only_the_commands_and_what_builds_for_them_know_hydra():
    guilty = [place(p) for p in LIBRARY if imported_packages(p) & {"hydra", "omegaconf"} and p not in KNOW_HYDRA]
    assert not guilty


def test_the_mathematics_needs_torch_alone():
    known = OF_MATHEMATICS | sys.stdlib_module_names
    assert not {place(path): foreign for path in MATHEMATICS if (foreign := imported_packages(path) - known)}


def test_content_is_hashed_in_one_file():
    """Beside it, hashed_words draws the vector of a word from its hash: a random stream, no fingerprint."""
    hash_anew = {place(path) for path in LIBRARY if "hashlib" in imported_packages(path)}
    assert hash_anew == {"flowexp/records/files/fingerprint.py", "flowexp/integrations/encoders/words.py"}


@pytest.mark.parametrize(
    "flip", ["1 - t", "1.0 - t", "1 - t[0]", "1 - t.view(-1, 1)", "1 - self.t", "1 - t_low", "1 - progress"]
)
def test_a_flip_of_time_is_recognised(flip: str):
    assert flips_of_time(ast.parse(flip))


@pytest.mark.parametrize("innocent", ["1 - beta", "t - 1", "1 - torch.cos(t)", "2 - t", "1 - tau"])
def test_other_differences_are_no_flip_of_time(innocent: str):
    assert not flips_of_time(ast.parse(innocent))


def test_only_time_py_turns_the_time_axis_around():
    files = [path for path in LIBRARY + PROGRAMS if path != ROOT / "flowexp/flow/time.py"]
    assert not {place(path): flips for path in files if (flips := flips_of_time(tree_of(path)))}


def test_no_door_imports_torch():
    """`--help` and `--cfg job` answer before torch, four seconds of it, is loaded."""
    doors = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in DOORS]
    command = """if True:
        import importlib, sys
        for name in sys.argv[1:]:
            importlib.import_module(name)
            print(*(f"{name} imports {heavy}" for heavy in ("torch", "wandb", "sklearn") if heavy in sys.modules))
    """
    result = subprocess.run([sys.executable, "-c", command, *doors], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout.split()) == (0, []), result.stderr


def test_everything_public_says_what_it_is():
    assert not {place(path): names for path in LIBRARY if (names := without_docstring(path))}


def without_docstring(path: Path) -> list[str]:
    """The public functions and classes of a file, and the file itself, that have none."""
    tree = tree_of(path)
    public = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    return silent if ast.get_docstring(tree) or not tree.body else ["the file itself", *silent]


def test_a_config_starts_by_saying_what_it_is():
    assert not [place(path) for path in CONFIGS if not re.match(r"# \w", first_line(path))]


def first_line(path: Path) -> str:
    """The first line of a yaml behind Hydra's `# @package`; empty if there is none."""
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("# @package")), "")


def test_no_file_names_a_machine_or_a_registry():
    top = [ROOT / name for name in ("Makefile", "pyproject.toml", "requirements.lock", "README.md", ".ci/run")]
    machine = re.compile(r"""(?:^|[\s"'=(])/(?:home|root|Users|work|tmp)/""", re.MULTILINE)
    files = [path for path in LIBRARY + PROGRAMS + CONFIGS + top if path.exists()]
    assert not [place(path) for path in files if machine.search(path.read_text())]
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_the_folder_shows_the_architecture_and_rooms_have_few_doors() -> None:
    graph = grimp.build_graph("flowexp", cache_dir=None)
    imports = ((one, other) for one in graph.modules for other in graph.find_modules_directly_imported_by(one))
    arrows = {(one.split(".")[1], other.split(".")[1]) for one, other in imports if "." in one and "." in other}
    entries = [
        path for path in (ROOT / "flowexp").iterdir() if path.name not in ("__init__.py", "__pycache__", "py.typed")
    ]
    assert len(entries) <= 22
    assert len({(one, other) for one, other in arrows if one != other}) <= 70


def test_nothing_is_imported_from_a_conftest() -> None:
    """Several files have that name, and which of them is found depends on the path."""
    files = [*(ROOT / "tests").rglob("*.py")]
    assert not [
        place(file) for file in files if re.search(r"^(from|import) conftest\b", file.read_text(), re.MULTILINE)
    ]
