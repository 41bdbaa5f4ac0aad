"""What numbers are called on screens, in few words, and which way is better; files keep their keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from flowexp.records.score_name import INCEPTION, ScoreName

Better = Literal["less", "more"]

# In the order in which screens that lack room leave them out, the last first.
_SCORES: dict[str, tuple[str, Better]] = {
    "frechet": ("Fréchet", "less"),
    "sfrechet": ("sFréchet", "less"),
    "kid": ("MMD", "less"),
    "inception_score": ("inception score", "more"),
    "precision": ("precision", "more"),
    "recall": ("recall", "more"),
}
_NUMBERS: dict[str, tuple[str, Better | None]] = {
    "noise_levels/loss": ("v error", "less"),
    "probe/at_clean": ("probe clean", "more"),
    "probe/dip": ("probe dip", None),  # none within chance
    "noise_levels/velocity_ratio": ("|v|/|v*|", None),
    "probe/peak": ("probe peak", "more"),
}
_MINOR = ("t_peak", "dip_se")  # of any probe
_OTHER_READINGS = ("probe_paper/", "knn/")


def short_name(key: str) -> str:
    """`Fréchet` of frechet/efficientnet_lite, `FID` of fid; the key where there is no shorter name."""
    if key in _NUMBERS:
        return _NUMBERS[key][0]
    score = ScoreName.of(key)
    if score.encoder == INCEPTION and score.score in ("frechet", "sfrechet", "kid"):
        return str(score).replace("fid", "FID").replace("kid", "KID")
    return _SCORES[score.score][0] if score.score in _SCORES else key


def better(key: str) -> Better | None:
    """Whether less or more of a number is better; None where neither is, or it is not known."""
    if key in _NUMBERS:
        return _NUMBERS[key][1]
    return _SCORES[ScoreName.of(key).score][1] if ScoreName.of(key).score in _SCORES else None


def by_weight(keys: Iterable[str]) -> list[str]:
    """The keys with those first that a narrow screen shows: scores, the known ones, others, and details of probes."""
    return sorted(keys, key=_weight)


def _weight(key: str) -> tuple[int, int]:
    score = ScoreName.of(key).score
    if score in _SCORES:
        return 0, list(_SCORES).index(score)
    if key in _NUMBERS:
        return 1, list(_NUMBERS).index(key)
    return (3 if is_detail(key) else 2), 0


def is_detail(key: str) -> bool:
    """Whether it is a number of a probe that a screen can do without."""
    return key.startswith(_OTHER_READINGS) or key.rpartition("/")[2] in _MINOR
