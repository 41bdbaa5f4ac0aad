"""What cards can do at most: the peak of products of matrices in bf16, by the name that the driver gives a card."""

from __future__ import annotations

import re

import torch

# Words of a name -> TFLOP/s of dense products in bf16, summed in fp32, by the vendor's data sheet (whose larger figure
# is that of sparse matrices, twice as much). The first line whose words are all in the name counts.
TFLOPS: dict[tuple[str, ...], float] = {
    ("B200",): 2250,
    ("GH200",): 989,
    ("H200", "NVL"): 836,
    ("H200",): 989,
    ("H100", "PCIe"): 756,
    ("H100", "NVL"): 836,
    ("H100",): 989,
    ("A100",): 312,
    ("A40",): 150,
    ("A10",): 125,
    ("L40S",): 362,
    ("L4",): 121,
    ("RTX", "4090"): 165,
    ("RTX", "3090"): 71,
}
PARTIAL = {"MIG", "Laptop", "D"}  # a slice of a card, or a smaller chip of the same name


def peak_of(name: str) -> float | None:
    """FLOP per second of the card with this name; None for a card that is not in the table."""
    words = set(re.split(r"[\s-]+", name))
    if words & PARTIAL:
        return None
    return next((1e12 * peak for wanted, peak in TFLOPS.items() if words.issuperset(wanted)), None)


def name_of(device: torch.device) -> str:
    """The card's name; of a processor "this processor"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "this processor"
