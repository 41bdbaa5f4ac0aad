"""Tables of recipes can be read in any terminal: no word is broken, no line is cut."""

from __future__ import annotations

from typing import Any

import pytest

from flowexp.cli.shown_table import print_rows

SCORES: list[dict[str, Any]] = [
    {"method": method, "reading": "converged probe", "T at the peak": 50, "clean": 0.772,
     "Fréchet distance, pixels": 674.0, "with a jump from T_min": 645.0, "paper (CIFAR-10, FID)": None}
    for method in ("FM", "LCF", "L_FM only", "LCF as printed, T_min 20")
]  # fmt: skip


@pytest.mark.parametrize("width", [45, 60, 80, 100, 200])
@pytest.mark.parametrize("num_rows", [1, 4])
def test_a_table_fits_the_terminal_with_whole_words(
    width: int, num_rows: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    print_rows(SCORES[:num_rows])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    cells = [cell for row in SCORES[:num_rows] for cell in (*row, str(row["method"]))]
    words = [word.strip(",") for cell in cells for word in cell.split()]
    assert {*words} <= {word.strip(",") for word in printed.replace("│", " ").replace("┃", " ").split()}


def test_a_table_has_the_first_form_that_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def first_cells(width: int, num_rows: int = 4) -> list[str]:
        """Of the head's lines."""
        monkeypatch.setenv("COLUMNS", str(width))
        print_rows(SCORES[:num_rows])
        return [line.split("┃")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("┃")]

    assert first_cells(200) == ["method"]
    assert first_cells(60, num_rows=1) == ["method"]  # turned
    assert first_cells(95) == ["", "", "method"]  # wrapped at words
    assert first_cells(55) == ["method"] * 4  # pieces
