"""A sampler: how samples are drawn from a network, as one plain description that is stored beside every number."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from flowexp.flow.argument_kinds import check_options
from flowexp.flow.choices import check_choice
from flowexp.flow.interpolants import Interpolant
from flowexp.flow.parameterization import VelocityNetwork
from flowexp.flow.profiles import Profile, create_profile, scale_schedule
from flowexp.flow.randomness import SampleNoise
from flowexp.flow.solvers import Draw, OnStep, Solution, Solver, StochasticSolver, create_solver
from flowexp.flow.time import as_noise_level
from flowexp.flow.velocity import Autoguided, Conditional, Field, Guided, Network, Scaled

SSCTarget = Literal["velocity", "drift"]
SSC_TARGETS: tuple[SSCTarget, ...] = get_args(SSCTarget)
STRONG_GUIDANCE = 2.0  # VD section 6 warns of high CFG; in VD Table 12 SSC helps at 2 and hurts at 4
STRONG_SSC = 1.1  # VD's default, which VD Table 10 finds too strong on a network trained with MAFM
FEW_DIMENSIONS = 256  # VD section 6 warns of "ultra-low-dimensional" data, with no number; ours lets 28 x 28 pass


@dataclass(frozen=True)
class Samples:
    """images: (B, ...) float32, in the space that the network works in; nfe: calls of the velocity field per sample.

    A call with guidance (CFG) is one, of doubled batch; with autoguidance it is one, of two networks.
    """

    images: Tensor
    nfe: int


@dataclass(frozen=True)
class Sampler:
    """Solver, SSC and guidance, in the order network -> guidance -> autoguidance -> SSC -> solver.

    solver: a solver, or its name.
    num_steps: steps of the solver; None is the number of a given solver, and 50 for a name.
    solver_options: further fields of the solver, such as rtol.
    shift: moves the grid's noise levels, as SD3's, FLUX's and RAE's samplers do, see `flowexp.flow.time.shifted`; None
        keeps a given solver's own, and is 1, no shift, for a name.
    s0, s1, profile: SSC's scale at the noise end, at the data end, and the shape between (VD eq. 10 and Table 7).
    ssc_target: "velocity" scales what the network returns, and with it the score of an SDE; "drift" leaves the score
        alone. The paper leaves it open; for an ODE they are the same.
    guidance_scale, guidance_channels, guidance_interval: see `velocity.Guided`; scale 1 is no guidance, at no cost.
    autoguidance_scale, autoguidance_interval: see `velocity.Autoguided`; scale 1 is none, another needs a `guide`.
    final_jump: a noise level in (0, 1) at which the last network call jumps to its estimate of the data.
        LCF never trains the velocity below T_min and leaves open how it samples there; None integrates to the end.
        It is the whole way to the data also where a network's `Parameterization` clamps the velocity.

    Warns where SSC meets strong guidance (VD section 6); `ssc_warnings` lists the other limits.
    """

    solver: Solver | str = "euler"
    num_steps: int | None = None
    solver_options: Mapping[str, Any] = field(default_factory=dict)
    s0: float = 1.0
    s1: float = 1.0
    profile: str | Profile = "linear"
    ssc_target: SSCTarget = "velocity"
    guidance_scale: float = 1.0
    guidance_channels: int | None = None
    guidance_interval: Sequence[float] = (0.0, 1.0)
    autoguidance_scale: float = 1.0
    autoguidance_interval: Sequence[float] = (0.0, 1.0)
    final_jump: float | None = None
    shift: float | None = None

    def __post_init__(self) -> None:
        solver = create_solver(self.solver) if isinstance(self.solver, str) else self.solver
        check_options("sampler.solver_options", type(solver), self.solver_options)
        num_steps = solver.num_steps if self.num_steps is None else self.num_steps
        shift = solver.shift if self.shift is None else self.shift
        changed = {**self.solver_options, "num_steps": num_steps, "shift": shift}
        object.__setattr__(self, "solver", replace(solver, **changed))
        object.__setattr__(self, "num_steps", num_steps)
        object.__setattr__(self, "shift", shift)
        self._check()
        for message in _strong_guidance(self):
            warn_once(message)

    def _check(self) -> None:
        create_profile(self.profile)
        for key in ("s0", "s1"):
            if not getattr(self, key) > 0:
                raise ValueError(f"sampler.{key} scales the velocity and must be positive, got {getattr(self, key)}")
        check_choice("sampler.ssc_target", self.ssc_target, SSC_TARGETS)
        for key in ("guidance_interval", "autoguidance_interval"):
            levels = [as_noise_level(level, f"each of sampler.{key}") for level in getattr(self, key)]
            if len(levels) != 2 or levels[0] > levels[1]:
                raise ValueError(f"{key} must be two noise levels in [0, 1], the lower one first; got {levels}")
        if self.final_jump is not None and as_noise_level(self.final_jump, "sampler.final_jump") in (0, 1):
            raise ValueError(f"final_jump must lie strictly between data, 0, and noise, 1; got {self.final_jump}")
        if self.final_jump is not None and self.integrator.num_steps < 2:
            raise ValueError("final_jump is one of the steps: num_steps must be at least 2, got 1")

    @property
    def integrator(self) -> Solver:
        """The solver with its steps and options."""
        assert isinstance(self.solver, Solver)
        return self.solver

    @property
    def corrected(self) -> bool:
        """Whether SSC changes anything."""
        return not self.s0 == self.s1 == 1

    def sample(
        self,
        backbone: Network,
        interpolant: Interpolant,
        indices: Sequence[int] | Tensor,
        shape: Sequence[int],
        seed: int,
        label: Tensor | None = None,
        device: torch.device | str = "cpu",
        on_step: OnStep | None = None,
        guide: Network | None = None,
    ) -> Samples:
        """One batch of samples. A sample's noise depends on `(seed, its index)` alone, in an SDE too.

        indices: (B,), the place of each sample in the whole set. shape: of one sample.
        label: (B,) integers, (B, L, D) embeddings, or None.
        on_step: called with (t reached, x there) after every step of the solver.
        guide: the weaker network of autoguidance, on the same path and for the same labels; unused at scale 1.

        Raises ValueError for a network whose velocity is infinite where sampling starts.
        """
        _check_start(backbone, interpolant)
        noise, label = SampleNoise(seed, indices, shape), None if label is None else label.to(device)
        velocity = self.velocity_field(backbone, label, guide)
        with torch.no_grad():
            solution = self._solve(velocity, noise.draw().to(device), interpolant, noise.draw, on_step)
            if self.final_jump is not None:
                exact = self.velocity_field(_unclamped(backbone), label, None if guide is None else _unclamped(guide))
                solution = self._jump(exact, solution, interpolant)
        return Samples(solution.x, solution.nfe)

    def velocity_field(self, backbone: Network, label: Tensor | None = None, guide: Network | None = None) -> Field:
        """What is integrated: the network for these labels, guided and scaled."""
        velocity: Field = Conditional(backbone, label)
        if self.guidance_scale != 1:
            velocity = self._guided(backbone, label)
        if self.autoguidance_scale != 1:
            velocity = self._autoguided(velocity, label, guide)
        return velocity if self._scales_drift else Scaled(velocity, self.s0, self.s1, self.profile)

    def protocol(self) -> dict[str, Any]:
        """Everything that decides a sample beside network, path and seed, as plain containers."""
        profile = create_profile(self.profile).name
        settings = {key: value for key, value in vars(self).items() if key not in ("solver", "solver_options")}
        solver = {**asdict(self.integrator), "stochastic": self.integrator.stochastic}
        solver.pop("drift_scale", None)  # a function, which ssc_target names
        if self.shift == 1:  # came later: numbers without it have the protocol that they had
            del settings["shift"], solver["shift"]
        intervals = {
            key: [float(level) for level in getattr(self, key)]
            for key in ("guidance_interval", "autoguidance_interval")
        }
        return {"solver": self.integrator.name, **solver, **settings, "profile": profile, **intervals}

    def _guided(self, backbone: Network, label: Tensor | None) -> Guided:
        null = backbone.null_condition(label)
        if label is None or null is None:
            raise ValueError(
                f"guidance_scale={self.guidance_scale} needs labels and a conditional network: set it to 1 without"
            )
        low, high = self.guidance_interval
        return Guided(backbone, label, null, self.guidance_scale, self.guidance_channels, (low, high))

    def _autoguided(self, velocity: Field, label: Tensor | None, guide: Network | None) -> Autoguided:
        if guide is None:
            raise ValueError(
                f"autoguidance_scale={self.autoguidance_scale} needs a weaker model to be guided by: give its run "
                "folder with guide=RUN (and guide_checkpoint=FILE for an early checkpoint of it), or set it to 1"
            )
        low, high = self.autoguidance_interval
        return Autoguided(velocity, Conditional(guide, label), self.autoguidance_scale, (low, high))

    @property
    def _scales_drift(self) -> bool:
        return self.corrected and self.ssc_target == "drift" and self.integrator.stochastic

    def _solver(self) -> Solver:
        if self._scales_drift and isinstance(self.solver, StochasticSolver):
            return replace(self.solver, drift_scale=scale_schedule(self.profile, self.s0, self.s1))
        return self.integrator

    def _solve(
        self, velocity: Field, noise: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep | None
    ) -> Solution:
        solver = self._solver()
        if self.final_jump is None:
            return solver.solve(velocity, noise, interpolant, draw, on_step)
        before = replace(solver, num_steps=solver.num_steps - 1)  # the jump is the last of the num_steps calls
        return before.solve(velocity, noise, interpolant, draw, on_step, t_end=self.final_jump)

    def _jump(self, velocity: Field, solution: Solution, interpolant: Interpolant) -> Solution:
        """From a solution that has reached `final_jump` to the data that the velocity there points at."""
        assert self.final_jump is not None
        x = solution.x
        t = torch.full((len(x),), self.final_jump, dtype=x.dtype, device=x.device)
        data = interpolant.data_from_velocity(velocity(x, t), x, t)
        return Solution(data.to(x.dtype), solution.nfe + 1)


def _check_start(network: Network, interpolant: Interpolant) -> None:
    """Refuses predicted noise without a clamp on a path that starts at pure noise, where its velocity divides by 0."""
    if not isinstance(network, VelocityNetwork):
        return
    parameterization, start = network.parameterization, interpolant.ode_interval[1]
    divided = parameterization.prediction == "noise" and parameterization.clamp == 0
    if divided and float(interpolant.alpha(torch.tensor(start, dtype=torch.float64))) < 1e-12:
        raise ValueError(
            f"parameterization.clamp=0 makes the velocity of predicted noise infinite at t = {start:g}, where sampling "
            "starts: raise it, as to 0.05"
        )


def _unclamped(network: Network) -> Network:
    """A network whose velocity points at the data that it predicts; a clamped one goes only a part of the way."""
    return network.unclamped() if isinstance(network, VelocityNetwork) else network


def ssc_warnings(sampler: Sampler, objective: str, dims: int) -> list[str]:
    """The limits that VD names for this sampler's SSC; empty where it corrects nothing or meets none of them.

    objective: how the network was trained, such as "fm" or "mafm". dims: numbers in one sample, C x H x W.
    """
    if not sampler.corrected:
        return []
    messages = _strong_guidance(sampler)
    strongest = max(sampler.s0, sampler.s1)
    if objective == "mafm" and strongest >= STRONG_SSC:
        messages.append(
            f"SSC of {strongest} on a network trained with MAFM scales the velocity twice, and may overshoot fine "
            "structure (Velocity Deficit, Table 10: sFID 4.67 becomes 10.62): take a smaller sampler.s0, or ssc=none"
        )
    if dims < FEW_DIMENSIONS:
        messages.append(
            f"SSC on data of {dims} dimensions may overshoot (Velocity Deficit, section 6): its derivation rests on "
            "norms that concentrate in high dimension; compare with ssc=none"
        )
    return messages


@cache
def warn_once(message: str) -> None:
    """Warn with `message`, once in this process."""
    warnings.warn(message, stacklevel=4)  # the line that makes the Sampler


def _strong_guidance(sampler: Sampler) -> list[str]:
    if not sampler.corrected or sampler.guidance_scale <= STRONG_GUIDANCE:
        return []
    return [
        f"SSC with guidance_scale={sampler.guidance_scale} may over-saturate (Velocity Deficit, section 6): "
        "calibrate s0 for this scale, or choose ssc=none"
    ]
