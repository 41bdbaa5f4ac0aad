"""The names of scores of samples, in one place for those that give them and those that look for them in a table."""

from __future__ import annotations

from dataclasses import dataclass

INCEPTION = "inception"


@dataclass(frozen=True)
class ScoreName:
    """A score of samples, and the feature network that it is of; `str(name)` is its key and the column of a table.

    Only Inception's scores bear the papers' names: `fid`, `fid_low`, `sfid`. Others are `frechet/dinov2`, and
    `mmd/dinov2` for the kernel distance, since KID is Inception's as well.

    Arguments:
        score: as metrics call it, such as "frechet", "frechet_low" or "precision".
        encoder: name of the feature network.
    """

    score: str
    encoder: str

    def __str__(self) -> str:
        if self.encoder == INCEPTION:
            return self.score.replace("frechet", "fid")
        return f"{self.score.replace('kid', 'mmd')}/{self.encoder}"

    @classmethod
    def of(cls, key: str) -> ScoreName:
        """The name behind a key: `ScoreName.of(str(name)) == name`."""
        score, slash, encoder = key.partition("/")
        if slash:
            return cls(score.replace("mmd", "kid"), encoder)
        return cls(f"frechet{score.removeprefix('fid')}" if score.startswith("fid") else score, INCEPTION)
