from __future__ import annotations

from dataclasses import dataclass

import pytest

from flowexp.measuring.diagnostics import Curve, LevelPoint


@dataclass(frozen=True)
class Height(LevelPoint):
    height: float


def test_points_ascend_in_t_whatever_order_they_come_in():
    curve = Curve([Height(0.5, 2.0), Height(0.1, 3.0), Height(0.9, 1.0)])
    assert curve.levels == [0.1, 0.5, 0.9] and curve.values("height") == [3.0, 2.0, 1.0]
    assert (curve.data_end.t, curve.noise_end.t, len(curve)) == (0.1, 0.9, 3)
    assert curve.rows()[0] == {"t": 0.1, "height": 3.0}
    assert Curve(list(curve)) == curve


def test_a_curve_has_points():
    with pytest.raises(ValueError, match="at least one noise level"):
        Curve([])
