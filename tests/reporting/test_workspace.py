"""The W&B workspace shows what runs log: every key of its panels is one that a monitor or the training log writes."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import flowexp
from flowexp.measuring.callbacks.diagnostics_along_t import CurveMonitor, VelocityNorms
from flowexp.measuring.callbacks.probe import ProbeMonitor
from flowexp.measuring.diagnostics import LevelCondition, LevelGradient, LevelJacobian, LevelLag, LevelNorms
from flowexp.records.recording import MAP
from flowexp.reporting import workspace
from flowexp.reporting.workspace import CURVES, DEFICIT, LOW_NOISE, build_report, build_workspace, save_workspace

SOURCE = Path(flowexp.__file__).parent

needs_wandb_workspaces = pytest.mark.skipif(
    not importlib.util.find_spec("wandb_workspaces"), reason="flowexp[dashboards] is not installed"
)


def strings_of(*files: Path) -> set[str]:
    """All string constants of source files."""
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    return {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.fixture(scope="module")
def logged() -> set[str]:
    """Keys in the sources of the monitors, of the step log and of what a module hands it; pictures and tables too."""
    monitors = strings_of(*(SOURCE / "measuring/callbacks").glob("*.py"))
    keys = {word for word in monitors if re.fullmatch(r"[a-z_]+/[a-z_]+", word)}
    keys |= set(ProbeMonitor([0.1]).scalar_names())
    of_learner = strings_of(SOURCE / "training/learner.py")
    steps, keys = of_learner & {"loss", "grad_norm"}, keys | (of_learner & {"train/lr"})
    of_encoders = strings_of(*(SOURCE / "integrations/encoders").glob("*.py"))
    encoder = of_encoders & {"frechet/efficientnet_lite", "efficientnet_lite"}
    names = monitors & {*CURVES, *LOW_NOISE, *DEFICIT, "samples"}
    keys |= {f"train/{word}" for word in steps} | {f"frechet/{word.split('/')[-1]}" for word in encoder}
    return keys | names | {f"{name}_{kind}" for name in names for kind in ("table", MAP)}


def keys_of(panel: dict[str, Any]) -> set[str]:
    """The metric keys that a serialised panel shows."""
    config = panel["config"]
    keys = {*(config.get("metrics") or []), *(config.get("mediaKeys") or []), config.get("targetKey")}
    keys |= {config.get(axis) for axis in ("xAxis", "yAxis")} if panel["viewType"] == "Scatter Plot" else set()
    keys |= {column["accessor"] for column in config.get("columns") or [] if column["accessor"].startswith("summary:")}
    keys |= {*re.findall(r"'value': '(\w+_table)'", str(config.get("userQuery")))}
    return {key.removeprefix("summary:") for key in keys if key}


@pytest.fixture(scope="module")
def sections() -> dict[str, list[dict[str, Any]]]:
    view = build_workspace("team", "flowexp")._to_model().model_dump(by_alias=True, mode="json")
    assert (view["entity"], view["project"]) == ("team", "flowexp")
    return {part["name"]: part["panels"] for part in view["spec"]["section"]["panelBankConfig"]["sections"]}


@needs_wandb_workspaces
def test_the_workspace_serialises_offline_with_a_section_for_each_kind(sections):
    names = ["Training", "Noise levels", "Probe", "Samples", "Fréchet distance and metrics"]
    names += ["Low-noise regime", "Velocity deficit", "Sweep"]
    assert list(sections) == names and all(sections.values())


@needs_wandb_workspaces
def test_every_key_of_a_panel_is_one_that_runs_log(sections, logged: set[str]):
    shown = {name: {key for panel in panels for key in keys_of(panel)} for name, panels in sections.items()}
    assert {"train/loss", "train/lr"} <= shown["Training"] and {"noise_levels_table"} <= shown["Noise levels"]
    assert "probe/dip" in shown["Probe"] and "probe/dip" in shown["Sweep"] and shown["Samples"] == {"samples"}
    for name, keys in shown.items():
        assert keys <= logged, name


@needs_wandb_workspaces
def test_curves_over_levels_are_charts_of_logged_tables(sections):
    charts = [panel["config"] for panel in sections["Probe"] if panel["viewType"] == "Vega2"]
    assert [chart["fieldSettings"] for chart in charts] == [{"x": "t", "y": "accuracy", "stroke": "tap"}]


DIAGNOSTICS = VelocityNorms.__module__
POINTS = {
    "condition_number": LevelCondition,
    "gradient_share": LevelGradient,
    "jacobian": LevelJacobian,
    "velocity_norms": LevelNorms,
    "integration_lag": LevelLag,
}


def test_the_columns_of_curves_are_those_of_the_monitors_tables(finished: Path):
    from flowexp.reporting.reading import read_run

    columns = {name: {*read_run(finished).of(name)[-1].rows[0]} for name in ("noise_levels", "probe")}
    columns |= {name: {field.name for field in fields(point)} for name, point in POINTS.items()}
    for name, (values, series) in CURVES.items():
        assert {"t", *values, series} - {None} <= columns[name], name


def test_every_monitor_has_its_curves_and_its_numbers(sections):
    curves = {monitor.name for monitor in CurveMonitor.__subclasses__() if monitor.__module__ == DIAGNOSTICS}
    assert curves == POINTS.keys() == CURVES.keys() - {"noise_levels", "probe"}
    assert {*LOW_NOISE, *DEFICIT} == {*POINTS, "cross_terms", "ssc_calibration"}
    panels = [panel["config"] for part in ("Low-noise regime", "Velocity deficit") for panel in sections[part]]
    patterns = [panel["metricRegex"] for panel in panels if panel.get("metricRegex")]
    for name in (*LOW_NOISE, *DEFICIT):
        assert any(re.fullmatch(pattern, f"{name}/any") for pattern in patterns), name


@pytest.mark.parametrize("key", ["frechet/inception", "fid", "kid/inception", "precision"])
def test_metrics_are_matched_whatever_their_encoder(key: str):
    assert re.fullmatch(workspace.METRICS, key)


@needs_wandb_workspaces
def test_the_report_has_the_same_panels():
    grids = [block for block in build_report("team", "flowexp").blocks if hasattr(block, "panels")]
    assert [len(grid.panels) for grid in grids] == [len(panels) for panels in workspace.sections().values()]


@pytest.mark.parametrize("target", ["flowexp", "/flowexp", "a/b/c"])
def test_a_place_that_is_no_project_is_refused(target: str):
    with pytest.raises(ValueError, match="ENTITY/PROJECT"):
        save_workspace(target)


@needs_wandb_workspaces
def test_without_a_key_nothing_is_sent_and_a_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ValueError, match="wandb login"):
        save_workspace("team/flowexp")


def test_without_the_extra_a_sentence_names_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(ValueError, match=r"flowexp\[dashboards\]"):
        save_workspace("team/flowexp")
