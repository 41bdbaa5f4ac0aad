"""Scores of EMA samples against a dataset: Frechet distance, precision and recall, and others, from one pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from flowexp.data import ImageDataModule
from flowexp.flow.choices import check_choice
from flowexp.integrations.encoders import FeatureNet, as_encoder
from flowexp.measuring.callbacks.autocast import Precision, autocast, check_precision
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.monitor_runs import leave_if_stopped
from flowexp.measuring.callbacks.reference_set import ReferenceSet
from flowexp.measuring.callbacks.sampling_protocol import guide_protocol
from flowexp.measuring.metrics import FeatureCollector, MetricPlan, ReferenceCache, Statistics, metrics_for
from flowexp.objectives import FlowMatching
from flowexp.records.commit import git_commit
from flowexp.records.protocol_card import ProtocolCard
from flowexp.records.recording import Measurement
from flowexp.training.learner import RAW
from flowexp.training.parallel.work import collect, num_own, rank_and_world_size, share
from flowexp.training.sample_labels import LABELS, Labels


class SampleMetrics(Monitor):
    """Samples with the module's sampler and compares the features of the samples with those of a dataset.

    Scores depend on the number of samples even for the same network: compare equal numbers, or cards of one hash. Of
    the numbered samples, process r of W draws r, r + W, ...; no picture is stored. A network that takes text gets
    held-out captions. Only Inception's scores bear the papers' names (fid, sfid, ...).

    Warns of a Frechet distance from no more images than features, and of fewer samples than classes.

    Arguments:
        encoder: the feature network, or its name, or its name with options as a mapping.
        metrics: names, see `flowexp.measuring.metrics.MetricPlan`, or "all" that the encoder's outputs allow.
        num_samples: how many samples; LCF takes 7500, the Velocity Deficit paper 50 000.
        batch_size: samples drawn at once, on each process.
        labels: "balanced" gives sample i the class i mod num_classes, "random" a class drawn for it (ADM, SiT).
        reference: "train" (the habit of the literature), "test", or a reference file of ADM (.npz).
        max_reference: compare with a fixed random subset of this many images; None is all.
        cache: folder for what is known of the reference, the same in every run; None computes it each time.
        precision: of the network while sampling, 32-true or bf16-mixed; the encoder always works in fp32.
        options: those of `flowexp.measuring.metrics.options.MetricOptions`, such as split_size.

    Raises:
        ValueError: an unknown encoder, metric, reference or precision, too few samples, or weights that cannot be had.
    """

    def __init__(
        self,
        encoder: str | Mapping[str, Any] | FeatureNet = "efficientnet_lite",
        metrics: Sequence[str] | str = ("frechet",),
        num_samples: int = 2000,
        batch_size: int = 250,
        labels: Labels = "balanced",
        reference: str = "train",
        max_reference: int | None = None,
        cache: str | Path | None = "data/moments",
        precision: Precision = "32-true",
        options: Mapping[str, Any] | None = None,
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        if num_samples < 2 or batch_size < 1:
            raise ValueError(
                f"at least 2 samples are needed, in batches of at least 1; got {num_samples}, {batch_size}"
            )
        check_choice("labels", labels, LABELS)
        self.encoder = as_encoder(encoder)
        self.plan = MetricPlan.of(_names(metrics, self.encoder), options or {})
        self.plan.check(num_samples, self.encoder.outputs)
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.labels = labels
        self.reference = ReferenceSet(reference, max_reference, None if cache is None else ReferenceCache(Path(cache)))
        self.precision = check_precision(precision)

    def scalar_names(self) -> tuple[str, ...] | None:
        scores = self.plan.scores
        return None if scores is None else tuple(map(self.encoder.key, scores))

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        self.encoder.to(module.device)
        reference, about = self.reference.statistics(
            datamodule, self.encoder, self.plan, self.batch_size, module.device
        )
        self._caution(module, reference)
        collector = FeatureCollector(
            self.num_samples, self.encoder.dims, self.plan.samples, self.plan.split_size, module.device
        )
        nfe = self.add_samples(collector, module, datamodule, seed)
        found = self.plan.compute(collector.compute(), reference, seed, module.device)
        card = self._card(module, datamodule, about, nfe, seed)
        names = {(metric, score): self.encoder.key(score) for metric, scores in found.items() for score in scores}
        cards = {name: card.hash_of(metric) for (metric, _), name in names.items()}
        protocol = card.to_dict() | {"card": card.short_hash, "cards": cards, "weights": module.weights_name}
        scalars = {name: found[metric][score] for (metric, score), name in names.items()}
        return Measurement(f"samples_{self.encoder.name}", scalars, protocol=protocol)

    def _caution(self, module: FlowMatching, reference: Statistics) -> None:
        """Warns, on the first process, of numbers that so few samples make misleading."""
        sentences = self.plan.cautions(self.num_samples, reference)
        classes = module.backbone.num_classes
        if classes is not None and self.num_samples < classes:
            sentences.append(
                f"{self.num_samples} samples are of at most as many of the network's {classes} classes, and the others "
                "are missing in every score: raise num_samples"
            )
        for sentence in sentences if rank_and_world_size()[0] == 0 else ():
            warnings.warn(sentence, stacklevel=2)

    def add_samples(
        self, collector: FeatureCollector, module: FlowMatching, datamodule: ImageDataModule, seed: int
    ) -> float:
        """Draws this process's samples and adds their features; returns the network calls per sample of all processes.

        They are the same for all, but with an adaptive solver, which takes as many as a batch needs: then their mean.
        """
        (rank, _), own, calls = rank_and_world_size(), num_own(self.num_samples), 0
        indices = share(range(self.num_samples))
        starts = range(0, len(indices), self.batch_size)
        for start in tqdm(starts, desc="sampling", unit="batch", leave=False, disable=True if rank else None):
            leave_if_stopped()
            part = indices[start : start + self.batch_size]
            with autocast(self.precision, module.device):
                samples = module.sample(part, seed, labels=self.labels)
            num = min(max(0, own - start), len(part))
            bad = ~samples.images.flatten(1).isfinite().all(dim=1)
            found = self.encoder.extract(datamodule.to_pictures(samples.images), self.plan.samples.outputs)
            collector.update(found.with_nan(bad).rows(num), torch.tensor(part[:num], dtype=torch.int64))
            calls += samples.nfe * num
        nfe = sum(collect({rank: calls}).values()) / self.num_samples
        return int(nfe) if nfe.is_integer() else round(nfe, 2)

    def _card(
        self, module: FlowMatching, datamodule: ImageDataModule, reference: dict[str, Any], nfe: float, seed: int
    ) -> ProtocolCard:
        sampler, features = module.sampler.protocol(), self.encoder.protocol()
        return ProtocolCard(
            sampler=sampler,
            nfe=nfe,
            stochastic=bool(sampler.get("stochastic")),
            diffusion=sampler.get("diffusion"),
            guidance=sampler.get("guidance_scale", 1.0),
            guidance_channels=sampler.get("guidance_channels"),
            guide=guide_protocol(module),
            ssc={key: sampler[key] for key in ("profile", "s0", "s1")} if module.sampler.corrected else None,
            num_samples=self.num_samples,
            labels=module.labels_in_words(self.labels),
            captions=datamodule.captions_protocol() if module.backbone.takes == "text" else {},
            pictures=datamodule.pictures_protocol(),
            reference=reference,
            features=features,
            metrics=self.plan.protocol(),
            resize=str(features.get("resize")),
            precision=self.precision,
            ema=module.weights_name != RAW,
            seed=seed,
            checkpoint_step=self.step,
            commit=git_commit(),
        )


def _names(metrics: Sequence[str] | str, encoder: FeatureNet) -> tuple[str, ...]:
    if metrics == "all":
        return metrics_for(encoder.outputs)
    return (metrics,) if isinstance(metrics, str) else tuple(metrics)
