"""README and docs/ keep their word: code runs, commands compose, names and links exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from flowexp.cli.launch import COMMANDS, _accept_both_spellings, accept_averages, config_folder, fill_empty_groups
from flowexp.cli.overrides import readable
from flowexp.cli.recipes.recipe import find_recipe

ROOT = Path(__file__).parents[2]
OF_THE_ROOT = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")]
PAGES = [*OF_THE_ROOT, *sorted(path for path in (ROOT / "docs").rglob("*.md") if "results" not in path.parts)]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
WITH_CODE = [str(page.relative_to(ROOT)) for page in PAGES if "```python" in page.read_text()]
SHORTER = {  # what a test need not wait for
    "model.sample(16, seed=0": "model.sample(2, seed=0",
    "    max_steps=20,": "    max_steps=4,",
    "warmup_steps=10": "warmup_steps=2",
    "Digits(batch_size=128)": "Digits(batch_size=32)",
}
NOT_RUN = {  # first lines of blocks that no test runs as they are, and why
    "from diffusers import StableDiffusion3Pipeline": "downloads 15 GB; docs/notebooks/ssc_diffusers.py runs such",
    "import flowexp\n\nmodel = flowexp.load(DIR)": "DIR is an export of the reader; test_whole_way.py loads one",
    "import flowexp.integrations.diffusers  #": "DIR is an export; test_dit_of_diffusers.py loads one",
}
NOT_TRIED = {  # beginnings of lines in command blocks that need more than a test has, and why
    "git clone https://github.com/flowexp/flowexp": "the network",
    "apt-get install ": "a system's packages; .ci/run installs them",
    "pip install hydra-optuna-sweeper": "a plugin of Hydra",
    "source .venv/bin/activate": "the reader's shell",
    "pre-commit install": "a tool of the reader's",
    "python -c ": "run by test_whole_way.py",
    "print(model.sample(4)": "the second line of that",
    "#!/bin/bash": "a job's script",
    "#SBATCH": "SLURM",
    "code=$?": "SLURM",
    "[ $code -eq 143 ] && scontrol": "SLURM",
    "exit $code": "SLURM",
}
EXPERIMENTS = {path.stem for path in (config_folder() / "experiment").glob("*.yaml")}
FIGURES = {  # that each paper has
    "Local Contrastive Flow": [*(f"{n}" for n in range(1, 16)), "Tables 1 to 3"],
    "The Velocity Deficit": [*(f"Figure {n}" for n in range(1, 9)), *(f"Table {n}" for n in range(1, 13))],
}


def blocks(text: str, language: str) -> list[str]:
    """The code in a page's fences of a language, a regular expression; "" is a fence that names none."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [body for name, body in fences if re.fullmatch(language, name)]


def commands(text: str) -> Iterator[list[str]]:
    """Every command of flowexp, as its words: in a block with `python -m`, in a line of text also without."""
    shown = [line for block in blocks(text, "(?:bash)?") for line in block.replace("\\\n", " ").splitlines()]
    shown += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    for line in shown:
        words = shlex.split(line, comments=True) if line.count("'") % 2 == 0 else []
        words = words[1:] if words[:1] == ["srun"] else words
        if words[:2] == ["python", "-m"] and words[2].startswith("flowexp."):
            words = [words[2].removeprefix("flowexp."), *words[3:]]
        if words and words[0] in (*COMMANDS, "report") and any("=" in word for word in words):
            yield words


def is_of_the_reader(words: list[str], text: str) -> bool:
    """Whether a command needs a yaml that the page tells its reader to write."""
    own = any(f"{word.rpartition('=')[2]}.yaml`" in text for word in words if word.startswith("+callbacks@"))
    return own or any("--config-dir" in word or word.startswith("parts=") for word in words)


def composed(words: list[str]) -> str:
    """Why the command would be refused; empty where it is not. Of a sweep the first job is looked at."""
    overrides = [
        _accept_both_spellings(word)
        for word in words[1:]
        if ("=" in word or word[0] == "~") and not word.startswith("hydra")
    ]
    spelt = fill_empty_groups([accept_averages(words[0], override) for override in overrides])
    overrides = [readable(override, sweeps="-m" in words) for override in spelt]
    overrides = [re.sub(r"=.*interval\(([^,]+),.*", r"=\1", override) for override in overrides]  # Optuna's
    if "-m" in words:
        overrides = [re.sub(r"=([^\[\]{},]+),.*", r"=\1", override) for override in overrides]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        try:
            ssc = ["callbacks=ssc_calibration"] if words[1:2] == ["ssc"] else []
            compose(words[0], [*overrides, *ssc])
        except Exception as error:
            return f"{' '.join(words)}: {error}"
    return ""


