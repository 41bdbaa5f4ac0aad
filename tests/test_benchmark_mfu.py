"""The use of a card: its peak by its name, the arithmetic of MFU, and what is said where there is no card."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import mfu, peaks
from benchmarks.__main__ import main, read_command
from benchmarks.sizes import smoke_size
from benchmarks.table import Figures, Result, to_markdown
from benchmarks.timing import Timings

sys.path.append(str(Path(__file__).parent))
from pretended_accelerator import moved, pretended_accelerator

TINY = smoke_size()


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 836),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100-PCIE-40GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
    ],
)
def test_a_card_has_the_peak_of_its_data_sheet(name: str, tflops: float):
    assert peaks.peak_of(name) == 1e12 * tflops


@pytest.mark.parametrize(
    "name",
    ["NVIDIA A10G", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "Tesla V100-SXM2-16GB"],
)
def test_a_slice_or_a_sibling_of_a_card_is_not_taken_for_it(name: str):
    assert peaks.peak_of(name) is None


def test_mfu_is_the_time_at_the_peak_over_the_time_taken():
    timings = Timings({"net step": [2.0, 4.0, 2.0]})
    row = mfu.utilisation(timings, "net step", flop=1e12, peak=1e12, size=TINY)
    assert (row.ratio.median, row.ratio.interval, row.seconds) == (0.5, (0.25, 0.5), (1.0, 2.0))
    figures = mfu.figures_of(row, batch=8, flop=1e12, memory=3 * 2**30)
    assert figures.values == {
        "batch": "8", "images per second": "4", "TFLOP/s": "0.5", "MFU": "50 %", "memory at most": "3.00 GiB",
    }  # fmt: skip


def test_of_an_unknown_device_the_peak_is_what_a_product_reaches():
    size = replace(TINY, product=1000)  # 2e9 FLOP
    timings = Timings({"net step": [2.0], mfu.PRODUCT: [0.5]})  # 4e9 FLOP/s
    assert mfu.utilisation(timings, "net step", flop=6e9, peak=None, size=size).ratio.median == 0.75


def test_a_step_is_counted_as_three_forward_passes():
    network = mfu.create_network("sit_s2", replace(TINY, network_depth=2))
    x, label = torch.randn(1, *TINY.latents[1:], requires_grad=True), torch.zeros(1, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        network(x, torch.rand(1), label).sum().backward()
    assert mfu.PASSES * mfu.operations(network) == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch):
    tried: list[int] = []

    def use(name: str, batch: int, size: object, rounds: int) -> Result:
        tried.append(batch)
        if batch > 16:
            raise torch.OutOfMemoryError
        return Result([])

    monkeypatch.setattr(mfu, "_use_of", use)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    mfu.use_of("sit_xl2", 64, TINY, 1)
    assert tried == [64, 32, 16]
    monkeypatch.setattr(mfu, "_use_of", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        mfu.use_of("sit_xl2", 2, TINY, 1)


def test_memory_is_that_of_the_second_time(monkeypatch: pytest.MonkeyPatch):
    held = iter([7, 5])
    calls: list[str] = []
    monkeypatch.setattr(mfu, "wait_for", lambda device: None)
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda device: calls.append("reset"))
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: calls.append("read") or next(held))
    assert mfu.peak_memory(lambda: calls.append("work"), torch.device("cuda")) == 7
    assert calls == ["work", "reset", "work", "read"]
    assert mfu.peak_memory(lambda: None, torch.device("cpu")) is None


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_samples_stay_on_the_device():
    """On an accelerator that has shapes alone: tensors of two devices would not mix."""
    network = mfu.create_network("sit_s2", TINY)
    with pretended_accelerator() as device:
        size = replace(TINY, device=device)
        moved(network)
        mfu.draw_samples(network, 2, size)()
        mfu.product(size)()


@pytest.mark.parametrize(
    ("peak", "given", "note"),
    [
        (None, None, "the peak is the rate of a product of 512 x 512 matrices; peak=TFLOPS takes a data sheet's"),
        (989e12, 989e12, "the peak is 989 TFLOP/s, by peak="),
    ],
)
def test_the_peak_is_named(peak: float | None, given: float | None, note: str):
    notes = mfu.notes_of(peak, compiled=False, size=replace(TINY, peak=given))
    assert notes == [note, "compile left out: takes longer than this size has"]


def test_an_unknown_card_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mfu, "name_of", lambda device: "NVIDIA X1")
    notes = mfu.notes_of(None, compiled=True, size=replace(TINY, device=torch.device("cuda")))
    assert len(notes) == 1 and "NVIDIA X1 is not in benchmarks/peaks.py; peak=TFLOPS" in notes[0]


def test_figures_have_a_table_of_their_own():
    lines = to_markdown({"mfu": Result([], ["a note"], [Figures("net step", {"batch": "8", "MFU": "50 %"})])})
    assert "| case | what     | batch | MFU  |" in lines and "| mfu  | net step | 8     | 50 % |" in lines
    assert lines.endswith("|\n\n- mfu: a note\n")


def test_the_miniature_is_written_beside_no_result_of_a_gpu(tmp_path: Path):
    command = read_command(["budget=gpu", "device=cpu"])
    assert command.output is not None and command.output.parts[-2:] == ("build", "benchmarks_gpu.md")
    assert command.size == TINY
    assert read_command(["budget=smoke", "peak=989"]).size.peak == 989e12


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["budget=cpu", "device=cpu"], "device=cpu is for a miniature alone: budget=gpu device=cpu"),
        (["budget=gpu", "device=cuda"], "device=cuda is for a miniature alone"),
        (["budget=smoke", "peak=H100"], "peak must be the card's dense bf16 TFLOP/s, such as 989, got H100"),
    ],
)
def test_what_cannot_be_is_answered_in_a_sentence(
    arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == 2
    assert answer in capsys.readouterr().err
