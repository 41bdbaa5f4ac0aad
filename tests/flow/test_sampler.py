from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from flowexp.flow.interpolants import GVP, SBDMVP, Interpolant, Linear
from flowexp.flow.parameterization import Parameterization, VelocityNetwork
from flowexp.flow.profiles import scale_schedule
from flowexp.flow.randomness import SampleNoise
from flowexp.flow.sampler import Sampler, Samples, ssc_warnings, warn_once
from flowexp.flow.solvers import SOLVERS, Dopri5, Euler, EulerMaruyama, Heun, StochasticHeun
from flowexp.flow.velocity import Scaled

CONF = Path(__file__).parents[2] / "conf"
SHAPE = (4, 3, 3)
every_solver = pytest.mark.parametrize("name", sorted(SOLVERS))
STOCHASTIC = {name: solver for name, solver in SOLVERS.items() if solver.stochastic}
stochastic_solver = pytest.mark.parametrize("name", STOCHASTIC)
deterministic_solver = pytest.mark.parametrize("name", sorted(SOLVERS.keys() - STOCHASTIC.keys()))
fixed_step = pytest.mark.parametrize("name", sorted(SOLVERS.keys() - {"dopri5"}))


class Network:
    """The exact velocity of Gaussian data N(mean(label), s^2) on the linear path; remembers its calls.

    Row by row arithmetic, so that a row's value cannot depend on its batch.
    """

    def __init__(self, s: float = 0.5, null_label: int | None = 3) -> None:
        self.s = s
        self.null_label = null_label
        self.calls: list[tuple[int, float]] = []

    def null_condition(self, label: Tensor | None) -> Tensor | None:
        return None if label is None or self.null_label is None else torch.full_like(label, self.null_label)

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.calls.append((len(x), t[0].item()))
        mean = 0.0 if label is None else label.view(-1, 1, 1, 1) / 2
        t = t.view(-1, 1, 1, 1)
        variance = ((1 - t) * self.s) ** 2 + t**2
        return -mean + (t - (1 - t) * self.s**2) / variance * (x - (1 - t) * mean)


def sample(sampler: Sampler, network: Network | None = None, indices: Sequence[int] = range(4), **options) -> Samples:
    return sampler.sample(network or Network(), Linear(), indices, SHAPE, seed=7, **options)


@pytest.mark.slow
@fixed_step
def test_a_sample_does_not_depend_on_its_batch_or_process(name: str):
    """Not even where every step draws noise."""
    label = torch.tensor([0, 1, 2, 1])
    sampler = Sampler(name, 10, s0=1.1, guidance_scale=1.5, autoguidance_scale=1.5)

    def part(rows: slice) -> Tensor:
        return sample(sampler, indices=range(4)[rows], label=label[rows], guide=Network(s=0.8)).images

    together = part(slice(4))
    assert torch.equal(together, torch.cat([part(slice(i, i + 2)) for i in (0, 2)]))
    assert torch.equal(together, torch.cat([part(slice(i, i + 1)) for i in range(4)]))
    for rank in range(2):  # two processes take turns, as the monitors share the samples out
        assert torch.equal(together[rank::2], part(slice(rank, None, 2)))


@pytest.mark.slow
def test_an_adaptive_sample_depends_on_its_batch_only_within_the_tolerance():
    sampler = Sampler("dopri5", solver_options={"rtol": 1e-6, "atol": 1e-6})
    alone = torch.cat([sample(sampler, indices=[i]).images for i in range(4)])
    torch.testing.assert_close(sample(sampler).images, alone, rtol=1e-4, atol=1e-4)


@every_solver
def test_a_sample_is_a_function_of_seed_and_index(name: str):
    sampler = Sampler(name, 5)
    assert torch.equal(sample(sampler).images, sample(sampler).images)
    other = sampler.sample(Network(), Linear(), range(4), SHAPE, seed=8).images
    assert not torch.equal(sample(sampler).images, other)


def test_a_deterministic_sample_starts_at_the_first_draw():
    expected = Euler(6).solve(Network(), SampleNoise(7, range(4), SHAPE).draw(), Linear())
    assert torch.equal(sample(Sampler("euler", 6)).images, expected.x)


