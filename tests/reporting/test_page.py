"""The page: its numbers are those of the files, it needs nothing beside it, and it shows gaps instead of failing."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flowexp.records.job_table import JobRow, JobTable
from flowexp.records.recording import Measurement, Recorder
from flowexp.records.verdict import Verdict
from flowexp.reporting.numbers import group_numbers
from flowexp.reporting.page import capital, render_runs, render_sweep, without_paths, words
from flowexp.reporting.reading import read_run
from flowexp.reporting.sections import in_a_line, sections_of, spread
from flowexp.reporting.side_by_side import read_runs
from flowexp.reporting.sweep import read_sweep


class Numbers(HTMLParser):
    """The `<data value>` elements of a page, as (exact, shown), and its other tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "data":
            self.found.append((dict(attrs)["value"] or "", ""))

    def handle_data(self, data):
        if self.tags and self.tags[-1] == "data" and data.strip():
            self.found[-1] = (self.found[-1][0], data)


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return render_runs([read_run(finished)])


def only(run: Path, *names: str) -> Path:
    """The run with nothing measured but `names`: drawing takes most of a test's time."""
    for folder in (run / "csv", *(run / "measurements").iterdir()):
        if folder.name not in names:
            shutil.rmtree(folder)
    return run


def cells_of(path: Path) -> list[str]:
    with path.open(newline="") as file:
        return [cell for row in csv.reader(file) for cell in row][3:]


@pytest.mark.slow
def test_the_table_has_the_numbers_of_the_csv_to_the_last_digit(page: str, finished: Path):
    part = page[page.index('data-measurement="probe"') :].split("</table>")[0]
    found = Numbers(part).found
    assert [exact for exact, _ in found] == cells_of(finished / "measurements/probe/step_00000200.csv")
    assert all(shown == f"{float(exact):.4g}" for exact, shown in found)


def test_the_numbers_are_the_last_of_each_measurement(page: str):
    numbers = dict(Numbers(page.split("</table></div>")[0]).found)
    assert numbers["12.3456789"] == "12.35" and numbers["0.7"] == "0.7"


def test_the_page_needs_nothing_beside_it_and_no_script(page: str):
    assert "<script" not in page and "<link" not in page
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]+)"', page))
    assert not re.findall(r"https?://(?!www\.w3\.org)", page.split("</style>")[1].replace("http://www.w3.org", ""))


@pytest.mark.parametrize(
    "words", ["Low-noise pathology", "dip of 10.0 points", "0123abcd", "torch 2.15", "a CPU, 2 cores"]
)
def test_verdicts_and_origin_are_on_the_page(page: str, words: str):
    assert words in page


def test_a_section_says_what_is_seen_and_how_it_was_measured(page: str):
    section = page[page.index('<h2 id="noise_levels">') :].split("</section>")[0]
    assert "Errors in units of the data&#39;s square." in section and "num bins 2" in section


def test_a_diagnosis_is_told_from_its_run(finished: Path, tmp_path: Path):
    (tmp_path / "diagnoses/now").mkdir(parents=True)
    (tmp_path / "diagnoses/now/config.yaml").write_text(f"run: {finished}\nname: digits_fm\n")
    assert read_run(tmp_path / "diagnoses/now").kind == "diagnosis" and read_run(finished).kind == "run"


def test_a_setting_that_is_long_stays_with_the_numbers():
    said = {"a": {"b_c": 1 / 3, "sde": True, "ode": False}, "long": "x" * 61, "none": None, "seed": 0}
    assert in_a_line(said) == "seed 0 · a b c 0.3333 · a sde"  # its own settings before those of its parts


def test_what_a_run_is_called_cannot_change_the_page(make_run, tmp_path: Path):
    page = render_runs([read_run(only(make_run(tmp_path / "x", name="'<script>alert(1)</script>$'"), "frechet_x"))])
    assert "<script" not in page and "&lt;script&gt;" in page


def test_a_nan_is_shown_as_one(own: Path):
    path = own / "measurements/frechet_x/step_00000200.json"
    path.write_text(path.read_text().replace("12.3456789", "NaN"))
    assert re.search(r'class="broken">NaN</data>', render_runs([read_run(only(own, "frechet_x"))]))


def test_a_missing_picture_leaves_a_gap(own: Path):
    (only(own, "samples") / "measurements/samples/step_00000100.png").unlink()
    assert "the picture of this step is missing or damaged" in render_runs([read_run(own)])
    (own / "measurements/samples/step_00000200.png").unlink()
    assert "the table and the picture of this measurement are missing" in render_runs([read_run(own)])


