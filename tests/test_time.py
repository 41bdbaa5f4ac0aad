from __future__ import annotations

import pytest
import torch

from flowexp.time import as_noise_level, expand, noise_level, progress


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0, torch.tensor([0.0, 0.25, 1.0])])
def test_progress_and_noise_level_undo_each_other(t: float | torch.Tensor):
    assert torch.equal(torch.as_tensor(noise_level(progress(t))), torch.as_tensor(t))


def test_sampling_begins_at_noise_and_ends_at_data():
    assert (progress(1.0), progress(0.0)) == (0.0, 1.0)


def test_progress_keeps_the_dtype():
    assert progress(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("T", "level"), [(20, 0.02), (0.02, 0.02), (100, 0.1), (100.0, 0.1), (1, 0.001), (1.0, 1.0), (0, 0.0), (1000, 1.0)]
)
def test_integers_and_floats_above_one_count_out_of_a_thousand(T: float, level: float):
    assert as_noise_level(T) == level
    assert isinstance(as_noise_level(T), float)


@pytest.mark.parametrize("T", [-1, -0.1, 1001, 1000.5, float("nan"), float("inf")])
def test_a_level_outside_the_path_is_refused(T: float):
    with pytest.raises(ValueError, match="noise level"):
        as_noise_level(T)


def test_expand_multiplies_rows():
    t, x = torch.tensor([2.0, 3.0]), torch.ones(2, 3, 4, 5)
    assert expand(t, x).shape == (2, 1, 1, 1)
    assert torch.equal((expand(t, x) * x)[:, 0, 0, 0], t)
    assert expand(t, t).shape == (2,)


@pytest.mark.parametrize("t", [torch.zeros(3), torch.zeros(()), torch.zeros(2, 1)])
def test_expand_wants_one_time_per_row(t: torch.Tensor):
    with pytest.raises(ValueError, match="one time per row"):
        expand(t, torch.zeros(2, 3))