@every_solver
@pytest.mark.parametrize("path", [Linear(), GVP(), SBDMVP()], ids=lambda path: path.name)
def test_every_solver_samples_every_path(name: str, path: Interpolant):
    images = Sampler(name, 5).sample(Network(), path, range(3), SHAPE, seed=0).images
    assert images.isfinite().all()
    assert (images.shape, images.dtype) == ((3, *SHAPE), torch.float32)


@pytest.mark.slow
@every_solver
def test_samples_have_the_mean_and_spread_of_the_data(name: str):
    label = torch.tensor([0, 2]).repeat(100)
    images = Sampler(name, 100).sample(Network(s=0.5), Linear(), range(200), (4, 8, 8), seed=1, label=label).images
    assert images[0::2].mean().item() == pytest.approx(0, abs=0.02)
    assert images[1::2].mean().item() == pytest.approx(1, abs=0.02)
    assert images[0::2].std().item() == pytest.approx(0.5, abs=0.02)


class Questions(TorchFunctionMode):
    """Counts the questions about a tensor's values, each of which would wait for an accelerator."""

    asking = ("item", "tolist", "cpu", "numpy", "__bool__", "__float__", "__int__")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") in self.asking
        return func(*args, **(kwargs or {}))


@fixed_step
@pytest.mark.parametrize(("interval", "asks"), [((0.0, 1.0), False), ((0.0, 0.5), True)])
def test_no_step_waits_for_the_device_unless_guidance_has_an_interval(name: str, interval: tuple, asks: bool):
    counts = []

    class Watched(Network):
        def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            counts.append(questions.count)
            return t.view(-1, 1, 1, 1) * x

    sampler = Sampler(name, 11, s0=1.1, guidance_scale=1.5, guidance_interval=interval, final_jump=0.1)
    with Questions() as questions:
        samples = sample(sampler, Watched(), label=torch.tensor([0, 1, 2, 0]))
    assert counts[-1] - counts[0] == (samples.nfe - 1 if asks else 0)


@pytest.mark.parametrize(
    ("name", "nfe"),
    [("euler", 12), ("euler_maruyama", 12), ("heun", 23), ("stochastic_heun", 23), ("midpoint", 24), ("rk4", 48)],
)
def test_network_calls_are_counted(name: str, nfe: int):
    network = Network()
    assert sample(Sampler(name, 12), network).nfe == len(network.calls) == nfe


def test_no_guidance_costs_nothing():
    network = Network()
    sample(Sampler("euler", 3), network, label=torch.tensor([0, 1, 2, 0]))
    assert [rows for rows, _ in network.calls] == [4, 4, 4]


def test_guidance_doubles_the_batch_and_counts_one_call():
    network = Network()
    samples = sample(Sampler("euler", 3, guidance_scale=1.5), network, label=torch.tensor([0, 1, 2, 0]))
    assert [rows for rows, _ in network.calls] == [8, 8, 8]
    assert samples.nfe == 3


def test_the_guidance_interval_is_one_of_noise_levels():
    network = Network()
    sampler = Sampler("euler", 10, guidance_scale=1.5, guidance_interval=[0.25, 0.75])
    sample(sampler, network, label=torch.tensor([0, 1, 2, 0]))
    doubled = [t for rows, t in network.calls if rows == 8]
    assert doubled == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3])


def test_guided_channels_reach_the_field():
    x, t, label = torch.randn(2, *SHAPE), torch.full((2,), 0.5), torch.tensor([0, 1])
    guided = Sampler(guidance_scale=3.0, guidance_channels=1).velocity_field(Network(), label)(x, t)
    conditional = Network()(x, t, label)
    assert torch.equal(guided[:, 1:], conditional[:, 1:])
    assert not torch.equal(guided[:, :1], conditional[:, :1])


@pytest.mark.parametrize(("null_label", "label"), [(3, None), (None, torch.tensor([0, 1, 2, 0]))])
def test_guidance_without_classes_is_refused(null_label: int | None, label: Tensor | None):
    with pytest.raises(ValueError, match="needs labels"):
        sample(Sampler(guidance_scale=1.5), Network(null_label=null_label), label=label)


