"""Public objects by package: a page for each, which mkdocstrings fills from their docstrings."""

from __future__ import annotations

import ast
from pathlib import Path

from tools.site.pages import ROOT

PACKAGES = {  # in the order of a reader who trains, samples and measures
    "flowexp": "A trained network in three lines",
    "flowexp.objectives": "Objectives",
    "flowexp.objectives.terms": "Loss terms",
    "flowexp.backbones": "Networks",
    "flowexp.data": "Data",
    "flowexp.training": "Training",
    "flowexp.flow": "Paths, time, sampling and SSC",
    "flowexp.flow.solvers": "Solvers",
    "flowexp.flow.losses": "Losses, one formula each",
    "flowexp.measuring.diagnostics": "Diagnostics",
    "flowexp.measuring.metrics": "Scores of samples",
    "flowexp.integrations.encoders": "Frozen networks",
    "flowexp.integrations.diffusers": "diffusers",
    "flowexp.cli.recipes": "Recipes of figures",
}
OBJECT_PAGES = {package: f"objects/{package.replace('.', '_')}.md" for package in PACKAGES}  # below the reference
WITHOUT_A_LIST = {  # packages whose modules are public as they are
    "flowexp": ["load"],
    "flowexp.training": ["ema.EMA", "lr_schedules", "couplings", "step_draws.StepKey"],
    "flowexp.flow": [
        "interpolants", "time", "time_samplers", "parameterization", "profiles", "velocity", "sampler.Sampler",
    ],
    "flowexp.integrations.diffusers": [
        "SSCFlowMatchEulerDiscreteScheduler", "SSCFlowMatchHeunDiscreteScheduler", "SSCDPMSolverMultistepScheduler",
    ],
}  # fmt: skip


def public_names(package: str) -> list[str]:
    """`__all__` of a package, read without importing it."""
    if package in WITHOUT_A_LIST:
        return WITHOUT_A_LIST[package]
    source = ROOT.joinpath(*package.split("."), "__init__.py").read_text()
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
            return list(ast.literal_eval(statement.value))
    raise ValueError(f"{package} has no __all__: list its public names in tools/site/objects.py")


def write_objects(folder: Path) -> None:
    """A page for each package below `folder`/objects."""
    (folder / "objects").mkdir(parents=True, exist_ok=True)
    for package, title in PACKAGES.items():
        blocks = "\n\n".join(f"::: {package}.{name}" for name in public_names(package))
        (folder / OBJECT_PAGES[package]).write_text(f"# {title}\n\nPackage `{package}`.\n\n{blocks}\n")
