"""A W&B workspace and a W&B report defined in code, over the keys that runs log: saved, they look alike for everybody.

Needs `wandb-workspaces`: pip install "flowexp[dashboards]".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

STEP = "trainer/global_step"  # Lightning's own axis; W&B's counts the calls of log()
TRAINING = ("train/loss", "train/grad_norm", "train/lr", "train/steps_per_second")
NOISE_LEVELS = ("noise_levels/loss", "noise_levels/velocity_ratio")
PROBE = ("probe/peak", "probe/at_clean", "probe/dip", "probe/t_peak")
FRECHET = "frechet/efficientnet_lite"  # of the default encoder
METRICS = "^(frechet|fid|sfid|kid|mmd|inception_score|nearest_neighbour|precision|recall)(/.*|_.*)?$"
TERMS = "^train/(?:[a-z0-9_]+)$"
# Curves over the noise level: the table that holds one, its value, and what tells its lines apart.
CURVES = (
    ("noise_levels", "noise_levels_table", "loss", "split"),
    ("noise_levels", "noise_levels_table", "velocity_ratio", "split"),
    ("probe", "probe_table", "accuracy", "tap"),
)
DIAGNOSTICS = (
    "velocity_norms", "condition_number", "cross_terms", "gradient_share", "integration_lag", "jacobian", "knn",
    "ssc_calibration",
)  # fmt: skip
SETTINGS = ("objective._target_", "optimizer.lr", "seed", "sampler.s0", "sampler.num_steps")


def sections() -> dict[str, list[Any]]:
    """All panels, by the name of their section, in the order of the page."""
    return {
        "Training": _training(),
        "Noise levels": [*map(_over_steps, NOISE_LEVELS), *_curves("noise_levels")],
        "Probe": [*map(_over_steps, PROBE), *_curves("probe")],
        "Samples": _pictures(["samples"]),
        "Frechet distance and metrics": [_over_steps(FRECHET), _matching("all metrics", METRICS)],
        "Diagnostics": [
            _matching("numbers of diagnostics", f"^({'|'.join(DIAGNOSTICS)})/.*"),
            *_pictures([*DIAGNOSTICS]),
        ],
        "Sweep": _comparison(),
    }


def build_workspace(entity: str, project: str) -> Workspace:
    """The workspace of a project; nothing is sent. Raises ValueError without wandb-workspaces."""
    ws = _import("wandb_workspaces.workspaces")
    parts = [ws.Section(name=name, panels=panels, is_open=name != "Diagnostics") for name, panels in sections().items()]
    settings = ws.WorkspaceSettings(x_axis=STEP, remove_legends_from_panels=False)
    return ws.Workspace(entity=entity, project=project, name="flowexp", sections=parts, settings=settings)


def build_report(entity: str, project: str) -> Report:
    """A report with the same panels, to write around; nothing is sent. Raises ValueError without wandb-workspaces."""
    wr = _import("wandb_workspaces.reports.v2")
    blocks: list[Any] = [wr.TableOfContents()]
    for name, panels in sections().items():
        runs = wr.Runset(entity=entity, project=project)
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    return wr.Report(entity=entity, project=project, title="flowexp: what the runs found", blocks=blocks, width="fluid")


def save_workspace(target: str) -> str:
    """Saves the workspace and a draft of the report in the project ENTITY/PROJECT; returns where they are.

    Raises ValueError, with what to do, without wandb-workspaces, a key or an answer, or for another form of `target`.
    """
    entity, slash, project = target.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise ValueError(f"wandb takes ENTITY/PROJECT, such as wandb=my-team/flowexp, got {target!r}")
    workspace, report = build_workspace(entity, project), build_report(entity, project)
    from flowexp.tracking import has_key

    if not has_key():
        raise ValueError("W&B has no key, or is set offline: run `wandb login` or set WANDB_API_KEY, then save again")
    try:
        workspace.save()
        report.save(draft=True)
    except Exception as error:  # wandb raises several kinds; to a person they are one
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"W&B did not take the workspace of {target} ({type(error).__name__}: {reason})") from error
    return f"{workspace.url}\n{report.url}"


def _training() -> list[Any]:
    """Loss, gradient norm, learning rate and speed; and all terms of the loss in one panel."""
    return [*map(_over_steps, TRAINING), _matching("the loss and its terms", TERMS)]


def _over_steps(key: str) -> Any:
    return _reports().LinePlot(title=key, x=STEP, y=[key])


def _matching(title: str, pattern: str) -> Any:
    return _reports().LinePlot(title=title, x=STEP, metric_regex=pattern)


def _curves(name: str) -> list[Any]:
    """W&B's own line chart of a logged table: a curve over t for each run and series."""
    return [
        _reports().CustomChart(
            query={"summaryTable": {"tableKey": table}},
            chart_name="wandb/line/v0",
            chart_fields={"x": "t", "y": value, "stroke": series},
            chart_strings={"title": f"{value} over the noise level t"},
        )
        for measurement, table, value, series in CURVES
        if measurement == name
    ]


def _pictures(keys: list[str]) -> list[Any]:
    return [_reports().MediaBrowser(title=", ".join(keys), media_keys=keys, mode="gallery", gallery_axis="step")]


def _comparison() -> list[Any]:
    """What the settings of a sweep did to its numbers."""
    wr = _reports()
    settings = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(key)) for key in SETTINGS]
    numbers = [wr.ParallelCoordinatesPlotColumn(metric=wr.SummaryMetric(key)) for key in ("probe/dip", FRECHET)]
    return [
        wr.ParallelCoordinatesPlot(title="settings and numbers", columns=[*settings, *numbers]),
        wr.ParameterImportancePlot(with_respect_to=FRECHET),
        wr.BarPlot(title=FRECHET, metrics=[FRECHET]),
        wr.ScatterPlot(title="pathology and quality", x=wr.SummaryMetric("probe/dip"), y=wr.SummaryMetric(FRECHET)),
        wr.RunComparer(diff_only="split"),
    ]


def _reports() -> Any:
    return _import("wandb_workspaces.reports.v2")


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f'W&B workspaces need wandb-workspaces: pip install "flowexp[dashboards]" ({error})'
        ) from error
