"""What was computed once is not computed again, to the last digit; what is damaged or another's is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flowexp.measuring.callbacks.resumable import Kept

ROWS = torch.tensor([[0.1, 1 / 3], [2.0, -1.5]])


class Maker:
    """Counts how often it is asked."""

    def __init__(self, result: object) -> None:
        self.result, self.times = result, 0

    def __call__(self):
        self.times += 1
        return self.result


def test_a_part_is_made_once_for_all_that_decided_it(tmp_path: Path):
    rows, numbers = Maker(ROWS), Maker({"s0": 1 / 3, "source": "lag", "lag": None})
    for _ in range(2):
        kept = Kept(tmp_path, {"weights": "ab"})
        assert torch.equal(kept.features({"rows": [0, 2]}, rows), ROWS)
        assert kept.numbers({"proposal": 1}, numbers) == numbers.result
    assert (rows.times, numbers.times) == (1, 1)
    Kept(tmp_path, {"weights": "cd"}).features({"rows": [0, 2]}, rows)
    kept.features({"rows": [2, 4]}, rows)
    kept.numbers({"proposal": 2}, numbers)
    assert (rows.times, numbers.times) == (3, 2)


def test_a_damaged_file_counts_as_missing(tmp_path: Path):
    rows, numbers, kept = Maker(ROWS), Maker({"s0": 1.0}), Kept(tmp_path, {})
    for _ in range(2):
        assert torch.equal(kept.features({}, rows), ROWS) and kept.numbers({}, numbers) == {"s0": 1.0}
        for path in tmp_path.iterdir():
            path.write_bytes(path.read_bytes()[: -(path.stat().st_size // 2)])
    assert (rows.times, numbers.times) == (2, 2)


def test_without_a_folder_nothing_is_kept_or_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows, kept = Maker(ROWS), Kept(None, {})
    for _ in range(2):
        kept.features({}, rows)
    with pytest.raises(KeyboardInterrupt), kept.going_on():
        raise KeyboardInterrupt
    assert rows.times == 2 and capsys.readouterr().err == ""


def test_whoever_stops_the_work_is_told_that_it_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(KeyboardInterrupt), Kept(tmp_path, {}).going_on():
        raise KeyboardInterrupt
    assert f"what was computed is in {tmp_path}: the same command continues from there" in capsys.readouterr().err
