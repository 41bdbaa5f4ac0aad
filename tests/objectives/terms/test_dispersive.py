"""The dispersive term: which block it reads, and whom it trains."""

from __future__ import annotations

import math

import pytest
import torch

from flowexp.objectives.terms import Dispersive


def test_it_is_the_published_formula_of_one_block_loop_by_loop(backbone, make_step):
    term = Dispersive(tau=0.3, tap=2)
    term.attach(backbone)
    step = make_step(2, 3)
    z = step.features[2].tokens.flatten(1).tolist()
    kernel = [math.exp(-sum((a - b) ** 2 for a, b in zip(u, v, strict=True)) / len(u) / 0.3) for u in z for v in z]
    assert term(step).item() == pytest.approx(math.log(sum(kernel) / len(kernel)), rel=1e-4)


def test_by_default_it_reads_the_block_at_a_quarter_of_the_depth(backbone):
    term = Dispersive()
    assert term.taps == ()
    term.attach(backbone)
    assert term.taps == (1,)


@pytest.mark.parametrize("form", ["infonce_l2", "hinge", "covariance"])
def test_it_trains_the_blocks_up_to_the_tap_and_nothing_behind(backbone, make_step, reached, form):
    term = Dispersive(tap=2, form=form)
    term.attach(backbone)
    found = reached(term(make_step(2)), term)
    assert {"blocks.0", "blocks.1", "x_embedder", "t_embedder"} == found
    assert not list(term.parameters()), "nothing of its own that DDP could miss"


def test_only_the_rows_that_reached_the_block_are_compared(backbone, make_step):
    term = Dispersive(tap=1)
    term.attach(backbone)
    some, everyone = make_step(1, rows=[4, 0, 2]), make_step(1)
    torch.testing.assert_close(term(some), term(type(everyone)(**{**vars(everyone), "features": some.features})))
    assert not torch.equal(term(some), term(everyone))
    assert term(make_step(1, rows=[])).item() == 0


@pytest.mark.parametrize(
    ("options", "match"),
    [({"tau": 0.0}, "positive"), ({"lam": -1.0}, "lam"), ({"tap": 5}, r"1\.\.4"), ({"pairs": "all"}, "local")],
)
def test_wrong_settings_are_refused(backbone, options, match):
    with pytest.raises(ValueError, match=match):
        Dispersive(**options).attach(backbone)


def test_pairs_of_all_processes_need_every_row(backbone, make_step, monkeypatch):
    monkeypatch.setattr("flowexp.objectives.terms.dispersive.num_processes", lambda: 2)
    everyone, own = Dispersive(tap=1), Dispersive(tap=1, pairs="local")
    some = make_step(1, rows=[4, 0, 2])
    assert own(some).isfinite()
    with pytest.raises(ValueError, match=r"tap to objective\.tap or less, or pairs=local"):
        everyone(some)
