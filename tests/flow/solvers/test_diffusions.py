"""The forms of D against SiT's own, on its reversed axis (transport/path.py)."""

from __future__ import annotations

import math

import pytest
import torch

from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.flow.solvers import DIFFUSIONS

T = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
SIT = 1 - T  # SiT's t

FORMS = {
    "constant": lambda n: n * torch.ones_like(SIT),
    "linear": lambda n: n * (1 - SIT),
    "decreasing": lambda n: 0.25 * (n * torch.cos(math.pi * SIT) + 1) ** 2,
    "increasing_decreasing": lambda n: n * torch.sin(math.pi * SIT) ** 2,
}


@pytest.mark.parametrize("n", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_time_alone_is_sit_s(form: str, n: float):
    for path in (Linear(), GVP(), SBDMVP()):
        torch.testing.assert_close(DIFFUSIONS[form](path, T, n), FORMS[form](n))


def test_sigma_is_the_noise_s_coefficient():
    torch.testing.assert_close(DIFFUSIONS["sigma"](Linear(), T, 2.0), 2 * (1 - SIT))
    torch.testing.assert_close(DIFFUSIONS["sigma"](GVP(), T, 2.0), 2 * torch.cos(math.pi / 2 * SIT))


def test_sbdm_is_the_forward_diffusion_of_each_path():
    """alpha'/alpha sigma^2 - sigma sigma' in SiT's time, written out; beta / 2 for VP."""
    torch.testing.assert_close(DIFFUSIONS["sbdm"](Linear(), T, 1.0), (1 - SIT) ** 2 / SIT + (1 - SIT))
    torch.testing.assert_close(DIFFUSIONS["sbdm"](GVP(), T, 1.0), math.pi / 2 / torch.tan(math.pi / 2 * SIT))
    torch.testing.assert_close(DIFFUSIONS["sbdm"](SBDMVP(), T, 3.0), 1.5 * (0.1 + T * 19.9))


def test_only_sbdm_on_a_path_to_pure_noise_is_infinite_there():
    noise_end = torch.ones(1, dtype=torch.float64)
    infinite = {
        (form, path.name)
        for form in DIFFUSIONS
        for path in (Linear(), GVP(), SBDMVP())
        if not DIFFUSIONS[form](path, noise_end, 1.0).isfinite()
    }
    assert infinite == {("sbdm", "linear"), ("sbdm", "gvp")}


def test_every_form_of_sit_is_there():
    assert DIFFUSIONS.keys() == FORMS.keys() | {"sigma", "sbdm"}
