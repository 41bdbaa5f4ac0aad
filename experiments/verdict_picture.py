"""Every decided claim of a paper in one picture: the difference found, beside the smallest that would matter."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowexp.cli.recipes.claims import STANDARD_ERRORS
from flowexp.records.figures import COLOURS

Claims = Sequence[Mapping[str, Any]]  # each with `claim`, `state` and `effect`, as claims.json has them
END = 12.0  # of the axis, in units of what matters; an effect beyond it lies at the end, as a triangle
LONGEST = 104  # letters of a claim
_SOURCE = re.compile(r" \(((?:LCF|VD|ours)[^,;)]*)[^)]*\)")
LOOKS = {
    "supported": (COLOURS[2], "o", "supported"),
    "refuted": (COLOURS[1], "s", "refuted"),
    "not testable at this scale": ("0.55", "D", "not decided by three seeds"),
}


def draw_verdicts(claims: Claims) -> Figure:
    """A row for each claim that a difference over seeds decided: its mean with 2 standard errors, coloured by verdict.

    The shaded part is where a difference matters. Filled points are claims that there is a difference, hollow ones
    claims that there is none.
    """
    shown = [claim for claim in claims if claim.get("effect")]
    figure = Figure(figsize=(10.5, 0.23 * len(shown) + 1.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.axvspan(1, 1.25 * END, color=COLOURS[2], alpha=0.07, linewidth=0)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.axvline(1, color=COLOURS[2], linewidth=0.8, linestyle="--")
    for place, claim in enumerate(shown):
        _draw_claim(axes, place, claim)
        axes.text(
            1.01,
            place,
            source(str(claim["claim"])),
            fontsize=6.5,
            color="0.45",
            va="center",
            transform=axes.get_yaxis_transform(),
        )
    axes.set_xscale("symlog", linthresh=2)
    axes.set_xlim(-1.25 * END, 1.25 * END)
    axes.set_xticks([-10, -5, -2, -1, 0, 1, 2, 5, 10], ["-10", "-5", "-2", "-1", "0", "1", "2", "5", "10"])
    axes.minorticks_off()
    axes.set_ylim(len(shown) - 0.4, -0.6)  # the first claim on top
    axes.set_yticks(range(len(shown)), [short(str(claim["claim"])) for claim in shown], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.2, linewidth=0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for colour, marker, label in LOOKS.values():
        axes.plot([], [], marker, color=colour, label=label)
    axes.plot([], [], "o", markerfacecolor="white", markeredgecolor="0.3", label="a claim of no difference")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.supxlabel(
        "difference, in units of the smallest that its rule lets count (2 standard errors over seeds)", fontsize=9
    )
    return figure


def _draw_claim(axes: Axes, place: int, claim: Mapping[str, Any]) -> None:
    colour, marker, _ = LOOKS[claim["state"]]
    mean, error, claimed = (claim["effect"][key] for key in ("mean", "standard_error", "claimed"))
    at = min(max(mean, -END), END)
    if at != mean:
        marker = ">" if mean > 0 else "<"
    low, high = (min(max(mean + side * STANDARD_ERRORS * error, -END), END) for side in (-1, 1))
    axes.plot([low, high], [place, place], color=colour, linewidth=1.4)
    axes.plot(at, place, marker, color=colour, markersize=5, markerfacecolor=colour if claimed else "white")


def short(claim: str) -> str:
    """A claim without its source, cut where it is long.

    >>> short("Features do not degrade (LCF Figure 13), with equal steps")
    'Features do not degrade, with equal steps'
    """
    words = _SOURCE.sub("", claim)
    return words if len(words) <= LONGEST else words[: LONGEST - 1].rstrip(" ,") + "…"


def source(claim: str) -> str:
    """Where the paper makes the claim.

    >>> source("The scale matters (VD Table 5; FID 7.58 against 8.36)")
    'VD Table 5'
    """
    found = _SOURCE.search(claim)
    return found[1] if found else ""
