"""`evaluate`: numbers with their cards, over one process or two, and a sentence for whatever cannot be measured."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.records.protocol_card import cards_of
from flowexp.training.checkpoints import list_checkpoints

pytestmark = pytest.mark.slow

SMALL = (
    "device=cpu", "encoder.input_size=48", "callbacks.probe=null", "callbacks.noise_levels=null",
    "callbacks.samples=null", "callbacks.frechet.num_samples=21", "callbacks.frechet.max_reference=40",
    "callbacks.frechet.cache=null", "callbacks.frechet.batch_size=8",
)  # fmt: skip
SPREAD = """
from flowexp.measuring.metrics import Needs, Work, metric

@metric("spread", Needs(features=True))
def spread(work: Work) -> dict[str, float]:
    return {"spread": float(work.sampled().std())}
"""


@pytest.fixture(scope="module")
def evaluated(shell, alone):
    """A checkpoint measured with a metric of one's own, then the same over two processes beside a sweep."""
    run = shutil.copytree(alone, shell.folder / "evaluated", ignore=shutil.ignore_patterns("evaluations", "samples"))
    (shell.folder / "own_metric.py").write_text(SPREAD)
    own = (*SMALL, "callbacks.frechet.metrics=[frechet,precision_recall,own_metric.spread]")
    one = shell.run("evaluate", f"checkpoint={run}/checkpoints/step_00000012.ckpt", *own).succeeded()
    two = shell.start("evaluate", f"run={run}", *own, "devices=2", "run_dir=two")
    sweep = shell.start("evaluate", "-m", f"run={run}", *SMALL, "sampler.num_steps=3,4", "hydra.sweep.dir=cards")
    return {"run": run, "one": one, "two": two.wait().succeeded(), "sweep": sweep.wait().succeeded()}


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def warnings_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("warning: ")]


def test_a_checkpoint_alone_is_enough_and_a_metric_of_ones_own_is_one_file(evaluated, shell):
    (folder,) = (shell.folder / "evaluated" / "evaluations").iterdir()
    found = summary(folder)["scalars"]
    assert {f"{name}/efficientnet_lite" for name in ("frechet", "precision", "recall", "spread")} == {*found}


def test_two_processes_find_what_one_does_and_print_it_once(evaluated, shell):
    (folder,) = (shell.folder / "evaluated" / "evaluations").iterdir()
    one, two = summary(folder), summary(shell.folder / "two")
    assert two["scalars"] == pytest.approx(one["scalars"], rel=1e-5)
    assert cards_of(two) == cards_of(one) != {}
    assert evaluated["two"].out.count("numbers with their protocol") == 1


def test_a_distance_of_too_few_samples_is_warned_of_once(evaluated):
    for finished in (evaluated["one"], evaluated["two"]):
        (sentence,) = (line for line in warnings_of(finished.err) if "Frechet distance" in line)
        assert "from 21 samples and 40 reference images in 1280 dimensions" in sentence


def test_each_number_has_its_cards_hash_beside_it(evaluated, shell):
    (protocol,) = summary(shell.folder / "two")["protocol"].values()
    assert re.search(rf"frechet/efficientnet_lite\W+[\d.]+\W+{protocol['card']}", evaluated["two"].out)


def test_a_sweeps_table_has_the_cards_and_does_not_warn_of_what_it_varies(evaluated, shell):
    with (shell.folder / "cards" / "sweep.csv").open() as file:
        cards = [row["card of frechet/efficientnet_lite"] for row in csv.DictReader(file)]
    assert len(set(cards)) == 2
    assert not [line for line in warnings_of(evaluated["sweep"].err) if "job 0" in line]


def test_a_number_that_the_run_has_under_another_card_is_warned_of(evaluated, shell, in_process, capsys):
    arguments = (f"run={shell.folder / 'evaluated'}", *SMALL, "callbacks.frechet.num_samples=30", "run_dir=again")
    assert in_process("evaluate", *arguments) == 0
    (sentence,) = warnings_of(capsys.readouterr().err)
    assert "number of samples 30 and 21" in sentence and "evaluations/" in sentence


