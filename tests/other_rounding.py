"""Another machine's rounding, on this one: `PYTHONPATH=tests python -m pytest -p other_rounding tests/flow/losses`.

Kernels of another processor, of another number of threads or for another batch size add in another order, and their
exponentials differ in the last bit. Here every such result is moved by about as much, and always the same for the same
input, so that a test which fails under it hangs on the rounding of the machine that it was written on.
`FLOWEXP_ROUNDING=2` draws other errors. Only this process is concerned: not those that a test starts.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# Sums, whose error is that of their largest parts and depends on how many are added at once.
SUMS = {
    "mm", "addmm", "bmm", "baddbmm", "mv", "dot", "convolution", "convolution_backward", "mean", "sum", "var", "std",
    "var_mean", "linalg_vector_norm",
    "native_layer_norm", "native_layer_norm_backward", "native_group_norm", "native_group_norm_backward",
    "native_batch_norm", "_native_batch_norm_legit_no_training", "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward", "_cdist_forward", "_euclidean_dist", "cumsum",
    "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "upsample_bilinear2d", "upsample_bicubic2d", "_linalg_eigh",
    "_linalg_svd", "_linalg_det", "_adaptive_avg_pool2d", "avg_pool2d",
}  # fmt: skip
# Functions of one number, each off by itself.
FUNCTIONS = {
    "exp", "log", "log1p", "expm1", "sin", "cos", "tan", "tanh", "sigmoid", "erf", "gelu", "silu", "pow", "rsqrt",
    "_softmax", "_softmax_backward_data", "_log_softmax", "_log_softmax_backward_data", "gelu_backward",
    "silu_backward", "sigmoid_backward", "tanh_backward", "acos", "asin", "atan", "softplus",
}  # fmt: skip
_DRAW = int(os.environ.get("FLOWEXP_ROUNDING", "1"))
_UNITS = 4  # in the last place, at most: what a sum of some hundred parts loses


class OtherRounding(TorchDispatchMode):
    """Moves what sums and functions give by about the rounding of its type."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        is_exact = name in ("sum", "mean") and _is_whole(args[0])  # a count or a share
        if name in SUMS | FUNCTIONS and func._schema.name.startswith("aten::") and not is_exact:
            return _each(result, name in SUMS)
        return result


def _is_whole(x: Tensor) -> bool:
    return not x.is_floating_point() or bool((x == x.round()).all())


def _each(result: Any, is_sum: bool) -> Any:
    if isinstance(result, tuple | list):
        return type(result)(_each(part, is_sum) for part in result)
    is_real = isinstance(result, Tensor) and result.dtype in (torch.float32, torch.float64)
    return _moved(result, is_sum) if is_real and result.numel() and result.device.type == "cpu" else result


def _moved(result: Tensor, is_sum: bool) -> Tensor:
    bits = result.contiguous().view(torch.int32 if result.dtype == torch.float32 else torch.int64).to(torch.int64)
    seed = 7919 * _DRAW + (result.numel() if is_sum else 0)
    scattered = ((bits ^ seed) * 0x9E3779B97F4A7C1) >> 40
    error = (scattered & 0xFFFF).to(result.dtype) / 0x7FFF - 1
    finite = result.nan_to_num(0, 0, 0)
    size = finite.double().square().mean().sqrt().to(result.dtype) if is_sum else finite.abs()
    unit = torch.finfo(result.dtype).eps
    exact = finite == (0 if is_sum else finite.round())  # such as cos 0 and exp 0
    return torch.where(exact, result, result + _UNITS * unit * size * error)


_mode = OtherRounding()


def pytest_sessionstart(session: pytest.Session) -> None:
    _mode.__enter__()


def pytest_sessionfinish(session: pytest.Session) -> None:
    _mode.__exit__(None, None, None)
