"""The three objectives against the papers, written out as loops, and against each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowexp.backbones import Backbone, State, create_backbone
from flowexp.objectives import FlowMatching, LocalContrastiveFlow, MagnitudeAwareFlowMatching
from flowexp.training.step_draws import StepKey, TrainingBatch


def small_backbone(**options) -> Backbone:
    """A network of 3 blocks whose output is not zero, so that every gradient flows."""
    torch.manual_seed(0)
    backbone = create_backbone("dit_nano2", resolution=8, channels=1, depth=3, width=16, heads=2, **options)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return backbone


def batch_at(t: list[float], seed: int = 0) -> TrainingBatch:
    generator = torch.Generator().manual_seed(seed)
    data, noise = torch.randn(2, len(t), 1, 8, 8, generator=generator)
    return TrainingBatch(data=data, noise=noise, t=torch.tensor(t))


def gradients(module: FlowMatching, batch: TrainingBatch) -> dict[str, Tensor]:
    module.zero_grad()
    module.losses(batch).loss.backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}


def algorithm_1(module: LocalContrastiveFlow, batch: TrainingBatch, tau: float, lam: float) -> Tensor:
    """LCF Algorithm 1, lines 4 to 8, one row after the other; distances and errors are means over dimensions."""
    net, tap, t_min = module.backbone, module.tap, module.t_min

    def h(i: int, t: float) -> Tensor:
        xt = (1 - t) * batch.data[i] + t * batch.noise[i]
        return net.features(xt[None], torch.tensor([t]), taps=[tap])[tap].flatten()

    fm, contrast = [], []
    for i, t in enumerate(batch.t.tolist()):
        if t >= t_min:
            xt = (1 - t) * batch.data[i] + t * batch.noise[i]
            v = net(xt[None], torch.tensor([t]))[0]
            fm.append(((v - (batch.noise[i] - batch.data[i])) ** 2).mean())
        else:
            z, positive = h(i, t), h(i, t_min).detach()
            numerator = math.e ** (-((z - positive) ** 2).mean() / tau)
            denominator = sum(
                math.e ** (-((z - h(j, tj).detach()) ** 2).mean() / tau) for j, tj in enumerate(batch.t.tolist())
            )
            contrast.append(-(numerator / denominator).log())
    return sum(fm) / len(fm) + lam * sum(contrast) / len(contrast)


def test_fm_is_the_mean_squared_velocity_error() -> None:
    module, batch = FlowMatching(small_backbone()), batch_at([0.1, 0.5, 0.9])
    t = batch.t[:, None, None, None]
    v = module.backbone((1 - t) * batch.data + t * batch.noise, batch.t)
    losses = module.losses(batch)
    torch.testing.assert_close(losses.loss, ((v - (batch.noise - batch.data)) ** 2).mean())
    torch.testing.assert_close(losses.error.mean(), losses.loss.detach())


@pytest.mark.parametrize("t", [[0.01, 0.5, 0.03, 0.9, 0.2], [0.04, 0.01, 0.9]])
def test_lcf_is_algorithm_1(t: list[float]) -> None:
    module, batch = LocalContrastiveFlow(backbone=small_backbone(), T_min=50, tau=0.3, lam=0.7), batch_at(t)
    expected = algorithm_1(module, batch, tau=0.3, lam=0.7)
    torch.testing.assert_close(module.losses(batch).loss, expected, rtol=1e-5, atol=1e-5)
    module.zero_grad()
    expected.backward()
    by_loops = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}
    for name, gradient in gradients(module, batch).items():
        torch.testing.assert_close(gradient, by_loops[name], rtol=1e-4, atol=1e-5, msg=name)


def test_lcf_without_a_low_row_is_fm() -> None:
    backbone, batch = small_backbone(), batch_at([0.3, 0.5, 0.9])
    fm, lcf = FlowMatching(backbone), LocalContrastiveFlow(backbone=backbone, T_min=20)
    torch.testing.assert_close(fm.losses(batch).loss, lcf.losses(batch).loss)
    for ours, base in zip(gradients(lcf, batch).values(), gradients(fm, batch).values(), strict=True):
        torch.testing.assert_close(ours, base)


@pytest.mark.parametrize(
    ("t", "options", "copies"), [([0.3, 0.9], {}, 0), ([0.01, 0.9], {}, 1), ([0.01, 0.9], {"regress_below": True}, 0)]
)
def test_what_the_tap_passes_on_is_copied_only_where_a_row_stays_behind(
    t: list[float], options: dict, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, select = [], State.select
    monkeypatch.setattr(State, "select", lambda state, rows: (taken.append(rows), select(state, rows))[1])
    LocalContrastiveFlow(backbone=small_backbone(), t_min=0.1, tap=2, **options).losses(batch_at(t))
    assert len(taken) == copies


def test_rows_below_t_min_train_no_block_behind_the_tap() -> None:
    module = LocalContrastiveFlow(backbone=small_backbone(), t_min=0.5, tap=2)
    grads = gradients(module, batch_at([0.1, 0.2, 0.3]))
    assert grads["backbone.blocks.1.mlp.fc1.weight"].abs().sum() > 0
    assert grads["backbone.blocks.2.mlp.fc1.weight"].abs().sum() == 0
    assert grads["backbone.final_layer.linear.weight"].abs().sum() == 0


def test_the_contrast_has_no_gradient_without_noise_between_the_anchor_and_its_positive() -> None:
    """The positive is detached: with the anchor at T_min itself the two coincide and only the negatives push."""
    module = LocalContrastiveFlow(backbone=small_backbone(), T_min=50)
    losses = module.losses(batch_at([0.05 - 1e-7, 0.6]))
    assert losses.terms["contrast"] > 0  # -log 1 / (1 + something)
    assert losses.terms["contrast"] < math.log(2) + 1e-4


@pytest.mark.parametrize("share", [True, False])
def test_positives_share_their_noise_or_draw_fresh_noise(share: bool) -> None:
    module = LocalContrastiveFlow(backbone=small_backbone(), T_min=50, shared_noise=share)
    near = LocalContrastiveFlow(backbone=module.backbone, T_min=50, shared_noise=True)
    batch = batch_at([0.04, 0.9])
    assert torch.equal(module.losses(batch).loss, near.losses(batch).loss) is share


@pytest.mark.parametrize("switch", [{"denominator": "eq14"}, {"denominator": "infonce"}, {"pooling": "mean"},
                                    {"normalize": True, "distance_scale": "sum"}, {"tap": 1}])  # fmt: skip
def test_every_switch_of_lcf_changes_the_loss(switch: dict) -> None:
    backbone, batch = small_backbone(), batch_at([0.01, 0.04, 0.5, 0.9])
    default = LocalContrastiveFlow(backbone=backbone, T_min=50).losses(batch).loss
    assert not torch.equal(LocalContrastiveFlow(backbone=backbone, T_min=50, **switch).losses(batch).loss, default)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positives_without_gradient_do_not_take_the_gradient_of_the_anchors(dtype: torch.dtype) -> None:
    """Under autocast a weight cast within no_grad would be reused without its gradient."""
    module = LocalContrastiveFlow(backbone=small_backbone(), T_min=50)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        grads = gradients(module, batch_at([0.01, 0.6]))
    assert all(g.abs().sum() > 0 for n, g in grads.items() if "pos_embed" not in n and "bias" not in n)


def test_mafm_with_lambda_zero_is_fm() -> None:
    backbone, batch = small_backbone(), batch_at([0.3, 0.5, 0.9])
    fm, mafm = FlowMatching(backbone), MagnitudeAwareFlowMatching(backbone=backbone, lam=0.0)
    torch.testing.assert_close(fm.losses(batch).loss, mafm.losses(batch).loss)


def test_mafm_adds_the_weighted_difference_of_rms_norms() -> None:
    module, batch = MagnitudeAwareFlowMatching(backbone=small_backbone(), lam=0.5), batch_at([0.3, 0.5, 0.9])
    extra = 0.0
    for i, t in enumerate(batch.t.tolist()):
        xt = (1 - t) * batch.data[i] + t * batch.noise[i]
        v, target = module.backbone(xt[None], torch.tensor([t])), batch.noise[i] - batch.data[i]
        extra += t * float(v.detach().square().mean().sqrt() - target.square().mean().sqrt()) ** 2 / 3
    fm = FlowMatching(module.backbone).losses(batch).loss
    torch.testing.assert_close(module.losses(batch).loss, fm + 0.5 * extra)


@pytest.mark.parametrize("world_size", [2, 4])
def test_draws_of_several_processes_are_those_of_one(world_size: int) -> None:
    module = FlowMatching(small_backbone(num_classes=10, label_dropout=0.5))
    data, label = torch.randn(8, 1, 8, 8), torch.arange(8)
    whole = module.draw(data, label, StepKey(seed=1, step=2, part=3))
    for rank in range(world_size):
        rows = slice(rank * 8 // world_size, (rank + 1) * 8 // world_size)
        part = module.draw(data[rows], label[rows], StepKey(1, 2, 3, rank, world_size))
        assert torch.equal(part.t, whole.t[rows])
        assert torch.equal(part.noise, whole.noise[rows])
        assert torch.equal(part.label, whole.label[rows])
    assert (whole.label == 10).any() and (whole.label != 10).any()


def test_draws_change_with_seed_step_and_part() -> None:
    module = FlowMatching(small_backbone())
    data, label = torch.randn(4, 1, 8, 8), torch.arange(4)
    keys = [StepKey(0, 0, 0), StepKey(1, 0, 0), StepKey(0, 1, 0), StepKey(0, 0, 1)]
    noises = [module.draw(data, label, key).noise for key in keys]
    assert all(not torch.equal(noises[0], other) for other in noises[1:])


@pytest.mark.parametrize(
    "wrong", [{"T_min": 2000}, {"tau": 0.0}, {"lam": -1.0}, {"tap": 4}, {"denominator": "all"}, {"contrasts": "rank"}]
)
def test_wrong_settings_of_lcf_say_what_is_needed(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"must|got"):
        LocalContrastiveFlow(backbone=small_backbone(), **{"T_min": 50, **wrong}).losses(batch_at([0.01, 0.9]))


@pytest.mark.slow
def test_samples_do_not_depend_on_the_batch_they_are_drawn_in() -> None:
    module = FlowMatching(small_backbone(num_classes=3))
    with module.averaged():
        together = module.sample(range(4), seed=5).images
        alone = module.sample([2], seed=5).images
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5)
