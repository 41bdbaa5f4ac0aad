"""What lies in front of a command's work: torch and Lightning, and what they may never use only once it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
AS_A_JOB = """if True:
    import sys
    from flowexp.cli.quick_imports import Postponed, quick_imports
    with quick_imports():
        import flowexp.cli.assembly.building, flowexp.cli.assembly.starting, flowexp.train, flowexp.evaluate
    import torch
"""
NOT_BEFORE_THE_WORK = (
    "datasets", "diffusers", "matplotlib", "scipy", "sklearn", "sympy", "timm", "torch._inductor",
    "torch.distributed.fsdp", "torch.distributed.tensor", "torch_fidelity", "torchvision", "transformers", "wandb",
)  # fmt: skip


def output_of(code: str) -> list[str]:
    """The lines that a process prints which has imported what a job imports."""
    command = [sys.executable, "-c", AS_A_JOB + code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_training_step_needs_nothing_heavy():
    step = f"""
    weight = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(weight.parameters())
    weight(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    print(*(name for name in {NOT_BEFORE_THE_WORK} if name in sys.modules))
    """
    assert output_of(step) == [""]


def test_what_is_postponed_is_whole_once_it_is_used():
    use = """
    from pytorch_lightning.utilities.compile import OptimizedModule
    linear = torch.nn.Linear(2, 2)
    print(isinstance(linear, OptimizedModule), isinstance(sys.modules["torch._dynamo"], Postponed))
    compiled = torch.compile(linear, backend="eager")
    print(torch.equal(compiled(torch.ones(1, 2)), linear(torch.ones(1, 2))))
    print(isinstance(linear, OptimizedModule), isinstance(compiled, OptimizedModule))

    import pytorch_lightning.core.module, torchmetrics
    print(isinstance(torchmetrics, Postponed), torchmetrics.Metric is pytorch_lightning.core.module.Metric)
    mean = torchmetrics.MeanMetric()
    mean.update(torch.tensor([1.0, 2.0]))
    print(isinstance(mean, torchmetrics.Metric), float(mean.compute()), len(mean.plot()))
    """
    lines = ["False True", "True", "False True", "True True", "True 1.5 2"]
    assert output_of(use) == lines


def test_a_submodule_of_the_compiler_completes_it():
    use = """
    import torch._dynamo.utils
    print(type(torch._dynamo) is type(sys), torch._dynamo.utils is sys.modules["torch._dynamo.utils"])
    """
    assert output_of(use) == ["True True"]


def test_what_is_imported_already_stays_as_it_is():
    importlib.import_module("torch._dynamo")

    from flowexp.cli.quick_imports import Postponed, postpone_the_compiler, quick_imports

    with quick_imports():
        postpone_the_compiler()
    assert not isinstance(sys.modules["torch._dynamo"], Postponed)
