"""README and docs/ keep their word: code runs, commands compose, names and links exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from flowexp.cli.launch import COMMANDS, _accept_both_spellings, accept_averages, config_folder
from flowexp.cli.overrides import readable
from flowexp.cli.recipes.recipe import find_recipe

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "results" not in path.parts)]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
WITH_CODE = [str(page.relative_to(ROOT)) for page in PAGES if "```python" in page.read_text()]
SHORTER = {"max_steps=200": "max_steps=2", "range(16)": "range(2)"}  # what a test need not wait for
EXPERIMENTS = {path.stem for path in (config_folder() / "experiment").glob("*.yaml")}
FIGURES = {  # that each paper has
    "Local Contrastive Flow": [*(f"{n}" for n in range(1, 16)), "Tables 1 to 3"],
    "The Velocity Deficit": [*(f"Figure {n}" for n in range(1, 9)), *(f"Table {n}" for n in range(1, 13))],
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


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
    overrides = [readable(accept_averages(words[0], override), sweeps="-m" in words) for override in overrides]
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
        for long, short in SHORTER.items():
            block = block.replace(long, short)
        exec(compile(block, page, "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("page", NAMES)
def test_every_command_that_a_page_shows_composes(page: str):
    text = (ROOT / page).read_text()
    shown = {tuple(words) for words in commands(text) if not is_of_the_reader(words, text)}
    assert [problem for words in sorted(shown) if (problem := composed(list(words)))] == []


@pytest.mark.parametrize("page", NAMES)
def test_every_experiment_that_a_page_names_exists(page: str):
    named = re.findall(r"experiment=([a-z0-9_,]+)", (ROOT / page).read_text())
    assert {name for names in named for name in names.split(",") if name} <= EXPERIMENTS


@pytest.mark.parametrize("page", NAMES)
def test_every_link_of_a_page_leads_somewhere(page: str):
    for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text()):
        if "://" not in link:
            path, _, heading = link.partition("#")
            target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
            assert target.exists(), f"{page} links to {link}"
            assert not heading or heading in headings(target), f"{page} links to {link}"


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
