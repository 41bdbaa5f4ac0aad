"""LCF's ablations, ExFM, parameterizations and terms: what each adds to an objective, by loops and by identities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone, create_backbone
from flowexp.cli.composing import Configs
from flowexp.flow.parameterization import Parameterization
from flowexp.objectives import (
    ExplicitFlowMatching,
    FlowMatching,
    LocalContrastiveFlow,
    MagnitudeAwareFlowMatching,
)
from flowexp.objectives.terms import Step, Term
from flowexp.training.couplings import MinibatchOT
from flowexp.training.step_draws import StepKey, TrainingBatch

LOW_AND_HIGH = [0.01, 0.5, 0.03, 0.9, 0.2]
OBJECTIVES = [FlowMatching, LocalContrastiveFlow, MagnitudeAwareFlowMatching, ExplicitFlowMatching]


def small_backbone(**options) -> Backbone:
    torch.manual_seed(0)
    backbone = create_backbone("dit_nano2", resolution=8, channels=1, depth=3, width=16, heads=2, **options)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return backbone


def batch_at(t: list[float]) -> TrainingBatch:
    data, noise = torch.randn(2, len(t), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return TrainingBatch(data=data, noise=noise, t=torch.tensor(t))


class MeanSquare(Term):
    """The mean square of a block's tokens, times a trained scalar."""

    name = "mean_square"

    def __init__(self, tap: int, lam: float = 0.3) -> None:
        super().__init__(lam)
        self.tap = tap
        self.seen: list[Step] = []
        self.steps = 0

    @property
    def taps(self) -> tuple[int, ...]:
        return (self.tap,)

    def attach(self, backbone: Backbone) -> None:
        self.scale = nn.Parameter(torch.full((backbone.width,), 0.5))

    def forward(self, step: Step) -> Tensor:
        self.seen.append(step)
        return (self.scale * step.features[self.tap].tokens.square()).mean()

    def after_step(self, backbone: Backbone) -> None:
        self.steps += 1


# --- LCF Figure 6 ----------------------------------------------------------------------------------------------------


def test_truncated_fm_is_fm_of_the_rows_above_t_min() -> None:
    truncated = LocalContrastiveFlow(backbone=small_backbone(), T_min=50, lam=0.0)
    losses = truncated.losses(batch_at(LOW_AND_HIGH))
    everyone = FlowMatching(truncated.backbone).losses(batch_at(LOW_AND_HIGH))
    torch.testing.assert_close(losses.loss, everyone.error[[1, 3, 4]].mean())
    assert set(losses.terms) == {"velocity"}


def test_fm_with_the_contrast_is_fm_plus_lcfs_contrast() -> None:
    batch, backbone = batch_at(LOW_AND_HIGH), small_backbone()
    both = LocalContrastiveFlow(backbone=backbone, T_min=50, lam=0.7, regress_below=True).losses(batch)
    lcf = LocalContrastiveFlow(backbone=backbone, T_min=50, lam=0.7).losses(batch)
    fm = FlowMatching(backbone).losses(batch)
    torch.testing.assert_close(both.loss, fm.loss + 0.7 * lcf.terms["contrast"])
    torch.testing.assert_close(both.error, fm.error)
    torch.testing.assert_close(both.t, batch.t)


@pytest.mark.parametrize(("positive_at", "level"), [("T_min", 0.05), ("clean", 0.0)])
def test_the_positive_of_an_anchor_is_its_image_at_t_min_or_clean(positive_at, level) -> None:
    """Row by row: mean-pooled unit vectors, Algorithm 1's denominator."""
    form = {"pooling": "mean", "normalize": True, "distance_scale": "sum"}
    module = LocalContrastiveFlow(backbone=small_backbone(), T_min=50, tap=2, positive_at=positive_at, **form)
    batch = batch_at(LOW_AND_HIGH)

    def unit(row: int, t: float) -> Tensor:
        xt = ((1 - t) * batch.data[row] + t * batch.noise[row])[None]
        mean = module.backbone.features(xt, torch.tensor([t]), taps=[2])[2][0].mean(dim=0)
        return mean / mean.norm()

    rows = [unit(row, t) for row, t in enumerate(LOW_AND_HIGH)]
    errors = []
    for anchor in (0, 2):
        pull = ((rows[anchor] - unit(anchor, level)) ** 2).sum() / 0.5
        errors.append(pull + sum(torch.exp(-((rows[anchor] - row) ** 2).sum() / 0.5) for row in rows).log())
    torch.testing.assert_close(module.losses(batch).terms["contrast"], sum(errors) / 2)


