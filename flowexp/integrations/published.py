"""A trained network as it is published: a folder of plain data, and the model that it is read into.

The folder holds model.safetensors, config.json and README.md, the model card. Its config names parts of flowexp's
registries and nothing else: reading it runs no code of the folder's. No Hydra and no Lightning is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from huggingface_hub.errors import HFValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from flowexp.backbones import create_backbone
from flowexp.flow.choices import chosen
from flowexp.flow.interpolants import GVP, SBDMVP, Interpolant, Linear
from flowexp.flow.parameterization import Parameterization, VelocityNetwork
from flowexp.flow.randomness import SampleNoise
from flowexp.flow.sampler import Sampler, Samples
from flowexp.records import zoo

INTERPOLANTS: dict[str, type[Interpolant]] = {path.name: path for path in (Linear, GVP, SBDMVP)}
WEIGHTS, CONFIG = "model.safetensors", "config.json"
PICTURES = "pictures in [-1, 1]"  # the space of a network that draws no latents, in `about`
REPOSITORY_TAGS = ["flow-matching", "image-generation"]


class PublishedModel(nn.Module, ModelHubMixin, library_name="flowexp", tags=REPOSITORY_TAGS):
    """A network with its path, what it predicts and how it is sampled.

    `save_pretrained`, `from_pretrained` and `push_to_hub` are those of huggingface_hub's mixin. All arguments are plain
    data, which `save_pretrained` writes into config.json.

    Arguments:
        backbone: `name`, `resolution`, `channels` and the other keys of `flowexp.backbones.create_backbone`.
        interpolant: `name`, one of `INTERPOLANTS`, and its keys.
        parameterization: keys of `flowexp.flow.parameterization.Parameterization`.
        sampler: keys of `flowexp.flow.sampler.Sampler`, the solver by its name.
        about: what is known of the training, for people.

    Raises:
        ValueError: a name that flowexp's registries do not have, or a key that the part of that name does not take.
    """

    def __init__(
        self,
        *,
        backbone: dict[str, Any],
        interpolant: dict[str, Any] | None = None,
        parameterization: dict[str, Any] | None = None,
        sampler: dict[str, Any] | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = _made("backbone", create_backbone, backbone)
        self.interpolant: Interpolant = _made("interpolant", _interpolant, interpolant or {"name": "linear"})
        self.parameterization = _made("parameterization", Parameterization, parameterization or {})
        self.sampler = _made("sampler", _sampler, sampler or {})
        self.about = about or {}

    @property
    def network(self) -> VelocityNetwork:
        """The network as solvers see it: whatever it predicts, a call gives a velocity."""
        return VelocityNetwork(self.backbone, self.interpolant, self.parameterization)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def velocity(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """dx/dt (B, C, H, W) at x (B, C, H, W) and noise level t (B,); t is 0 at data and 1 at noise.

        label: (B,) integers, text embeddings (B, L, D), or None for "nothing".
        """
        return self.network(x, t, label)

    forward = velocity

    def sample(
        self, indices: int | Sequence[int], seed: int = 0, label: int | Tensor | None = None, **sampler: Any
    ) -> Samples:
        """Samples in the space of the network: pictures in [-1, 1], or latents. Sample i depends on (seed, i) alone.

        indices: which ones, or how many. label: a class for all, or a label for each; None gives sample i the class
        i mod num_classes. sampler: keys of `Sampler` to change, such as s0=1.1 or num_steps=10.
        """
        places = range(indices) if isinstance(indices, int) else indices
        shape = (self.backbone.channels, self.backbone.resolution, self.backbone.resolution)
        how = replace(self.sampler, **sampler) if sampler else self.sampler
        labels = self._labels(places, label)
        return how.sample(self.network, self.interpolant, places, shape, seed, labels, self.device)

    def features(
        self, images: Tensor, t: float = 0.0, tap: int | None = None, label: Tensor | None = None, seed: int = 0
    ) -> Tensor:
        """The tokens (B, N, D) after block `tap` of clean `images` (B, C, H, W) that are noised to level t.

        tap: from 1; None is two thirds of the depth, LCF's. seed: of the noise.
        """
        tap = self.backbone.default_tap if tap is None else tap
        noise = SampleNoise(seed, range(len(images)), images.shape[1:]).draw().to(images)
        times = torch.full((len(images),), float(t), dtype=images.dtype, device=images.device)
        xt = self.interpolant.interpolate(images, noise, times)
        return self.backbone.features(xt, times, label, taps=[tap])[tap]

    def _labels(self, places: Sequence[int], label: int | Tensor | None) -> Tensor | None:
        if self.backbone.takes == "nothing":
            if label is not None:
                raise ValueError("label needs a network that takes one, and this one is unconditional: leave it out")
            return None
        if isinstance(label, Tensor):
            return label.to(self.device)
        if self.backbone.takes == "text":
            raise ValueError("label must be text embeddings (B, L, D) for this network, got none")
        num = int(self.backbone.num_classes)
        if label is not None and not 0 <= label < num:
            raise ValueError(f"label must lie in 0..{num - 1}, got {label}")
        return torch.tensor([place % num if label is None else label for place in places], device=self.device)

    # --- files, for huggingface_hub's mixin ---------------------------------------------------------------------------

    def _save_pretrained(self, save_directory: Path) -> None:
        weights = {name: value.detach().cpu().contiguous() for name, value in self.backbone.state_dict().items()}
        save_file(weights, save_directory / WEIGHTS, metadata={"format": "pt"})

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **parts: Any,
    ) -> Self:
        if Path(model_id).is_dir():
            file = Path(model_id, WEIGHTS)
        else:
            fetched = {"revision": revision, "cache_dir": cache_dir, "force_download": force_download}
            file = Path(
                hf_hub_download(model_id, WEIGHTS, **fetched, token=token, local_files_only=local_files_only)  # type: ignore[arg-type]
            )
        if "backbone" not in parts:
            raise ValueError(f"{model_id} has no {CONFIG} that names a backbone: it is no export of flowexp")
        model = cls(**parts)
        _put_weights(model.backbone, file)
        return model.eval()


def load(source: str | Path, device: str | torch.device = "cpu") -> PublishedModel:
    """The model in a folder that `python -m flowexp.export` wrote, `zoo:NAME`, or of that name at the Hugging Face hub.

    Raises:
        ValueError: the folder holds no export, its config names what flowexp does not have, the weights are damaged or
            of another network, or the zoo or the hub has no such model, or the hub cannot be reached.
    """
    source = zoo.find(source) if zoo.is_named(source) else source
    if (folder := Path(source)).is_dir() and not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} has no {CONFIG}: give a folder that `python -m flowexp.export` has written")
    try:
        return PublishedModel.from_pretrained(str(source)).to(device)
    except (OSError, HFValidationError) as error:  # the hub's errors are of the system's kinds
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{source} is no folder here, and cannot be had from the Hugging Face hub ({reason}): give a folder that "
            "`python -m flowexp.export` has written, or check the name and the network"
        ) from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors, of any shape, of a safetensors file. Raises ValueError where there is none, or it is damaged."""
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    try:
        return load_file(file)
    except Exception as error:  # safetensors has an error of its own, and the system others
        raise ValueError(f"{file} is damaged, or no file of safetensors ({error})") from error


def _put_weights(backbone: nn.Module, file: Path) -> None:
    try:
        backbone.load_state_dict(read_weights(file))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} does not hold the weights of the network in its {CONFIG}: {reason}") from error


def _made(what: str, make: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """A part from its plain keys. Raises ValueError for those that it refuses."""
    try:
        return make(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the {what} of {CONFIG} cannot be made: {error}") from error


def _interpolant(name: str, **options: float) -> Interpolant:
    return chosen("interpolant", name, INTERPOLANTS)(**options)


def _sampler(solver: str = "euler", **options: Any) -> Sampler:
    if not isinstance(solver, str):
        raise ValueError(f"solver must be a name, got {solver!r}")
    return Sampler(solver, **options)
