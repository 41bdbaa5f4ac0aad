"""A cache that cannot be written costs a run nothing but a warning that names it."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowexp import report

pytestmark = pytest.mark.slow

MEASURED = (
    "callbacks=[frechet,noise_levels]", "callbacks.frechet.num_samples=8", "callbacks.frechet.max_reference=8",
    "callbacks.noise_levels.num_images=8", "encoder.input_size=48", "trainer.max_steps=2",
)  # fmt: skip


@pytest.fixture
def full(workdir: Path) -> Iterator[Path]:
    """A disk of 256 kB with little room left, where this system lets one be made."""
    place = workdir / "full"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip("only root may mount a small disk")
    (place / "filler").write_bytes(bytes(240 * 1024))
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_training_ends_with_all_its_numbers_where_no_cache_can_be_made(in_process, workdir: Path, tiny):
    (workdir / "data").write_text("a file in the way of data/moments, the cache by default")
    with pytest.warns(UserWarning, match=rf"{workdir}/data/moments cannot be written .*computed anew next time"):
        assert in_process("train", *tiny, *MEASURED, "run_dir=run") == 0
    found = json.loads((workdir / "run/summary.json").read_text())["scalars"]
    assert math.isfinite(found["frechet/efficientnet_lite"]) and math.isfinite(found["noise_levels/loss"])


def test_a_page_that_has_no_room_is_a_sentence_and_the_earlier_one_stays(
    in_process, workdir: Path, tiny, full: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert in_process("train", *tiny, "trainer.max_steps=2", "run_dir=run") == 0
    (full / "report.html").write_text("the earlier page")
    monkeypatch.setattr("sys.argv", ["report", "run=run", f"output={full}/report.html"])
    assert report.main() == 2
    assert f"error: cannot read or write {full}/report.html: no space left on device" in capsys.readouterr().err
    assert (full / "report.html").read_text() == "the earlier page"
    assert {path.name for path in full.iterdir()} == {"filler", "report.html"}