@pytest.mark.usefixtures("warm_processes")
def test_a_sweep_over_runs_has_one_table_and_goes_on_where_one_is_missing(evaluated, in_process, workdir, capsys):
    """Measures nothing: where the jobs and their table go is what is looked at."""
    run = evaluated["run"]
    assert in_process("evaluate", "-m", f"run=nowhere,{run}", "callbacks=none", "device=cpu") == 1
    printed = capsys.readouterr()
    assert "error: job 0: there is no run nowhere" in printed.err
    (sweep,) = (workdir / "outputs/evaluations").iterdir()
    with (sweep / "sweep.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["refused", "finished"]
    assert not (workdir / "nowhere").exists()


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.fixture
def complaint(in_process, alone, capsys, workdir):
    """Evaluates a copy of a run, which must fail with one sentence and no trace, and returns the sentence."""

    def run(*arguments: str, spoil=lambda folder: None, command: str = "evaluate") -> str:
        folder = shutil.copytree(alone, workdir / "run", ignore=shutil.ignore_patterns("evaluations", "samples"))
        spoil(Path(folder))
        given = [] if any(a.startswith(("run=", "checkpoint=")) for a in arguments) else ["run=run"]
        small = SMALL if command == "evaluate" else ("device=cpu",)
        code = in_process(command, *given, *small, "run_dir=out", *arguments)
        printed = capsys.readouterr()
        assert code == 2, printed.out + printed.err
        assert not re.search("Traceback|Error executing", printed.out + printed.err)
        (sentence,) = re.findall(r"^error: (.*)$", printed.err, re.MULTILINE)
        return sentence

    return run


def truncate(folder: Path) -> None:
    for file in list_checkpoints(folder / "checkpoints"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def forget(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints")


def diverge(folder: Path) -> None:
    file = list_checkpoints(folder / "checkpoints")[-1]
    content = torch.load(file, weights_only=True)
    for weights in (content["state_dict"], content["ema"]["averages"]):
        for name, value in weights.items():
            if name.endswith("weight"):
                weights[name] = torch.full_like(value, torch.nan)
    torch.save(content, file)


def reference(side: int, num: int = 50, **arrays):
    pixels = np.zeros((num, side, side, 3), np.uint8)
    return lambda folder: np.savez(folder.parent / "reference.npz", **{"arr_0": pixels, **arrays})


def cut_short(folder: Path) -> None:
    """A file whose header announces more pictures than there are."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (50, 8, 8, 3)})
    with zipfile.ZipFile(folder.parent / "reference.npz", "w") as archive:
        archive.writestr("arr_0.npy", header.getvalue() + bytes(9 * 8 * 8 * 3))


NAN = {"mu": np.full(2048, np.nan), "sigma": np.eye(2048), "mu_s": np.zeros(2023), "sigma_s": np.eye(2023)}
FRECHET = "callbacks.frechet"
FILE = f"{FRECHET}.reference=reference.npz"
TWO = f"{FRECHET}.metrics=[precision_recall]"


@pytest.mark.parametrize(
    "spoil, arguments, words",
    [
        (truncate, [], "no usable checkpoint: none is saved yet, or all are damaged"),
        (truncate, ["checkpoint=run/checkpoints/step_00000012.ckpt"], "step_00000012.ckpt is damaged"),
        (forget, [], "no usable checkpoint: none is saved yet"),
        (forget, ["run=run", "checkpoint=run/checkpoints/step_00000012.ckpt"], "no checkpoint at "),
        (diverge, [], "the samples have diverged"),
        (None, [f"{FRECHET}.num_samples=1"], "at least 2 samples are needed"),
        (None, [f"{FRECHET}.max_reference=1"], "frechet needs at least 2, got 1 reference images"),
        (None, [TWO, f"+{FRECHET}.options.k=21"], "precision_recall needs at least 22, got 21 samples"),
        (None, [TWO, f"{FRECHET}.max_reference=3"], "at least 4, got 3 reference images"),
        (None, [FILE], "there is no reference batch at reference.npz"),
        (reference(16), [FILE], "pictures of 16 x 16, the samples have 8 x 8"),
        (reference(8, arr_0=np.zeros((5, 8, 8), np.uint8)), [FILE], "must be uint8 (N, H, W, 3), got uint8 (5, 8, 8)"),
        (reference(8, mu=np.zeros(3)), [FILE], "has mu: a reference batch has all of"),
        (reference(8, **NAN), [FILE], "mu and sigma of reference.npz have entries that are NaN or infinite"),
        (cut_short, [FILE], "the pictures in reference.npz are damaged: fetch it again"),
        (None, [f"+{FRECHET}.options.foo=3"], "options of metrics are split_size, k"),
        (None, [f"+{FRECHET}.options.k=three"], "k must be a whole number, got 'three'"),
        (reference(8, num=1), [FILE], "frechet needs at least 2, got 1 reference images"),
        (None, [f"{FRECHET}.reference=val"], "train, test or a .npz file of ADM, got 'val'"),
        (None, [f"{FRECHET}.metrics=[fid]"], "metrics must be some of frechet, sfid"),
        (None, [f"{FRECHET}.metrics=[nowhere.mine]"], "the metric nowhere.mine could not be imported"),
        (None, ["devices=0"], "devices must be at least 1, got 0"),
        (None, ["run=rum"], "there is no run rum; did you mean run?"),
        (None, ["run=elsewhere/at/all"], "there is no run elsewhere/at/all: give the folder"),
        (None, ["checkpoint=run/config.yaml"], "lies in no run's folder: add run=FOLDER, or make a run of published"),
    ],
)
def test_what_cannot_be_measured_is_answered_by_a_sentence(complaint, spoil, arguments, words):
    assert words in complaint(*arguments, spoil=spoil or (lambda folder: None))


@pytest.mark.parametrize(
    "spoil, arguments, words",
    [
        (diverge, [], "some samples are NaN or infinite: training has diverged, or num_steps is too small"),
        (None, ["labels=equal"], "labels must be one of balanced, random, got 'equal'"),
    ],
)
def test_what_cannot_be_sampled_leaves_no_file_for_adms_evaluator(complaint, spoil, arguments, words, workdir):
    assert words in complaint(*arguments, spoil=spoil or (lambda folder: None), command="sample")
    assert not list((workdir / "out").glob("samples.*"))


@pytest.mark.parametrize("wrong", ["num_samples=0", "batch_size=0", "seed=-1"])
def test_a_number_of_sample_out_of_range_is_told_what_is_allowed(complaint, wrong):
    key, _, value = wrong.partition("=")
    assert complaint(wrong, command="sample") == f"{key} must be at least {0 if key == 'seed' else 1}, got {value}"


@pytest.mark.parametrize(
    "encoder, url", [("inception", "weights-inception-2015"), ("dinov2", "vit_base_patch14_dinov2")]
)
def test_features_that_need_a_download_offer_those_that_do_not(complaint, monkeypatch, encoder, url, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    small = [argument for argument in SMALL if not argument.startswith("encoder.")]
    monkeypatch.setitem(globals(), "SMALL", small)
    sentence = complaint(f"encoder={encoder}")
    assert url in sentence and "efficientnet_lite, which needs no download" in sentence


def no_network(*args, **kwargs):
    raise OSError("no route to host")