def test_autoguidance_calls_both_networks_with_the_same_label_and_counts_one_call():
    network, guide, label = Network(), Network(s=0.8), torch.tensor([0, 1, 2, 0])
    samples = sample(Sampler("euler", 3, autoguidance_scale=2.0), network, label=label, guide=guide)
    assert [rows for rows, _ in network.calls] == [rows for rows, _ in guide.calls] == [4, 4, 4]
    assert samples.nfe == 3
    x, t = torch.randn(4, *SHAPE), torch.full((4,), 0.5)
    guided = Sampler(autoguidance_scale=2.0).velocity_field(network, label, guide)(x, t)
    torch.testing.assert_close(guided, 2 * network(x, t, label) - guide(x, t, label))


def test_autoguidance_by_the_network_itself_changes_nothing():
    guided = sample(Sampler("euler", 5, autoguidance_scale=2.0), guide=Network()).images
    torch.testing.assert_close(guided, sample(Sampler("euler", 5)).images)


def test_a_guide_is_not_called_at_scale_one():
    guide = Network(s=0.8)
    assert torch.equal(sample(Sampler("euler", 5), guide=guide).images, sample(Sampler("euler", 5)).images)
    assert not guide.calls


def test_the_autoguidance_interval_is_one_of_noise_levels():
    guide = Network(s=0.8)
    sample(Sampler("euler", 10, autoguidance_scale=1.5, autoguidance_interval=[0.25, 0.75]), guide=guide)
    assert [t for _, t in guide.calls] == pytest.approx([0.7, 0.6, 0.5, 0.4, 0.3])


def test_autoguidance_works_without_labels_and_guidance_inside_it_with_them():
    assert sample(Sampler("heun", 3, autoguidance_scale=2.0), guide=Network(s=0.8)).images.isfinite().all()
    network, guide = Network(), Network(s=0.8)
    both = Sampler("euler", 3, guidance_scale=1.5, autoguidance_scale=2.0)
    sample(both, network, label=torch.tensor([0, 1, 2, 0]), guide=guide)
    assert [rows for rows, _ in network.calls] == [8, 8, 8]
    assert [rows for rows, _ in guide.calls] == [4, 4, 4]


def test_autoguidance_without_a_guide_says_what_to_do():
    with pytest.raises(ValueError, match=r"autoguidance_scale=2.0 needs a weaker model.*guide=RUN"):
        sample(Sampler(autoguidance_scale=2.0))


@every_solver
@pytest.mark.parametrize("target", ["velocity", "drift"])
def test_ssc_at_one_is_the_baseline_bit_for_bit(name: str, target: str):
    baseline, corrected = Sampler(name, 8), Sampler(name, 8, s0=1.0, s1=1.0, profile="cosine", ssc_target=target)
    assert torch.equal(sample(baseline).images, sample(corrected).images)


@every_solver
def test_ssc_changes_the_samples(name: str):
    assert not torch.equal(sample(Sampler(name, 8)).images, sample(Sampler(name, 8, s0=1.1)).images)


@deterministic_solver
def test_for_an_ode_both_readings_of_ssc_are_one(name: str):
    velocity, drift = (Sampler(name, 8, s0=1.1, ssc_target=target) for target in ("velocity", "drift"))
    assert torch.equal(sample(velocity).images, sample(drift).images)


@pytest.mark.parametrize("solver", [EulerMaruyama(8), StochasticHeun(8)])
@pytest.mark.parametrize("target", ["velocity", "drift"])
def test_ssc_scales_the_score_of_an_sde_or_leaves_it(target: str, solver: EulerMaruyama | StochasticHeun):
    noise, integrator = SampleNoise(7, range(4), SHAPE), solver
    field = Scaled(Network(), 1.1, 1.0, "cosine") if target == "velocity" else Network()
    if target == "drift":
        integrator = replace(solver, drift_scale=scale_schedule("cosine", 1.1, 1.0))
    expected = integrator.solve(field, noise.draw(), Linear(), noise.draw).x
    images = sample(Sampler(solver, s0=1.1, profile="cosine", ssc_target=target)).images
    assert torch.equal(images, expected)


