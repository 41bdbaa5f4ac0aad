"""The model card of an export: what the network is, how it is loaded, and its numbers with their protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

_LOAD = """```python
import flowexp

model = flowexp.load("DIR")  # this folder, or its name at the hub
images = model.sample(16, seed=0).images  # in [-1, 1], or latents
tokens = model.features(images, t=0.1)  # and model.velocity(x, t, label)
```

Fine-tuned: `python -m flowexp.train init=DIR`."""
_LOAD_IN_DIFFUSERS = """```python
import flowexp.integrations.diffusers  # has the transformer and the scheduler
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("DIR")
images = pipe(class_labels=[0], guidance_scale=1.0, num_inference_steps=50).images
```"""


def model_card(
    about: Mapping[str, Any],
    sampler: Mapping[str, Any],
    numbers: Mapping[str, float],
    protocols: Mapping[str, Mapping[str, Any]],
    license: str,
    samples: str | None = None,
    of_diffusers: bool = False,
) -> str:
    """README.md with the metadata that Hugging Face reads.

    about: what is known of the training. sampler: how samples are drawn unless otherwise said. numbers, protocols: of
    the run, by name and by measurement. license: of the weights. samples: the file of a grid, beside the card.
    """
    metadata = {
        "library_name": "diffusers" if of_diffusers else "flowexp",
        "license": license,
        "tags": ["flow-matching", "image-generation", "flowexp"],
    }
    parts = [
        f"---\n{''.join(f'{key}: {json.dumps(value)}' + chr(10) for key, value in metadata.items())}---",
        f"# {about['name']}",
        "\n".join(f"- {key}: {value}" for key, value in about.items() if key != "name"),
        f"![samples]({samples})" if samples else "",
        _LOAD_IN_DIFFUSERS if of_diffusers else _LOAD,
        f"License of the weights: {license}.",
        _numbers(numbers, protocols),
        f"## Sampler\n\n{_block(sampler)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _numbers(numbers: Mapping[str, float], protocols: Mapping[str, Mapping[str, Any]]) -> str:
    """The numbers of the run, and below them the card of each measurement; empty where nothing was measured."""
    if not numbers:
        return ""
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in numbers.items())
    cards = "\n\n".join(f"### {name}\n\n{_block(how)}" for name, how in protocols.items())
    return f"## Numbers of this run\n\n| number | value |\n| --- | --- |\n{rows}\n{cards}".rstrip()


def _block(content: Mapping[str, Any]) -> str:
    return f"```json\n{json.dumps(_without_places(content), indent=1)}\n```"


def _without_places(value: Any) -> Any:
    """`value` without the folders of the machine that made it: of a path its last part."""
    if isinstance(value, Mapping):
        return {str(key): _without_places(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(each) for each in value]
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return value
