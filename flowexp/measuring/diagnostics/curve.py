"""What a diagnostic returns: one named point for each noise level."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar


@dataclass(frozen=True)
class LevelPoint:
    """The values at one noise level t in [0, 1]; a diagnostic adds its fields."""

    t: float

    def row(self) -> dict[str, Any]:
        """The point as a row of a table: its fields."""
        return asdict(self)


Point = TypeVar("Point", bound=LevelPoint)


@dataclass(frozen=True)
class Curve(Generic[Point]):
    """Points of one kind, ascending in t whatever order they come in, so that processes can share the levels.

    Raises ValueError without any point.
    """

    points: tuple[Point, ...]

    def __init__(self, points: Iterable[Point]) -> None:
        ordered = tuple(sorted(points, key=lambda point: point.t))
        if not ordered:
            raise ValueError("a curve needs at least one noise level, got none")
        object.__setattr__(self, "points", ordered)

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[Point]:
        return iter(self.points)

    @property
    def levels(self) -> list[float]:
        """The noise levels, ascending."""
        return [point.t for point in self.points]

    @property
    def data_end(self) -> Point:
        """The point of least noise."""
        return self.points[0]

    @property
    def noise_end(self) -> Point:
        """The point of most noise."""
        return self.points[-1]

    def values(self, name: str) -> list[float]:
        """One field along the curve."""
        return [getattr(point, name) for point in self.points]

    def rows(self) -> list[dict[str, Any]]:
        """The curve as a table: a row for each level."""
        return [point.row() for point in self.points]
