"""A monitor in one file: how bright samples of the EMA weights are, beside the held-out pictures."""

from __future__ import annotations

from flowexp.data import ImageDataModule
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.objectives import FlowMatching
from flowexp.records.recording import Measurement


class Brightness(Monitor):
    """Measures when `every_n_steps` and `at_end` say so; a logger shows what stands in `scalars`."""

    def __init__(self, num_samples: int = 64, every_n_steps: int | None = None, at_end: bool = True) -> None:
        super().__init__(every_n_steps, at_end)
        self.num_samples = num_samples

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        samples = datamodule.to_pictures(module.sample(range(self.num_samples), seed).images)
        real = datamodule.test.subset(self.num_samples).images
        scalars = {"brightness/samples": float(samples.float().mean()), "brightness/real": float(real.float().mean())}
        return Measurement("brightness", scalars, protocol={"samples": self.num_samples, "seed": seed})
