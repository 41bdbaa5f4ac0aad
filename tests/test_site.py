"""The site's own steps: pages and their links, keys, objects and notebooks, and the check that finds dead links.

`make docs`, which CI runs, builds the whole with Zensical; here each step is tried alone.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jupytext
import pytest

from flowexp.cli.composing import Configs
from tools.site.__main__ import write_config
from tools.site.keys import choice, command_page, group_page, groups
from tools.site.links import dead_links
from tools.site.notebooks import NOTEBOOKS, run
from tools.site.objects import PACKAGES, public_names
from tools.site.pages import DOCS, ROOT, page_of, stage, with_links_of_the_site


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of docs/, staged."""
    folder = tmp_path_factory.mktemp("build") / "pages"
    stage(folder)
    return folder


@pytest.mark.parametrize(
    "link, on_the_site",
    [
        ("[a](README.md#reference)", "[a](index.md#reference)"),
        ("[a](results/dip/README.md)", "[a](results/dip/index.md)"),
        ("![a](results/dip/probes.png)", "![a](results/dip/probes.png)"),
        ("[a](new_idea/huber.py)", "[a](new_idea/huber_py.md)"),
        ("[a](notebooks/low_noise.py)", "[a](notebooks/low_noise.md)"),
        ("[a](../README.md)", "[a](index.md)"),
        ("[a](../SECURITY.md)", "[a](project/security.md)"),
        ("[a](../conf/train.yaml)", "[a](https://github.com/flowexp/flowexp/blob/main/conf/train.yaml)"),
        ("[a](https://arxiv.org/abs/1)", "[a](https://arxiv.org/abs/1)"),
        ("`[a](README.md)`", "`[a](README.md)`"),
    ],
)
def test_links_lead_to_pages_of_the_site_or_into_the_repository(link: str, on_the_site: str):
    assert with_links_of_the_site(link, DOCS / "library.md") == on_the_site


def test_every_page_of_docs_is_staged_and_in_the_navigation(pages: Path):
    listed = str(tomllib.loads(write_config(pages).read_text())["project"]["nav"])
    for page in DOCS.rglob("*.md"):
        staged = page_of(page)
        assert staged and (pages / staged).is_file()
        of_a_result = "results" in page.parts and page.name != "README.md"
        assert str(staged) in listed or of_a_result, f"{staged} is in no menu: add it to tools/site/zensical.toml"


def test_a_dead_link_and_a_dead_anchor_are_found(tmp_path: Path):
    (tmp_path / "a.html").write_text('<a href="b.html#here">x</a><a href="b.html#gone">x</a><img src="no.png">')
    (tmp_path / "b.html").write_text('<h1 id="here"></h1><a href="https://example.org/no">x</a><a href="#here">x</a>')
    assert [*dead_links(tmp_path)] == ["a.html: dead link b.html#gone", "a.html: dead link no.png"]


def test_keys_stand_with_their_default_and_meaning():
    section = choice("objective", "lcf", Configs())
    assert "| `objective.tau` | `0.5` | temperature; LCF section 6.2 |" in section
    assert "| `ema.decay` | `0.9999` | LCF A.4.2, SiT;" in group_page("averaging", Configs())
    assert "| `seed` | `0` | names every random draw" in command_page("train", Configs())
    assert {"objective", "sampler", "callbacks"} <= {*groups()}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_of_the_reference_is_there_and_names_its_objects(package: str):
    assert ROOT.joinpath(*package.split(".")).exists() or ROOT.joinpath(*package.split(".")).with_suffix(".py").exists()
    assert public_names(package)


def test_a_cell_shows_what_it_prints_and_draws(tmp_path: Path):
    names: dict[str, object] = {}
    assert run("x = 3\nprint(x)", names, tmp_path / "note_0") == "```text\n3\n```"
    drawn = run("import matplotlib.pyplot as plt; plt.figure()", names, tmp_path / "note_1")
    assert drawn == "![figure of the cell above](note_1_1.png)" and (tmp_path / "note_1_1.png").is_file()


@pytest.mark.parametrize("notebook", sorted(NOTEBOOKS.glob("*.py")), ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_title_and_converts(notebook: Path):
    content = jupytext.read(notebook)
    assert content.cells[0].cell_type == "markdown" and content.cells[0].source.startswith("# ")
    converted = json.loads(jupytext.writes(content, fmt="ipynb"))
    assert [cell["cell_type"] for cell in converted["cells"]].count("code") >= 3


def test_a_cell_that_fails_ends_the_build(tmp_path: Path):
    with pytest.raises(ZeroDivisionError):
        run("1 / 0", {}, tmp_path / "note")
