"""FM, LCF and MAFM side by side: samples beside real pictures, what a probe reads off features, and how long v is.

`flowexp demo` and `make demo` are `python -m flowexp.reproduce side_by_side budget=digits`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from flowexp.cli.assembly.rebuilding import load_run
from flowexp.cli.recipes import Line, Lines, Rows, baselines_in, by_seed, network_rows, with_band
from flowexp.cli.recipes.comparing.judge import Judge
from flowexp.cli.recipes.comparing.sheets import first_of_each_class, plot_sheet
from flowexp.flow.profiles import scale_schedule
from flowexp.flow.time import noise_level
from flowexp.records.figures import plot_curves

T = "noise level t"
SSC = "FM with SSC"
SURE = 0.9  # a judge that gives its class more than this is sure
Z = 2.0  # standard errors beyond which a difference is one
CAPTIONS = {
    "samples": "Real pictures beside the first samples of each method; a column for each class where they have one.",
    "probe_curve": "How well a converged probe reads the class off frozen features of noised test images. Across: "
    "the same probe on clean raw pixels, and on a frozen encoder's features of them.",
    "noise_levels": "Left: the length of the velocity beside its target's, with SSC's scale on FM's; of the mean over "
    "all data that fit, which no network can beat, it is below 1 too. Right: the squared error.",
}


# --- measured ---------------------------------------------------------------------------------------------------------


def measure(lines: Lines) -> dict[str, Rows | Figure]:
    levels = [row for line in lines for row in line.rows("noise_levels") if row["split"] == "test"]
    drawn = [Drawn(line, lines.settings) for line in lines]
    judged = judgements(drawn) if lines.settings.judge else [{} for _ in drawn]
    numbers = [line.scores() | each.numbers | seen for line, each, seen in zip(lines, drawn, judged, strict=True)]
    return {
        "probe_curve": [row for line in lines for row in line.rows("probe")],
        "noise_levels": [*levels, *scaled(levels, lines.settings.ssc)],
        "numbers": numbers,
        "samples": sheet(drawn, lines.settings.sheet_rows),
    }


class Drawn:
    """Samples of a line's EMA weights, as pictures.

    Sample i is of class i mod 10 where the network takes classes.
    """

    def __init__(self, line: Line, settings: Any) -> None:
        self.method = line.columns["method"]
        module, self.data, _ = load_run(line.trained.trained_by().path)
        with module.averaged(), torch.no_grad():
            samples = module.sample(range(settings.num_samples), seed=module.seed)
        self.pictures = self.data.to_pictures(samples.images)
        self.takes_classes = module.backbone.takes == "class"
        self.numbers = {"tested": len(self.data.test)}


def judgements(drawn: Sequence[Drawn]) -> list[dict[str, float]]:
    """What one judge, of the real pictures that the first line trains on, makes of the samples of each line.

    The shares of samples, and of real test pictures, that it is sure of and takes for what they should be.
    """
    data = drawn[0].data
    judge, test = Judge(data.train.images, data.train.labels), data.test
    of_real = {f"{name} of real": share for name, share in told(judge, test.images, test.labels).items()}
    wanted = [torch.arange(len(each.pictures)) % data.num_classes for each in drawn]
    return [
        {"judged": len(labels)} | told(judge, each.pictures, labels) | of_real
        for each, labels in zip(drawn, wanted, strict=True)
    ]


def told(judge: Judge, pictures: Tensor, labels: Tensor) -> dict[str, float]:
    """The shares of pictures that the judge is sure of, and that it takes for their labels."""
    likelihoods = torch.from_numpy(judge.likelihoods(pictures))
    surest, taken_for = likelihoods.max(dim=1)
    shares = {"sure": surest > SURE, "as asked": taken_for == labels.cpu()}
    return {name: share.double().mean().item() for name, share in shares.items()}


def sheet(drawn: Sequence[Drawn], rows: int) -> Figure:
    """The first samples of each method beside real test pictures, a column for each class."""
    data = drawn[0].data
    real = data.test.images[first_of_each_class(data.test, rows, data.num_classes)]
    columns = [str(label) if drawn[0].takes_classes else "" for label in range(data.num_classes)]
    blocks = {f"real {data.name}": real} | {f"samples of {each.method}": each.pictures for each in drawn}
    return plot_sheet({name: pictures[: rows * len(columns)] for name, pictures in blocks.items()}, columns)


def scaled(levels: Rows, ssc: Any) -> Rows:
    """The rows of FM with its velocity scaled as SSC scales it in sampling (VD eq. 10): |s v| is s |v|."""
    scale = scale_schedule(ssc.profile, ssc.s0, ssc.s1)
    of_fm = [row for row in levels if row["method"] == "FM" and row["velocity_ratio"] is not None]
    scales = [float(scale(noise_level(torch.tensor(row["t"])))) for row in of_fm]
    return [
        {**row, "method": SSC, "loss": None, "velocity_ratio": s * row["velocity_ratio"]}
        for row, s in zip(of_fm, scales, strict=True)
    ]


# --- drawn ------------------------------------------------------------------------------------------------------------


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    probe = {"t": f"{T} (linear below 0.01)", "accuracy": "accuracy of a converged probe", "method": ""}
    curves, across = network_rows(tables["probe_curve"]), {"accuracy": baselines_of(tables)}
    velocity = {"t": T, "loss": "velocity error, test images", "velocity_ratio": "|v| / |v*|", "method": ""}
    values, band = ["velocity_ratio", "loss"], ("low", "high")
    points = with_band(curves, ["method", "t"], "accuracy")
    levels = [row for value in values for row in with_band(tables["noise_levels"], ["method", "t"], value)]
    return {
        "probe_curve": plot_curves(points, "t", "accuracy", "method", probe, log_x=True, band=band, across=across),
        "noise_levels": plot_curves(levels, "t", values, "method", velocity, band=band),
    }


def baselines_of(tables: dict[str, Rows]) -> dict[str, float]:
    """Accuracy of the same probe on other features of the clean test images, by its label in the figure."""
    names = {"pixels": "raw pixels, no noise", "efficientnet_lite": "EfficientNet-Lite0 (ImageNet), no noise"}
    return {names.get(name, name): share for name, share in baselines_in(tables["probe_curve"]).items()}


# --- told -------------------------------------------------------------------------------------------------------------


def summarise(tables: dict[str, Rows]) -> Rows:
    """A row for each number, a column for each method and for real pictures, and which way is better."""
    numbers, lengths = tables["numbers"], lengths_of(tables)
    pixels = baselines_in(tables["probe_curve"]).get("pixels")
    rows: dict[str, dict[str, str]] = {}
    if "sure" in numbers[0]:
        names = {"sure": f"a judge is {100 * SURE:.0f} % sure", "as asked": "a judge sees the right class"}
        for column, name in names.items():
            rows[name] = in_percent(numbers, column) | {"real": percent(numbers[0][f"{column} of real"])}
    clean = {"real": percent(pixels)} if pixels is not None else {}
    rows["a probe reads it at t = 0"] = in_percent(numbers, "probe/at_clean") | clean
    rows["... less than at its peak by"] = in_percent(numbers, "probe/dip")
    rows["|v| / |v*|, mean over t"] = {m: f"{lengths[m]:.3f}" for m in shares_of(numbers, "probe/dip")}
    rows["with SSC, without training"] = {"FM": f"{lengths[SSC]:.3f}"}
    columns = [*shares_of(numbers, "probe/dip"), "real"]
    better = ["more"] * (len(rows) - 3) + ["less", "nearer 1", "nearer 1"]
    return [
        {"": name, **{column: cells.get(column, "") for column in columns}, "better": way}
        for (name, cells), way in zip(rows.items(), better, strict=True)
    ]


def in_percent(numbers: Rows, column: str) -> dict[str, str]:
    """A number of each method."""
    return {method: percent(share) for method, share in shares_of(numbers, column).items()}


def explain(tables: dict[str, Rows]) -> list[str]:
    """What the numbers show, and what they do not, a sentence for each question."""
    told = [about_samples(tables["numbers"]), about_features(tables), about_velocities(tables)]
    return [sentence for sentence in told if sentence]


def about_samples(numbers: Rows) -> str:
    if "sure" not in numbers[0]:
        return ""
    shares, num = shares_of(numbers, "sure"), int(numbers[0]["judged"])
    errors = {method: share_error(share, num) for method, share in shares.items()}
    return (
        f"Samples: a judge that has seen real training pictures alone is more than {100 * SURE:.0f} % sure of "
        f"{listed(shares)} of {num} samples each, and of {percent(numbers[0]['sure of real'])} of real test pictures; "
        f"{told_apart(shares, errors)}."
    )


def about_features(tables: dict[str, Rows]) -> str:
    numbers = tables["numbers"]
    clean, num = shares_of(numbers, "probe/at_clean"), int(numbers[0]["tested"])
    errors = {method: share_error(share, num) for method, share in clean.items()}
    dips, dip_errors = shares_of(numbers, "probe/dip"), shares_of(numbers, "probe/dip_se")
    real = [method for method in dips if dips[method] > Z * dip_errors[method]]
    lost = f"{listed({m: dips[m] for m in real})} are lost from the curve's peak" if real else "no curve falls"
    pixels = baselines_in(tables["probe_curve"]).get("pixels")
    beside = "" if pixels is None else f", and off the raw pixels in {percent(pixels)}"
    return (
        f"Features: a converged probe reads the class off those of clean test images in {listed(clean)} of {num}"
        f"{beside}; {told_apart(clean, errors)}, and towards clean images {lost} by more than {Z:g} standard errors."
    )


def about_velocities(tables: dict[str, Rows]) -> str:
    lengths = lengths_of(tables)
    changes = "longer" if lengths["MAFM"] > lengths["FM"] else "no longer"
    seeds = len({row.get("seed", 0) for row in tables["numbers"]})
    runs = "one training of each, whose scatter is not known" if seeds == 1 else f"means over {seeds} seeds"
    return (
        f"Velocities: FM's is {lengths['FM']:.3f} times as long as v* (the mean over all data that fit is shorter by "
        f"itself), MAFM's with {lengths['MAFM']:.3f} {changes}, FM's with SSC {lengths[SSC]:.3f}; these are {runs}, "
        "and nothing here speaks for larger networks and pictures."
    )


def lengths_of(tables: dict[str, Rows]) -> dict[str, float]:
    """|v| / |v*| of each method, averaged over the levels and seeds."""
    rows = [row for row in tables["noise_levels"] if isinstance(row["velocity_ratio"], int | float)]
    methods = dict.fromkeys(row["method"] for row in rows)
    return {method: mean(row["velocity_ratio"] for row in rows if row["method"] == method) for method in methods}


def shares_of(numbers: Rows, column: str) -> dict[str, float]:
    """A number of each method, averaged over its seeds."""
    return {row["method"]: mean(by_seed(numbers, column, method=row["method"]).values()) for row in numbers}


def share_error(share: float, num: int) -> float:
    """Standard error of a share of `num` pictures; of none or all of them, that of one picture."""
    return math.sqrt(max(share * (1 - share), 1 / num) / num)


def told_apart(shares: dict[str, float], errors: dict[str, float]) -> str:
    """Which of the shares differ by more than chance in the pictures."""
    apart = [
        f"{one} is above {other}"
        for one in shares
        for other in shares
        if shares[one] - shares[other] > Z * math.hypot(errors[one], errors[other])
    ]
    points = 100 * max(errors.values())
    words = f"beyond chance in the pictures, {' and '.join(apart)}" if apart else "no two methods differ beyond chance"
    return f"{words} (standard error at most {points:.1f} points)"


def listed(shares: dict[str, float]) -> str:
    """`81 % (FM), 78 % (LCF) and 80 % (MAFM)`."""
    *others, last = [f"{percent(share)} ({method})" for method, share in shares.items()]
    return f"{', '.join(others)} and {last}" if others else last


def percent(share: float) -> str:
    """`81.2 %`."""
    return f"{100 * share:.1f} %"
