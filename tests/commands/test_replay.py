"""`python -m flowexp.replay`: a step that cannot be taken again is refused in a sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from flowexp import replay


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Replays a file and returns the sentence that it is refused with."""

    def run(path: Path) -> str:
        monkeypatch.setattr(sys, "argv", ["flowexp.replay", str(path)])
        assert replay.main() == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        return sentence

    return run


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_said_to_be_damaged(refused, tmp_path: Path, share: float):
    path = tmp_path / "nonfinite_step_00000001.pt"
    torch.save({"batches": [], "weights": {"w": torch.zeros(100)}}, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    sentence = refused(path)
    assert sentence.startswith(f"error: {path} is damaged, or no saved step") and "nonfinite_step_*.pt" in sentence


def test_other_files_are_no_saved_step(refused, tmp_path: Path):
    (tmp_path / "config.yaml").write_text("name: x\n")
    assert "no saved step" in refused(tmp_path / "config.yaml")
    torch.save({"state_dict": {}}, tmp_path / "step.ckpt")
    assert "is no saved step" in refused(tmp_path / "step.ckpt")
    assert "there is no file" in refused(tmp_path / "missing.pt")
