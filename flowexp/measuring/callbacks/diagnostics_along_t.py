"""The diagnostics of both papers along the noise level, as monitors: what they measure, draw and report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from flowexp.data import ImageDataModule
from flowexp.flow.losses import ExactField
from flowexp.flow.time import as_noise_level
from flowexp.measuring.callbacks.curve_monitor import FEWEST_IMAGES, LEVELS, CurveMonitor
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.sampling_protocol import sampling_protocol
from flowexp.measuring.diagnostics import (
    Curve,
    cross_terms,
    encoder_jacobian,
    gradient_share,
    integration_lag,
    measure_condition,
    semantic_subspace,
    tapped_encoder,
    velocity_norms,
)
from flowexp.measuring.diagnostics.cross_terms import Spread
from flowexp.measuring.diagnostics.verdict import (
    condition_verdict,
    gradient_verdict,
    jacobian_verdict,
    lag_verdict,
    norms_verdict,
)
from flowexp.objectives import FlowMatching
from flowexp.records.figures import Panel
from flowexp.records.recording import Measurement
from flowexp.records.verdict import Verdict


class VelocityNorms(CurveMonitor):
    """|v| against |v*|, the noise's and the data's norm, the cosine and the deficit (VD Figs. 1 and 2).

    Arguments:
        exact_images: training images whose exact field stands beside the network, in further columns of the table; all
            where that is more. The images that are measured are then the first of these, since the field near clean
            data is that of the data themselves. None measures test images, without an exact field.
        others: those of CurveMonitor.

    Raises:
        ValueError: an exact field for a network that takes text, or of fewer images than are measured.
    """

    name = "velocity_norms"
    fewest_images = FEWEST_IMAGES
    about = (
        "Lengths of the network's velocity v, of its target v* and of the target's two parts (VD Figs. 1 and 2), as "
        "norms divided by √d: 1 is one unit per pixel. A field that knows only xt is shorter than v* by necessity; "
        "a best scale above 1 means that the network is shorter than it has to be."
    )
    panels = (
        Panel(
            "length of the velocity",
            "norm / √d",
            {"velocity": "network |v|", "target": "target |v*|", "noise": "its noise part", "data": "its data part"},
        ),
        Panel("deficit and direction", "1: no deficit", {"ratio": "|v| / |v*|", "cosine": "cosine of v, v*"}, level=1),
        Panel("scale with the least error", "factor on v", {"best_scale": "E<v, v*> / E|v|²"}, level=1),
    )
    reported = (("deficit_at_noise", "noise", "deficit"), ("deficit_at_data", "data", "deficit"))
    maps = (
        ("ratio", "|v| / |v*|"),
        ("cosine", "cosine of v and v*"),
        ("best_scale", "scale of v with the least error"),
    )

    def __init__(
        self, levels: Sequence[float] = LEVELS, num_images: int = 512, exact_images: int | None = None, **others: Any
    ) -> None:
        super().__init__(levels, num_images, **others)
        if exact_images is not None and exact_images < num_images:
            raise ValueError(
                f"callbacks.velocity_norms.exact_images must be at least num_images, {num_images}: those that are "
                f"measured are among them; got {exact_images}"
            )
        self.exact_images = exact_images

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        seen = self.seen(module, datamodule)
        if self.exact_images is None:
            return velocity_norms(levels=levels, seed=seed, **seen)
        if module.backbone.takes == "text":
            raise ValueError(
                "callbacks.velocity_norms.exact_images needs a network of classes or of none, and this one takes text: "
                "set it to null"
            )
        train = datamodule.train.subset(min(self.exact_images, len(datamodule.train)))
        labels = train.labels if module.backbone.takes == "class" else None
        exact = ExactField(datamodule.to_data(train.images), module.interpolant, labels).to(module.device)
        num = min(self.num_images, len(train))
        seen |= {"images": train.images[:num], "labels": None if labels is None else labels[:num]}
        return velocity_norms(levels=levels, seed=seed, exact=exact, **seen)

    def protocol(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> dict[str, Any]:
        protocol = super().protocol(module, datamodule, seed)
        if self.exact_images is None:
            return protocol
        num, all_of_them = min(self.num_images, len(datamodule.train)), min(self.exact_images, len(datamodule.train))
        images = f"{num} training images of {datamodule.name}"
        return protocol | {"images": images, "exact_field": f"{all_of_them} training images, these among them"}

    def verdicts(self, curve: Curve[Any]) -> list[Verdict]:
        return norms_verdict(curve)


class ConditionNumber(CurveMonitor):
    """The local condition number kappa_E of the target in closed form, and of the network as measured (LCF Prop. 1)."""

    name = "condition_number"
    fewest_images = FEWEST_IMAGES
    about = (
        "Local condition number κ = |Δv| / |Δx| of velocity regression (LCF Proposition 1): how much the velocity "
        "changes where the state changes. The target's grows without bound towards clean data (t to 0); a network that "
        "stays far below has given up there."
    )
    panels = tuple(
        Panel(
            title,
            "κ = |Δv| / |Δx|",
            {
                f"{pair}_exact": "target, closed form",
                f"{pair}_target": "target, measured",
                f"{pair}_network": "network",
                f"{pair}_local": "network, Jacobian",
            },
            log_y=True,
            exact=(f"{pair}_exact",),
        )
        for pair, title in (("noise", "one image, two noises"), ("data", "two images, one noise"))
    )
    log_x = True
    reported = (("demanded", "data", "noise_exact"), ("of_network", "data", "noise_network"))
    maps = (("noise_network", "κ of the network, one image and two noises"),)

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        return measure_condition(levels=levels, seed=seed, **self.seen(module, datamodule))

    def verdicts(self, curve: Curve[Any]) -> list[Verdict]:
        return condition_verdict(curve)


class GradientShare(CurveMonitor):
    """How much of the flow-matching loss's gradient each noise level has. Every process computes all levels."""

    name = "gradient_share"
    fewest_images = FEWEST_IMAGES
    about = (
        "Where the gradient g of the flow-matching loss comes from (LCF section 4.2): each level's share of the sum of "
        "norms, and its part along the whole gradient G, which is negative for a level that the others overrule. "
        "Levels are weighted equally, so the shares sum to 1."
    )
    panels = (
        Panel("share of the gradient", "share", {"share": "|g| / Σ|g|", "along": "<g, G> / |G|²"}, level=0),
        Panel("velocity error", "|v - v*|² / d", {"loss": "loss"}),
    )
    log_x = True
    reported = (("at_data", "data", "share"),)
    maps = (("share", "share of the gradient, |g| / Σ|g|"),)

    def _of_all_processes(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Curve[Any]:
        return self.curve(module, datamodule, self.levels, seed)

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        parameters = module.backbone.parameters()
        return gradient_share(parameters=parameters, levels=levels, seed=seed, **self.seen(module, datamodule))

    def verdicts(self, curve: Curve[Any]) -> list[Verdict]:
        return gradient_verdict(curve)


class EncoderJacobian(CurveMonitor):
    """Gains of the tapped features along class means and along other directions, and |J|_F (LCF Fig. 9).

    Arguments:
        tap: block that is read, from 1; None is the backbone's default.
        num_probes: random directions per image and level; each costs two forward derivatives.
        others: those of CurveMonitor.
    """

    name = "jacobian"
    fewest_images = FEWEST_IMAGES
    about = (
        "How strongly the features react to a unit change of the input (LCF Fig. 9): E|J v|² for directions v between "
        "class means, and for all others. Features have no fixed length, so compare levels, or the two lines, and not "
        "the gains of two networks."
    )
    panels = (
        Panel(
            "gain of the features", "E|J v|²", {"g_sem": "along class means", "g_noise": "other directions"}, log_y=True
        ),
        Panel("whole Jacobian", "|J|, Frobenius", {"frobenius": "|J|"}, log_y=True),
    )
    log_x = True
    reported = (("ratio_at_data", "data", "ratio"),)
    maps = (("g_sem", "gain along class means, E|J v|²"), ("g_noise", "gain along other directions, E|J v|²"))

    def __init__(
        self, levels: Sequence[float] = LEVELS, num_images: int = 128, tap: int | None = None, num_probes: int = 4,
        **others: Any,
    ) -> None:  # fmt: skip
        super().__init__(levels, num_images, **others)
        self.tap = tap
        self.num_probes = num_probes

    def protocol(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> dict[str, Any]:
        tap = module.backbone.default_tap if self.tap is None else self.tap
        return super().protocol(module, datamodule, seed) | {"tap": tap, "num_probes": self.num_probes}

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        images, _ = self.images(datamodule)
        train = datamodule.train.subset(min(5000, len(datamodule.train)))
        basis = semantic_subspace(train.images, train.labels, prepare=datamodule.to_data)
        return encoder_jacobian(
            tapped_encoder(module.backbone, self.tap), module.interpolant, images, levels, basis, seed,
            self.num_probes, **self.feed(module, datamodule),
        )  # fmt: skip

    def verdicts(self, curve: Curve[Any]) -> list[Verdict]:
        return jacobian_verdict(curve)


class IntegrationLag(CurveMonitor):
    """FLD of sampler states beside that of the exact marginals at the same level, and the lag between (VD Fig. 3).

    Arguments:
        num_samples: samples that are followed, and images that make the marginals; half of the images where that is
            less.
        num_images: test images: those of the marginals and, all others, the clean data.
        num_levels: of the levels that the sampler reaches, evenly by their place.
        at: noise levels in place of those, as VD Table 11 has five times: each is the nearest that the sampler reaches.
        others: those of CurveMonitor.
    """

    name = "integration_lag"
    fewest_images = FEWEST_IMAGES
    about = (
        "Whether the sampler's states are at their noise level (VD Fig. 3): their Fréchet distance from clean "
        "data (FLD, in squared pixel units) beside that of as many samples of the exact marginal, and the level whose "
        "marginal they look like. Lag above 0 is behind schedule. The exact marginal's own lag is the bias of so few "
        "samples and chance: the lag that counts is the difference."
    )
    panels = (
        Panel("distance from clean data", "FLD", {"fld": "sampler", "fld_marginal": "exact marginal"}, log_y=True),
        Panel(
            "lag",
            "t it looks like − t",
            {"lag": "sampler", "lag_marginal": "exact marginal", "unbiased_lag": "difference"},
            level=0,
        ),
    )
    reported = (("excess_at_data", "data", "excess"),)
    maps = (
        ("unbiased_lag", "lag in t, less that of the exact marginal"),
        ("excess", "FLD / FLD of the exact marginal − 1"),
    )

    def __init__(
        self, num_samples: int = 1000, num_images: int = 5000, num_levels: int = 12, max_dim: int | None = 128,
        at: Sequence[float] | None = None, **others: Any,
    ) -> None:  # fmt: skip
        super().__init__(num_images=num_images, **others)
        self.at = None if at is None else [as_noise_level(t, "each of callbacks.integration_lag.at") for t in at]
        self.num_samples = num_samples
        self.num_levels = num_levels
        self.max_dim = max_dim

    def counted(self, datamodule: ImageDataModule) -> int:
        """How many samples are followed: small test sets (the digits' 360) still leave as many images as clean data."""
        return max(2, min(self.num_samples, min(self.num_images, len(datamodule.test)) // 2))

    def scalar_names(self) -> tuple[str, ...]:
        return (*(f"{self.name}/{key}" for key, _, _ in self.reported), f"{self.name}/largest")

    def scalars(self, curve: Curve[Any]) -> dict[str, float]:
        worst = max(curve, key=lambda point: abs(point.unbiased_lag))
        return super().scalars(curve) | {f"{self.name}/largest": float(worst.unbiased_lag)}

    def protocol(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> dict[str, Any]:
        num = self.counted(datamodule)
        own = {"num_samples": num, "max_dim": self.max_dim, "sampler": sampling_protocol(module)}
        return super().protocol(module, datamodule, seed) | own

    def _of_all_processes(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Curve[Any]:
        return self.curve(module, datamodule, self.levels, seed)

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        images, _ = self.images(datamodule)
        data, num = datamodule.to_data(images), self.counted(datamodule)
        return integration_lag(
            module.sampler, module.velocity_network, module.interpolant, data, num, seed,
            module.labels_for(range(num), seed), self.num_levels, self.max_dim, self.batch_size,
            module.device, guide=module.guide, at=self.at,
        )  # fmt: skip

    def verdicts(self, curve: Curve[Any]) -> list[Verdict]:
        return lag_verdict(curve)


class CrossTerms(Monitor):
    """How orthogonal data and noise are: what the paper's norms rest on (VD appendix D).

    Arguments:
        num_images: test images, a fixed random subset.
    """

    def __init__(self, num_images: int = 2000, every_n_steps: int | None = None, at_end: bool = True) -> None:
        super().__init__(every_n_steps, at_end)
        self.num_images = num_images

    def scalar_names(self) -> tuple[str, ...]:
        return tuple(f"cross_terms/{field.name}" for field in fields(Spread))

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        images = datamodule.test.subset(min(self.num_images, len(datamodule.test))).images
        found = cross_terms(images, seed, device=module.device, prepare=datamodule.to_data)
        scalars = {f"cross_terms/{name}": value for name, value in vars(found.relative).items()}
        protocol = {"images": f"{found.num_pairs} test images of {datamodule.name}", "seed": seed}
        about = (
            "Inner products of an image and its noise (VD appendix D), over |data|² + |noise|² (relative) or over "
            "|data| |noise| (cosine): 0 is orthogonal, as |v*|² = |data|² + |noise|² assumes. No network takes part."
        )
        return Measurement("cross_terms", scalars, found.rows(), protocol=protocol, about=about)