def test_an_empty_run_has_a_page_that_says_so(tmp_path: Path):
    (tmp_path / "config.yaml").write_text("name: early\n")
    page = render_runs([read_run(tmp_path)])
    assert "Nothing has been measured" in page and "the run has not ended" in page
    (tmp_path / "evaluations/now").mkdir(parents=True)
    (tmp_path / "evaluations/now/summary.json").write_text("{}")
    assert "1 evaluation lies below" in render_runs([read_run(tmp_path)])


@pytest.mark.slow
def test_runs_side_by_side_warn_where_protocols_differ(make_run, tmp_path: Path):
    folders = [make_run(tmp_path / "a", "fm"), make_run(tmp_path / "b", "lcf", num_samples=500)]
    page = render_runs(read_runs([only(folder, "frechet_x") for folder in folders]))
    warning = page[page.index('class="note warn"') :].split("</div>")[0]
    assert "Frechet x was measured in different ways" in warning
    assert re.search(r"num_samples</span>: 2000 .*\(fm\).*, 500 .*\(lcf\)", warning)
    assert warning.count("<li>") == 1
    assert [exact for exact, _ in Numbers(page).found] == ["12.3456789"] * 2


@pytest.mark.slow
def test_runs_of_one_protocol_compare_in_shared_charts(make_run, tmp_path: Path):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", "lcf")]
    runs = read_runs([only(folder, "probe") for folder in folders])
    assert all(group.compares for group in group_numbers(runs))
    (probe,) = [section for section in sections_of(runs, 3) if section.name == "probe"]
    titles = [chart.title for chart in probe.charts]
    assert titles[0] == "accuracy"
    assert "digits_fm · accuracy · tap 2" in titles and "lcf · accuracy · tap 2" in titles


def test_of_many_pictures_evenly_chosen_ones_are_shown_with_the_last():
    assert spread(range(10), 3) == [2, 6, 9] and spread(range(3), 5) == [0, 1, 2] and spread([1, 2, 3], 1) == [3]


def test_a_verdict_begins_with_a_capital_and_keeps_its_others():
    assert (capital("no SSC proposal"), capital("")) == ("No SSC proposal", "")


def diagnosis(folder: Path, run: Path, measurement: Measurement, step: int = 200) -> Path:
    """A diagnosis of `run` that measured one thing."""
    Recorder(folder).record(measurement, step)
    (folder / "config.yaml").write_text(f"name: {run.name}\nrun: {run}\nrun_dir: {folder}\n")
    (folder / "summary.json").write_text(
        json.dumps({"step": step, "verdicts": [verdict.data() for verdict in measurement.verdicts]})
    )
    return folder


def norms(name: str, verdict: Verdict | str, **words: object) -> Measurement:
    rows = [{"t": t, "ratio": 1 - t / 3} for t in (0.005, 0.5, 0.9)]
    return Measurement(name, {f"{name}/x": 0.5}, rows, verdicts=[verdict], **words)


def test_diagnoses_of_one_run_are_one_run_of_the_page(own: Path, tmp_path: Path):
    only(own, "frechet_x")
    deficit = diagnosis(
        tmp_path / "a", own, norms("velocity_norms", Verdict("velocity deficit", "finding", "12 % at the noise end"))
    )
    ssc = diagnosis(
        tmp_path / "b",
        own,
        norms("ssc_calibration", Verdict("SSC proposal", "none", "states are on time", "SSC proposal")),
    )
    again = diagnosis(tmp_path / "c", own, norms("velocity_norms", "any deficit"))
    later = diagnosis(tmp_path / "d", own, norms("cross_terms", "x"), step=300)
    ssc.joinpath("config.yaml").write_text(ssc.joinpath("config.yaml").read_text().replace("name: run", "name: ssc"))
    (run,) = read_runs([deficit, ssc])
    assert run.names == ["velocity_norms", "ssc_calibration"] and run.label == own.name
    assert [len(found) for found in run.verdicts_by_name.values()] == [1, 1]
    assert "run_dir: " + str(ssc) in run.settings
    assert [run.label for run in read_runs([deficit, ssc, again])] == ["run (a)", "run (c)"]
    assert [run.label for run in read_runs([deficit, ssc, later])] == ["run (a)", "run (d)"]
    page = render_runs(read_runs([deficit, ssc]))
    assert "<b>Velocity deficit</b>" in page and '<div class="verdict calm"><b>SSC proposal</b>' in page