@stochastic_solver
def test_what_ssc_scales_matters_for_an_sde(name: str):
    velocity, drift = (Sampler(name, 8, s0=1.1, ssc_target=target) for target in ("velocity", "drift"))
    assert not torch.equal(sample(velocity).images, sample(drift).images)


@pytest.mark.parametrize("target", ["velocity", "drift"])
@every_solver
def test_ssc_composes_with_both_guidances(name: str, target: str):
    """Scaling the samplers' field, or both networks, is the same: guidance is linear."""
    guided = {"guidance_scale": 1.5, "autoguidance_scale": 2.0}
    label, guide = torch.tensor([0, 1, 2, 1]), Network(s=0.8)
    baseline, one, more = (
        Sampler(name, 6, s0=s, s1=s, profile="constant", ssc_target=target, **guided) for s in (1.0, 1.0, 1.1)
    )
    images = [sample(sampler, label=label, guide=guide).images for sampler in (baseline, one, more)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    if target == "velocity":
        times = Sampler(name, 6, **guided)
        scaled = sample(times, Louder(1.1), label=label, guide=Louder(1.1, s=0.8)).images
        torch.testing.assert_close(images[2], scaled, rtol=1e-3, atol=1e-3)


class Louder(Network):
    """The network's velocity, scaled."""

    def __init__(self, scale: float, s: float = 0.5) -> None:
        super().__init__(s)
        self.scale = scale

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return self.scale * super().__call__(x, t, label)


def test_ssc_follows_its_profile():
    x, t = torch.randn(2, *SHAPE), torch.tensor([1.0, 0.5])
    field = Sampler(s0=1.15, profile="quad_out").velocity_field(Network())
    ratio = field(x, t) / Network()(x, t)
    torch.testing.assert_close(ratio[0], torch.full(SHAPE, 1.15))
    torch.testing.assert_close(ratio[1], torch.full(SHAPE, 1 + 0.15 / 4))


@fixed_step
@pytest.mark.parametrize("level", [0.1, 0.02])
def test_a_final_jump_never_asks_the_network_below_its_level(name: str, level: float):
    network = Network()
    samples = sample(Sampler(name, 10, final_jump=level), network)
    times = [t for _, t in network.calls]
    assert min(times) == times[-1] == pytest.approx(level)
    assert samples.nfe == len(times)


@pytest.mark.parametrize("name", ["euler", "euler_maruyama"])
def test_a_final_jump_is_one_of_the_num_steps_calls(name: str):
    assert sample(Sampler(name, 10, final_jump=0.1)).nfe == 10


def test_on_the_linear_path_a_final_jump_is_a_last_long_euler_step():
    """x - T_min v: with the level on the grid of Euler's method, and one step left, nothing changes."""
    torch.testing.assert_close(sample(Sampler("euler", 10, final_jump=0.1)).images, sample(Sampler("euler", 10)).images)


def test_a_final_jump_takes_the_scaled_velocity():
    noise = SampleNoise(7, range(4), SHAPE).draw()
    sampler = Sampler("euler", 2, s0=1.1, s1=1.05, profile="constant", final_jump=0.5)
    t = torch.ones(4)
    x = noise - 0.5 * 1.1 * Network()(noise, t)
    expected = x - 0.5 * 1.1 * Network()(x, 0.5 * t)
    torch.testing.assert_close(sample(sampler).images, expected)


class Predicted(Network):
    """Predicts the same data, its label, whatever it sees."""

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        self.calls.append((len(x), t[0].item()))
        assert label is not None
        return label.to(x).view(-1, 1, 1, 1).expand_as(x)


@fixed_step
@pytest.mark.parametrize("path", [Linear(), GVP(), SBDMVP()], ids=lambda path: path.name)
def test_a_final_jump_below_the_clamp_still_arrives_at_the_predicted_data(name: str, path: Interpolant):
    """They are clamped below t = 0.05: a step of the clamped velocity from 0.02 would go 40 % of the way."""
    network, label = (
        VelocityNetwork(Predicted(), path, Parameterization("data", clamp=0.05)),
        torch.tensor([0, 1, 2, 0]),
    )
    data = label.float().view(-1, 1, 1, 1).expand(-1, *SHAPE)

    def samples(**options) -> Tensor:
        sampler = Sampler(name, 10, final_jump=0.02, **options)
        return sampler.sample(network, path, range(4), SHAPE, 7, label, guide=network).images

    torch.testing.assert_close(samples(), data, rtol=0, atol=1e-4)
    torch.testing.assert_close(samples(guidance_scale=1.5), 1.5 * data - 0.5 * 3, rtol=0, atol=1e-4)
    torch.testing.assert_close(samples(autoguidance_scale=2.0), data, rtol=0, atol=1e-4)


def test_without_a_jump_a_clamped_network_stops_on_the_way():
    """What `Parameterization` says of Euler's last step, and of many small ones."""
    network, label = VelocityNetwork(Predicted(), Linear(), Parameterization("data", clamp=0.1)), torch.zeros(4)
    for num_steps, left in ((20, 0.05 * 0.5), (1000, 0.1 * math.exp(-1))):
        noise = SampleNoise(7, range(4), SHAPE).draw()
        found = Sampler("euler", num_steps).sample(network, Linear(), range(4), SHAPE, 7, label).images
        torch.testing.assert_close(found, left * noise, rtol=0.01, atol=1e-4)


def test_the_states_on_the_way_can_be_watched():
    levels = []
    sample(Sampler("euler", 4), on_step=lambda t, x: levels.append((t, x.shape)))
    assert levels == [(pytest.approx(t), (4, *SHAPE)) for t in (0.75, 0.5, 0.25, 0.0)]


def test_sampling_builds_no_graph():
    scale = torch.ones((), requires_grad=True)

    class Trained(Network):
        def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
            return scale * super().__call__(x, t, label)

    assert not sample(Sampler("euler", 2), Trained()).images.requires_grad


@pytest.fixture
def nothing_said() -> None:
    """As in a process that has given no warning yet."""
    warn_once.cache_clear()


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize("scales", [{"s0": 1.1}, {"s1": 1.1}, {"s0": 1.05, "s1": 1.05}])
def test_ssc_with_strong_guidance_warns_once(scales: dict):
    with pytest.warns(UserWarning, match=r"section 6.*calibrate s0") as said:
        Sampler(guidance_scale=4.0, **scales)
        Sampler(guidance_scale=4.0, **scales)
    assert len(said) == 1


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize("options", [{"s0": 1.1, "guidance_scale": 2.0}, {"guidance_scale": 4.0}, {"s0": 1.1}])
def test_what_vd_found_to_work_does_not_warn(options: dict):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = Sampler(**options)
    assert ssc_warnings(sampler, "fm", dims=4096) == []


@pytest.mark.parametrize(
    ("scales", "objective", "dims", "words"),
    [
        ({"s0": 1.1}, "mafm", 4096, ["Table 10"]),
        ({"s1": 1.1}, "mafm", 4096, ["Table 10"]),
        ({"s0": 1.05}, "mafm", 4096, []),
        ({"s0": 1.1}, "fm", 64, ["high dimension"]),
        ({"s0": 1.1}, "fm", 256, []),
        ({}, "mafm", 64, []),
        ({"s0": 1.1, "guidance_scale": 4.0}, "mafm", 64, ["over-saturate", "Table 10", "high dimension"]),
    ],
)
@pytest.mark.filterwarnings("ignore:SSC with guidance_scale")
def test_the_limits_of_ssc_are_said(scales: dict, objective: str, dims: int, words: list[str]):
    messages = ssc_warnings(Sampler(**scales), objective, dims)
    assert len(messages) == len(words)
    assert all(word in message for word, message in zip(words, messages, strict=True))


def test_num_steps_is_given_once():
    assert Sampler().num_steps == Sampler().integrator.num_steps == 50
    assert Sampler("heun", 10).integrator == Heun(10)
    assert Sampler(Heun(10)).num_steps == 10
    assert Sampler(Heun(10), num_steps=20).integrator == Heun(20)
    assert replace(Sampler(Heun(10)), num_steps=250).integrator == Heun(250)


def test_solver_options_reach_the_solver():
    assert Sampler("dopri5", 5, {"rtol": 1e-5}).integrator == Dopri5(5, rtol=1e-5)
    assert Sampler(EulerMaruyama(), 5, {"last_step": 0.1}).integrator == EulerMaruyama(5, last_step=0.1)


@every_solver
def test_the_protocol_is_plain_and_says_everything(name: str):
    sampler = Sampler(name, 10, s0=1.1, profile="cosine", ssc_target="drift", guidance_scale=1.5, final_jump=0.02)
    protocol = sampler.protocol()
    assert json.loads(json.dumps(protocol)) == protocol
    assert protocol["solver"] == name
    assert protocol["stochastic"] is (name in STOCHASTIC)
    said = {"num_steps", "s0", "s1", "profile", "ssc_target", "final_jump"}
    said |= {"guidance_scale", "guidance_channels", "guidance_interval", "autoguidance_scale", "autoguidance_interval"}
    assert said <= protocol.keys()
    assert {"atol", "rtol"} <= protocol.keys() or name != "dopri5"
    of_an_sde = {"diffusion", "diffusion_norm", "last_step", "last_step_kind", "start_eps"}
    assert of_an_sde <= protocol.keys() or name not in STOCHASTIC


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "ddim"}, "solver must be one of"),
        ({"num_steps": 0}, "num_steps of at least 1"),
        ({"profile": "cubic"}, "profile must be one of"),
        ({"ssc_target": "score"}, "ssc_target must be one of velocity, drift"),
        ({"guidance_interval": [0.5]}, "guidance_interval must be two noise levels"),
        ({"autoguidance_interval": [0.7, 0.3]}, "autoguidance_interval must be two noise levels"),
        ({"autoguidance_interval": [0, 1000]}, "each of sampler.autoguidance_interval must be a noise level"),
        ({"final_jump": 0.0}, "strictly between"),
        ({"final_jump": 1}, "strictly between"),
        ({"final_jump": 20}, r"sampler.final_jump must be a noise level in \[0, 1\], .*: 20 of 1000 is 0.02"),
        ({"final_jump": "0.1"}, "noise level"),
        ({"guidance_interval": [0, 20]}, r"each of sampler.guidance_interval must be a noise level in \[0, 1\]"),
        ({"guidance_interval": [True, 1]}, "noise level"),
        ({"final_jump": 0.1, "num_steps": 1}, "num_steps must be at least 2"),
    ],
)
def test_what_cannot_be_sampled_is_refused_at_once(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Sampler(**options)


# The SSC configs, and what VD prints for them (eq. 10, Tables 5 and 7).
SSC = {
    "none": (1.0, 1.0, "linear"),
    "linear": (1.1, 1.0, "linear"),
    "cosine": (1.1, 1.0, "cosine"),
    "quad_in": (1.075, 1.0, "quad_in"),
    "quad_out": (1.15, 1.0, "quad_out"),
    "constant": (1.05, 1.05, "constant"),
    "late": (1.0, 1.1, "linear"),
}


@pytest.fixture(scope="module")
def root_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that is nothing but a sampler and its correction."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "root.yaml").write_text("defaults: [{sampler: euler}, {ssc: none}, _self_]\n")
    for group in ("sampler", "ssc"):
        (folder / group).symlink_to(CONF / group)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "ssc"), [*((name, "linear") for name in SOLVERS), *(("heun", ssc) for ssc in SSC)])
def test_sampler_configs_take_ssc_configs(root_config: Path, name: str, ssc: str):
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    with initialize_config_dir(str(root_config), version_base="1.3"):
        config = compose("root", [f"sampler={name}", f"ssc={ssc}", "sampler.num_steps=7"])
    sampler = instantiate(config.sampler, _convert_="all")
    assert isinstance(sampler, Sampler)
    assert (sampler.integrator.name, sampler.num_steps) == (name, 7)
    assert (sampler.s0, sampler.s1, sampler.profile) == SSC[ssc]


def test_every_solver_has_a_config_and_every_config_a_test():
    assert {path.stem for path in (CONF / "sampler").glob("*.yaml")} == set(SOLVERS)
    assert {path.stem for path in (CONF / "ssc").glob("*.yaml")} == set(SSC)
