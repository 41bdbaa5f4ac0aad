"""The release's dry run sees what would go wrong, and the small files agree with the rest of the repository."""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from tools.release import ROOT, declared_version, wrong_contents, wrong_words

READ = ("flowexp/__init__.py", "CHANGELOG.md", "CITATION.cff")


def test_version_and_date_agree_in_every_file():
    assert [*wrong_words(declared_version())] == []


@pytest.mark.parametrize(
    "file, old, new",
    [
        ("flowexp/__init__.py", '__version__ = "', '__version__ = "9'),
        ("CHANGELOG.md", r"## [\d.]+ \(\d{4}-\d\d-\d\d\)", "## 0.1.0 (unreleased)"),
        ("CITATION.cff", r"\nversion: .*", "\nversion: 9"),
        ("CITATION.cff", r'date-released: ".*"', 'date-released: "2001-01-01"'),
    ],
)
def test_a_file_that_says_something_else_is_named(file: str, old: str, new: str, tmp_path: Path):
    for name in READ:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    text = (tmp_path / file).read_text()
    (tmp_path / file).write_text(re.sub(old, new, text, count=1))
    (problem,) = wrong_words(declared_version(), tmp_path)
    assert file in problem


def test_what_an_archive_lacks_or_should_not_have_is_named(tmp_path: Path):
    sdist, wheel, note = tmp_path / "a.tar.gz", tmp_path / "a.whl", tmp_path / "note"
    note.write_text("")
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(note, "flowexp-0/outputs/run/config.yaml")
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(note, "flowexp/conf/train.yaml")
    problems = [*wrong_contents(sdist, wheel)]
    assert "a.tar.gz has outputs/run/config.yaml" in problems and "a.tar.gz lacks LICENSE" in problems
    assert "a.whl lacks flowexp/conf/sample.yaml" in problems and "a.whl lacks flowexp/conf/train.yaml" not in problems


def test_pre_commit_runs_the_ruff_of_the_lock():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert f"ruff=={repository['rev'].removeprefix('v')} " in (ROOT / "requirements.lock").read_text()


@pytest.mark.parametrize("form", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_every_file_of_the_code_host_is_yaml_and_forms_have_unique_fields(form: Path):
    content = yaml.safe_load(form.read_text())
    fields = [field["id"] for field in content.get("body", [])]
    assert content and len(fields) == len({*fields})