def begun(folder: Path, name: str, data: str = "digits") -> Path:
    """A run that has measured nothing."""
    folder.mkdir()
    (folder / "config.yaml").write_text(f"name: {name}\n")
    (folder / "run.json").write_text(json.dumps({"plan": {"data": f"{data}, 1,437 images"}}))
    return folder


def test_a_run_that_was_moved_is_still_that_of_its_diagnoses(tmp_path: Path):
    run = begun(tmp_path / "there", "fm")
    for place in ("a", "b"):
        diagnosis(run / f"diagnoses/{place}", run, norms(f"norms_{place}", f"{place}: x"))
    moved = Path(shutil.copytree(run, tmp_path / "here"))
    (found,) = read_runs([moved / "diagnoses/a", moved / "diagnoses/b"])
    assert found.home == moved and found.origin["plan"]["data"].startswith("digits")
    shutil.rmtree(moved / "diagnoses/b")
    (again,) = read_runs([moved / "diagnoses/a", run / "diagnoses/b"])  # a copy is the same run
    assert again.names == ["norms_a", "norms_b"]


def test_labels_say_only_what_is_needed_to_tell_runs_apart(tmp_path: Path):
    folders = [begun(tmp_path / place, name) for place, name in (("a", "fm"), ("b", "fm"), ("c", "lcf"))]
    assert [run.label for run in read_runs(folders)] == ["fm (a)", "fm (b)", "lcf"]


def test_verdicts_of_several_runs_stand_beside_each_other(tmp_path: Path):
    runs = [begun(tmp_path / name, name) for name in ("fm", "lcf")]
    found = [
        diagnosis(
            tmp_path / f"d_{run.name}", run, norms("velocity_norms", Verdict("velocity deficit", evidence=f"{share} %"))
        )
        for run, share in zip(runs, (12, 5), strict=True)
    ]
    page = render_runs(read_runs(found))
    (row,) = re.findall(r'<tr><th scope="row">Velocity norms</th>(.*?)</tr>', page, re.DOTALL)
    assert [re.sub("<[^>]+>", "", cell).split() for cell in re.findall("<td.*?</td>", row, re.DOTALL)] == [
        ["Velocity", "deficit", "12", "%"],
        ["Velocity", "deficit", "5", "%"],
    ]


def test_charts_of_several_runs_bear_words_and_come_before_each_runs_own_picture(make_run, tmp_path: Path):
    words = {"ratio": "|v| / |v*|"}
    runs = [
        diagnosis(tmp_path / name, tmp_path / f"run_{name}", norms("velocity_norms", "x", maps=words)) for name in "ab"
    ]
    (section,) = sections_of(read_runs(runs), 1)
    assert [chart.title for chart in section.charts] == ["|v| / |v*|"]
    assert "|v| / |v*| over noise levels" in section.charts[0].svg


def test_a_page_names_no_folder_of_the_machine(own: Path, tmp_path: Path):
    only(own, "frechet_x")
    command = f"-m flowexp.cli.jobs train {own} data.root=~/sets/mnist"
    (own / "run.json").write_text(json.dumps({"command": command, "plan": {"weights": str(own / "x.pt")}}))
    found = diagnosis(tmp_path / "d", own, norms("velocity_norms", f"weights: of {own}/x.pt"))
    page = render_runs([read_run(found)])
    assert str(tmp_path) not in page and "sets/mnist" not in page and f"run: …/{own.name}\n" in page
    assert "of …/x.pt" in page and "data.root=…/mnist" in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("root: data/fashion_mnist", "root: data/fashion_mnist"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("|v - v*|² / d, 1/2/3", "|v - v*|² / d, 1/2/3"),
        ("runs=[/a/b,'/c/d']", "runs=[…/b,'…/d']"),
        (r"C:\\Users\\me\\x.pt", "…/x.pt"),
    ],
)
def test_only_paths_from_the_root_are_shortened(text: str, shown: str):
    assert without_paths(text.replace("\\\\", "\\")) == shown


def test_numbers_alone_make_no_section(own: Path):
    assert sections_of([read_run(only(own, "frechet_x"))], 3) == []
    assert "12.35" in render_runs([read_run(own)]) and 'id="frechet_x"' not in render_runs([read_run(own)])


