"""`train init=`: the weights that a training begins from, and what became of each tensor of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from flowexp.backbones import Backbone
from flowexp.cli.assembly.building import build
from flowexp.cli.assembly.rebuilding import load_run
from flowexp.integrations.starting_weights import Fitted, Source, fit, in_lines, read_source, source_of
from flowexp.records.run_folder import RunFolder
from flowexp.training.checkpoints import is_checkpoint, list_checkpoints
from flowexp.training.parallel.work import rank_and_world_size


@dataclass
class Start:
    """The beginning of a training: new weights, or those of `source`. told: what became of each tensor."""

    source: Source | None = None
    path: str = ""
    prediction: str = ""
    told: list[Fitted] = field(default_factory=list)

    @classmethod
    def of(cls, config: DictConfig, folder: RunFolder) -> Start:
        """That of a run: `init` counts where its folder has no checkpoint yet, which holds the weights that it has."""
        if config.init is None or config.trained_run is not None or list_checkpoints(folder.checkpoints):
            return cls()
        prediction = build(config.parameterization).prediction
        return cls(read_start(config.init), build(config.interpolant).name, prediction)

    def begin(self, backbone: Backbone) -> None:
        """Puts the weights into the network, and prints a line for every tensor; of new weights, does nothing."""
        if self.source is None:
            return
        self.told = fit(backbone, self.source)
        if rank_and_world_size()[0] == 0:
            print(f"begins from {self.source.name}:", *in_lines(self.told), *self._differences(), sep="\n  ")

    def origin(self) -> dict[str, Any]:
        """For `run.json`: where the weights come from, and each tensor."""
        if self.source is None:
            return {}
        tensors = {each.name: f"{each.what}{f', {each.why}' if each.why else ''}" for each in self.told}
        return {"init": {"from": self.source.name, "fingerprint": self.source.fingerprint, "tensors": tensors}}

    def _differences(self) -> list[str]:
        """What the network has to learn anew, in words."""
        assert self.source is not None
        pairs = {"path": (self.source.path, self.path), "prediction": (self.source.prediction, self.prediction)}
        return [
            f"note: the {what} of those weights is {before}, and of this training {now}"
            for what, (before, now) in pairs.items()
            if before not in (None, now)
        ]


def read_start(where: str) -> Source:
    """The weights of a run, with the EMA where it has one, or those that `read_source` knows."""
    path = Path(where)
    checkpoint = path if RunFolder(path.parent.parent).config_file.is_file() and is_checkpoint(path) else None
    run = path.parent.parent if checkpoint is not None else path
    if not RunFolder(run).config_file.is_file():
        return read_source(where)
    module, _, _ = load_run(run, checkpoint, with_data=False)
    with module.averaged():
        weights = {name: value.clone() for name, value in module.backbone.state_dict().items()}
    source = source_of(where, module.backbone, module.interpolant.name, module.parameterization.prediction)
    return Source(source.name, weights, source.time_scale, source.path, source.prediction)