def test_the_practitioners_form_is_a_preset_and_leaves_lcfs_own_keys_alone() -> None:
    own, theirs = (Configs().compose("train", [f"objective={name}"]).objective for name in ("lcf", "lcf_practitioners"))
    assert "positive_at" not in own
    changed = {key: value for key, value in theirs.items() if own.get(key) != value}
    assert changed == {"pooling": "mean", "normalize": True, "distance_scale": "sum", "positive_at": "T_min"}


# --- ExFM ------------------------------------------------------------------------------------------------------------


def test_exfm_regresses_the_mean_velocity_of_the_candidates() -> None:
    module, batch = ExplicitFlowMatching(backbone=small_backbone()), batch_at([0.3, 0.6, 0.9])
    target = []
    for i, t in enumerate(batch.t.tolist()):
        xt = (1 - t) * batch.data[i] + t * batch.noise[i]
        weights = torch.stack([-((xt - (1 - t) * x) ** 2).sum() / (2 * t * t) for x in batch.data]).softmax(0)
        target.append((xt - sum(w * x for w, x in zip(weights, batch.data, strict=True))) / t)
    t = batch.t[:, None, None, None]
    v = module.backbone((1 - t) * batch.data + t * batch.noise, batch.t)
    torch.testing.assert_close(module.losses(batch).loss, ((v - torch.stack(target)) ** 2).mean())


@pytest.mark.parametrize("levels", [[0.02, 0.05, 0.1], [1e-5, 1e-4, 9e-4], [0.0, 2e-3, 0.5e-3]])
def test_exfm_is_fm_near_clean_data(levels: list[float]) -> None:
    backbone, batch = small_backbone(), batch_at(levels)
    exfm, fm = ExplicitFlowMatching(backbone=backbone).losses(batch), FlowMatching(backbone).losses(batch)
    torch.testing.assert_close(exfm.loss, fm.loss, rtol=1e-4, atol=1e-4)


def test_candidates_of_all_processes_are_the_same() -> None:
    ranks = [StepKey(3, 5, rank=rank, world_size=2).candidates() for rank in (0, 1)]
    assert torch.equal(*(torch.randint(1000, (8,), generator=generator) for generator in ranks))


# --- parameterizations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES[:3])  # ExFM regresses an average, see test_explicit
def test_x_prediction_regresses_the_data(objective) -> None:
    module = objective(backbone=small_backbone(), parameterization=Parameterization("data", "data"))
    batch = batch_at([0.3, 0.5, 0.9])
    t = batch.t[:, None, None, None]
    output = module.backbone((1 - t) * batch.data + t * batch.noise, batch.t)
    torch.testing.assert_close(module.losses(batch).terms["velocity"], ((output - batch.data) ** 2).mean().detach())