@pytest.fixture
def forgotten_metrics() -> Iterator[None]:
    """Takes out again what a page registers, which other tests would find."""
    from flowexp.measuring.metrics import METRICS

    before = set(METRICS)
    yield
    for name in METRICS.keys() - before:
        del METRICS[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [n for n, page in zip(NAMES, PAGES, strict=True) if blocks(page.read_text(), "python")]
)
def test_the_code_of_a_page_runs_in_its_order(page: str, workdir: Path, forgotten_metrics: None):
    names: dict[str, object] = {}
    for block in blocks((ROOT / page).read_text(), "python"):
        if block.startswith((*NOT_RUN,)):
            continue
        for long, short in SHORTER.items():
            block = block.replace(long, short)
        exec(compile(block, page, "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("page", NAMES)
def test_every_command_that_a_page_shows_composes(page: str):
    text = (ROOT / page).read_text()
    shown = {tuple(words) for words in commands(text) if not is_of_the_reader(words, text)}
    assert [problem for words in sorted(shown) if (problem := composed(list(words)))] == []


def test_every_line_of_a_command_block_is_a_command_that_tests_know():
    """Commands of flowexp are composed, make's targets and recipes looked up; for all others there is a reason."""
    shown = [block for page in PAGES for block in blocks(page.read_text(), "(?:bash)?")]
    lines = [line for block in shown for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    known = ("python -m flowexp.", "srun python -m flowexp.", "flowexp ", "make ", "pip install 'flowexp[", *NOT_TRIED)
    assert [line for line in lines if not line.startswith(known)] == []
    extras = {name for line in lines for name in re.findall(r"'flowexp\[(\w+)\]'", line)}
    assert extras <= {*tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]}


def test_every_recipe_that_a_page_names_exists():
    named = {name for page in PAGES for name in re.findall(r"flowexp\.reproduce ([a-z]\w*(?:/\w+)?)", page.read_text())}
    for name in named:
        assert name in ("list", "all", "velocity_norms") or find_recipe(name), name  # docs/new_idea has the last one


def test_every_experiment_that_a_page_names_exists():
    named = [names for page in PAGES for names in re.findall(r"experiment=([a-z0-9_,]+)", page.read_text())]
    assert {name for names in named for name in names.split(",") if name} - EXPERIMENTS == set()


def test_every_link_of_a_page_leads_somewhere():
    for page in PAGES:
        links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        assert [link for link in links if "://" not in link and not leads_somewhere(page, link)] == [], page


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether there is the file, and the heading in it."""
    path, _, heading = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not heading or heading in headings(target))


@cache
def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_the_readme_names_only_targets_that_make_has():
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`?make ([a-z][\w-]*)(?= |`|$)", commands_of_make(page), re.MULTILINE))
        assert {name for name in named if not makes_a_recipe(name)} <= targets


def makes_a_recipe(target: str) -> bool:
    """Whether the Makefile's `reproduce-%` makes it."""
    with suppress(ValueError):
        return target.startswith("reproduce-") and bool(find_recipe(target.removeprefix("reproduce-")))
    return False


def commands_of_make(page: Path) -> str:
    """What stands in code: "make" is a word too."""
    text = page.read_text()
    return "\n".join([*re.findall(r"^make .*$", text, re.MULTILINE), *re.findall(r"`(make [^`]*)`", text)])


@pytest.mark.parametrize("paper", FIGURES)
def test_every_figure_and_table_of_a_paper_has_a_row(paper: str):
    section = (ROOT / "docs/papers.md").read_text().split(f"## {paper}\n")[1].split("\n## ")[0]
    first = ", ".join(row.split("|")[1].strip() for row in section.splitlines() if row.startswith("| "))
    listed = re.sub(r"(Figure|Table)s (\d+), (\d+)", r"\1 \2, \1 \3", first)
    assert [figure for figure in FIGURES[paper] if not re.search(rf"(^|, |\b){figure}(,| \(|$)", listed)] == []