def test_a_setting_that_runs_share_is_said_once(tmp_path: Path):
    found = []
    for name, seed in (("fm", 0), ("lcf", 1)):
        protocol = {"images": "64 test images", "seed": seed, "sampler": {"solver": "euler"}}
        run = begun(tmp_path / name, name)
        found.append(diagnosis(tmp_path / f"d_{name}", run, norms("velocity_norms", "x", protocol=protocol)))
    page = render_runs(read_runs(found))
    assert '>images</th><td colspan="2">64 test images</td>' in page
    assert '>sampler.solver</th><td colspan="2">euler</td>' in page
    assert '>seed</th><td class="differs">0</td><td class="differs">1</td>' in page


def test_runs_of_different_data_are_said_to_be(tmp_path: Path):
    digits = [begun(tmp_path / name, name) for name in ("fm", "mafm")]
    assert "trained on different data" not in render_runs(read_runs(digits))
    page = render_runs(read_runs([*digits, begun(tmp_path / "lcf", "lcf", "cifar10")]))
    warning = page[page.index('class="note warn"') :].split("</div>")[0]
    assert "trained on different data" in warning
    assert re.sub("<[^>]+>", "", warning).split("compare.")[1].split("\n") == ["", "digits (fm, mafm)cifar10 (lcf)"]


def test_a_sweeps_table_has_what_it_varied_and_says_the_rest_once(tmp_path: Path):
    jobs = [
        ("0", {"run": "/data/runs/mafm", "sampler.s0": "1.0"}),
        ("1", {"run": "/data/runs/mafm", "sampler.s0": "1.1"}),
    ]
    JobTable(tuple(JobRow(job, "finished", True, settings, {"probe/dip": 0.25}, {}) for job, settings in jobs)).write(
        tmp_path
    )
    page = render_sweep(read_sweep(tmp_path))
    assert re.findall(r'<th scope="col"[^>]*>(.*?)</th>', page) == ["job", "s0", "probe dip", "status"]
    assert "In all jobs: run …/mafm</p>" in page


@pytest.mark.parametrize(
    ("name", "heading"),
    [("ssc_calibration", "SSC calibration"), ("noise_levels", "Noise levels"), ("knn", "kNN"), ("fid", "FID")],
)
def test_headings_are_words(name: str, heading: str):
    assert words(name) == heading


PROBE = """<script>onload = () => {
  const pictures = [...document.images].map(image => image.naturalWidth)
  const numbers = [...document.querySelectorAll('table[data-measurement=probe] data')].map(data => data.value)
  const seen = [...document.querySelectorAll('figure svg')].every(svg => svg.getBoundingClientRect().width > 100)
  const fits = document.documentElement.scrollWidth <= innerWidth
  const width = innerWidth
  document.body.innerHTML = '<pre id=answer>' + JSON.stringify({pictures, numbers, seen, fits, width}) + '</pre>'
}</script>"""


@pytest.mark.slow
def test_a_browser_shows_every_picture_and_the_numbers_of_the_csv(
    browse: Callable[[str], str], page: str, finished: Path
):
    document = browse(page.replace("</head>", PROBE + "</head>"))
    answer = json.loads(document.split('<pre id="answer">')[1].split("</pre>")[0])
    assert len(answer["pictures"]) == 4 and min(answer["pictures"]) > 0
    assert answer["numbers"] == cells_of(finished / "measurements/probe/step_00000200.csv")
    assert answer["seen"] and answer["fits"]


NARROW = """<script>onload = () => {
  const frame = document.createElement('iframe')
  frame.width = 400; frame.style.border = 0
  frame.srcdoc = document.documentElement.outerHTML.replace(/<script>.*/s, '')
  frame.onload = () => {
    const page = frame.contentDocument
    const wide = [...page.querySelectorAll('body *')].filter(part => !part.closest('.scroll, pre')
      && part.getBoundingClientRect().right > 400.5).map(part => part.tagName)
    const answer = {fits: page.documentElement.scrollWidth <= 400, wide, labels:
      [...page.querySelectorAll('.findings td[data-run]')].map(cell => cell.dataset.run)}
    document.body.innerHTML = '<pre id=answer>' + JSON.stringify(answer) + '</pre>'
  }
  document.body.append(frame)
}</script>"""


@pytest.mark.slow
def test_several_runs_fit_a_telephone_and_keep_their_names_there(browse, make_run, tmp_path: Path):
    runs = [
        only(make_run(tmp_path / name, name), "frechet_x", "noise_levels") for name in ("fashion_fm", "fashion_lcf")
    ]
    page = render_runs(read_runs(runs))
    document = browse(page.replace("</body>", NARROW + "</body>"))
    answer = json.loads(document.split('<pre id="answer">')[1].split("</pre>")[0])
    assert answer == {"fits": True, "wide": [], "labels": ["fashion_fm", "fashion_lcf"]}
