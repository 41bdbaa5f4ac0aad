"""A grid of samples from the EMA weights, the same noise every time, so that one can watch them become."""

from __future__ import annotations

from flowexp.data import ImageDataModule
from flowexp.measuring.callbacks.autocast import Precision, autocast, check_precision
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.sampling_protocol import sampling_protocol
from flowexp.objectives import FlowMatching
from flowexp.records.figures import image_grid
from flowexp.records.recording import Measurement

ABOUT = "Samples of the EMA network, from the same noise at every step."


class SampleGridMonitor(Monitor):
    """Draws samples 0 .. num_samples - 1 with the module's sampler; class i mod num_classes where there are classes.

    Arguments:
        num_samples: pictures in the grid, drawn at once.
        columns: pictures per row; None makes the grid nearly square.
        precision: of the network, 32-true or bf16-mixed.
    """

    def __init__(
        self,
        num_samples: int = 64,
        columns: int | None = None,
        precision: Precision = "32-true",
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        if num_samples < 1:
            raise ValueError(f"a grid needs at least 1 sample, got num_samples={num_samples}")
        self.num_samples = num_samples
        self.columns = columns
        self.precision = check_precision(precision)

    def scalar_names(self) -> tuple[str, ...]:
        return ()

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        with autocast(self.precision, module.device):
            samples = module.sample(range(self.num_samples), seed)
        pictures = datamodule.to_pictures(samples.images)
        protocol = {
            "num_samples": self.num_samples,
            "nfe": samples.nfe,
            "seed": seed,
            "weights": module.weights_name,
            "precision": self.precision,
            "sampler": sampling_protocol(module),
        }
        grid = image_grid(pictures, self.columns)
        return Measurement("samples", image=grid, pictures=pictures, protocol=protocol, about=ABOUT)
