from __future__ import annotations

import pytest
import torch

from flowexp.flow.time import as_noise_level, expand, noise_level, of_thousand, progress


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0, torch.tensor([0.0, 0.25, 1.0])])
def test_progress_and_noise_level_undo_each_other(t: float | torch.Tensor):
    assert torch.equal(torch.as_tensor(noise_level(progress(t))), torch.as_tensor(t))


def test_sampling_begins_at_noise_and_ends_at_data():
    assert (progress(1.0), progress(0.0)) == (0.0, 1.0)


def test_progress_keeps_the_dtype():
    assert progress(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("level", [0, 0.02, 0.5, 1, 1.0])
def test_a_level_is_itself_however_it_is_spelt(level: float):
    assert as_noise_level(level) == level
    assert isinstance(as_noise_level(level), float)


@pytest.mark.parametrize(
    ("T", "level"), [(0, 0.0), (0.5, 0.0005), (1, 0.001), (1.0, 0.001), (20, 0.02), (100.0, 0.1), (1000, 1.0)]
)
def test_a_time_step_counts_of_a_thousand_however_it_is_spelt(T: float, level: float):
    assert of_thousand(T) == level
    assert isinstance(of_thousand(T), float)


WRONG = [-1, -0.1, 1000.5, float("nan"), float("inf"), True, None, "0.5", [0.5]]


@pytest.mark.parametrize("level", [*WRONG, 1.001, 20, 1000])
def test_a_level_outside_the_path_is_refused(level: float):
    with pytest.raises(ValueError, match=r"callbacks.probe.levels must be a noise level in \[0, 1\]"):
        as_noise_level(level, "callbacks.probe.levels")


@pytest.mark.parametrize("T", WRONG)
def test_a_time_step_outside_the_path_is_refused(T: float):
    with pytest.raises(ValueError, match=r"objective.T_min counts noise levels of 1000 and must lie in \[0, 1000\]"):
        of_thousand(T, "objective.T_min")


def test_a_time_step_in_the_place_of_a_level_is_told_the_level():
    with pytest.raises(ValueError, match=r"got 20: 20 of 1000 is 0\.02"):
        as_noise_level(20)


def test_expand_multiplies_rows():
    t, x = torch.tensor([2.0, 3.0]), torch.ones(2, 3, 4, 5)
    assert expand(t, x).shape == (2, 1, 1, 1)
    assert torch.equal((expand(t, x) * x)[:, 0, 0, 0], t)
    assert expand(t, t).shape == (2,)


@pytest.mark.parametrize("t", [torch.zeros(3), torch.zeros(()), torch.zeros(2, 1)])
def test_expand_wants_one_time_per_row(t: torch.Tensor):
    with pytest.raises(ValueError, match="one time per row"):
        expand(t, torch.zeros(2, 3))