@pytest.mark.parametrize("space", ["velocity", "data", "noise"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_errors_told_of_training_are_of_the_velocity_in_whatever_space_the_loss_is(objective, space) -> None:
    """So that the curve of training batches over t has the unit of that of test images."""
    batch, parameterization = batch_at([0.02, 0.5, 0.9, 0.3]), Parameterization("data", space)
    module = objective(backbone=small_backbone(), parameterization=parameterization)
    rows = torch.arange(4)[batch.t >= getattr(module, "t_min", 0.0)]
    xt = module.interpolant.interpolate(batch.data, batch.noise, batch.t)
    target = module.target(batch, xt, batch.t)
    perfect = module.interpolant.convert(target, xt, batch.t, "velocity", "data")
    divisor = batch.t.clamp(min=parameterization.clamp)[:, None, None, None]
    expected = ((module.backbone(xt, batch.t) - perfect) / divisor).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(module.losses(batch).error, expected[rows].detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("form", ["rms_squared", "l1", "squared_norms"])
def test_mafm_asks_no_length_of_a_perfect_prediction_that_its_clamp_cannot_give(prediction, form) -> None:
    """Where a divisor is clamped, a perfect output stands for a shorter velocity: the target has that length too."""
    batch = batch_at([0.001, 0.02, 0.5, 0.98, 0.999])
    module = MagnitudeAwareFlowMatching(
        backbone=small_backbone(), parameterization=Parameterization(prediction, prediction), form=form
    )
    module.backbone.decode = lambda state: getattr(batch, prediction)
    assert module.losses(batch).terms["magnitude"].item() == pytest.approx(0, abs=1e-5)


def test_samplers_see_velocities_whatever_is_predicted() -> None:
    module = FlowMatching(small_backbone(), parameterization=Parameterization("data", "data"))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.5, 0.25])
    expected = (x - module.backbone(x, t)) / t.view(-1, 1, 1, 1)
    torch.testing.assert_close(module.velocity_network(x, t), expected)


# --- terms -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("tap", [1, 2, 3])
def test_a_term_is_added_to_any_objective(objective, tap) -> None:
    backbone, batch = small_backbone(), batch_at([0.3, 0.5, 0.9])
    plain = objective(backbone=backbone).losses(batch)
    losses = objective(backbone=backbone, terms={"a": MeanSquare(tap)}).losses(batch)
    t = batch.t[:, None, None, None]
    xt = (1 - t) * batch.data + t * batch.noise
    expected = 0.5 * backbone.features(xt, batch.t, taps=[tap])[tap].square().mean()
    torch.testing.assert_close(losses.terms["mean_square"], expected.detach())
    torch.testing.assert_close(losses.loss, plain.loss + 0.3 * expected)


@pytest.mark.slow
@pytest.mark.parametrize(("tap", "rows"), [(1, None), (2, None), (3, [1, 3, 4])])
def test_behind_lcfs_tap_a_term_sees_the_regressed_rows(tap, rows) -> None:
    term = MeanSquare(tap)
    module = LocalContrastiveFlow(backbone=small_backbone(), T_min=50, tap=2, terms={"a": term})
    module.losses(batch_at(LOW_AND_HIGH)).loss.backward()
    seen = term.seen[0].features[tap]
    assert (seen.rows is None) if rows is None else seen.rows.tolist() == rows
    assert len(seen.tokens) == len(seen.of(term.seen[0].batch.data)) == (5 if rows is None else 3)


def test_a_terms_parameters_are_trained_and_not_averaged() -> None:
    module = FlowMatching(small_backbone(), terms={"a": MeanSquare(2)})
    optimizer = module.configure_optimizers()["optimizer"]
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(module.terms["a"].scale) in trained
    module.on_train_start()
    assert not any("terms" in name for name in module.ema.state_dict()["averages"])


def test_optimal_transport_pairs_the_noise_of_a_step() -> None:
    data = torch.randn(6, 1, 8, 8)
    module = FlowMatching(small_backbone(), coupling=MinibatchOT())
    batch = module.draw(data, torch.zeros(6, dtype=torch.long), StepKey(0, 0))
    independent = FlowMatching(small_backbone()).draw(data, torch.zeros(6, dtype=torch.long), StepKey(0, 0))
    assert (batch.data - batch.noise).square().sum() < (independent.data - independent.noise).square().sum()
    torch.testing.assert_close(batch.noise.sum(0), independent.noise.sum(0))
