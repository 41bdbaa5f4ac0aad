"""A W&B workspace and a W&B report defined in code, over the keys that runs log: saved, they look alike for everybody.

Needs `wandb-workspaces`: pip install "flowexp[dashboards]".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowexp.records.recording import MAP

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

STEP = "trainer/global_step"  # Lightning's axis; W&B's counts the calls of log()
TRAINING = ("train/loss", "train/grad_norm", "train/lr", "train/steps_per_second")
NOISE_LEVELS = ("noise_levels/loss", "noise_levels/velocity_ratio")
PROBE = ("probe/peak", "probe/at_clean", "probe/dip", "probe/t_peak")
FRECHET = "frechet/efficientnet_lite"  # of the default encoder
METRICS = "^(frechet|fid|sfid|kid|mmd|inception_score|nearest_neighbour|precision|recall)(/.*|_.*)?$"
TERMS = "^train/(?:[a-z0-9_]+)$"
# Curves over the noise level: by measurement, with the table `<measurement>_table`, the columns that are drawn,
# and those that distinguish the lines of one run.
CURVES: dict[str, tuple[tuple[str, ...], str | None]] = {
    "noise_levels": (("loss", "velocity_ratio"), "split"),
    "probe": (("accuracy",), "tap"),
    "condition_number": (("noise_exact", "noise_network", "data_exact", "data_network"), None),
    "gradient_share": (("share", "along"), None),
    "jacobian": (("g_sem", "g_noise", "frobenius"), None),
    "velocity_norms": (("velocity", "target", "ratio", "cosine", "best_scale"), None),
    "integration_lag": (("fld", "fld_marginal", "lag", "lag_marginal"), None),
}
LOW_NOISE = ("condition_number", "gradient_share", "jacobian")  # LCF's questions
DEFICIT = ("velocity_norms", "cross_terms", "integration_lag", "ssc_calibration")  # the Velocity Deficit paper's
FOLDED = ("Low-noise regime", "Velocity deficit")  # sections that most runs have nothing in
SETTINGS = ("objective._target_", "optimizer.lr", "seed", "sampler.s0", "sampler.num_steps")


def sections() -> dict[str, list[Any]]:
    """All panels, by the name of their section, in the order of the page."""
    return {
        "Training": _training(),
        "Noise levels": [*map(_over_steps, NOISE_LEVELS), *_curves("noise_levels"), *_pictures(["noise_levels"])],
        "Probe": [
            *map(_over_steps, PROBE),
            _matching("kNN probe", "^knn/.*"),
            *_curves("probe"),
            *_pictures(["probe"]),
        ],
        "Samples": _pictures(["samples"]),
        "Fréchet distance and metrics": [_over_steps(FRECHET), _matching("all metrics", METRICS)],
        "Low-noise regime": [panel for name in LOW_NOISE for panel in _diagnostic(name)],
        "Velocity deficit": [panel for name in DEFICIT for panel in _diagnostic(name)],
        "Sweep": _comparison(),
    }


def build_workspace(entity: str, project: str) -> Workspace:
    """The workspace of a project; nothing is sent. Raises ValueError without wandb-workspaces."""
    ws = _import("wandb_workspaces.workspaces")
    parts = [ws.Section(name=name, panels=panels, is_open=name not in FOLDED) for name, panels in sections().items()]
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
    from flowexp.records.tracking import has_key

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


def _diagnostic(name: str) -> list[Any]:
    """A diagnostic's numbers over steps, its last curves over the noise level, its picture and its heat map."""
    numbers = _matching(f"{name}: numbers", f"^{name}/.*")
    if name == "ssc_calibration":
        return [numbers, _scales(), *_pictures([name])]
    return [numbers, *_curves(name), *(_pictures([name, f"{name}_{MAP}"]) if name in CURVES else [])]


def _curves(name: str) -> list[Any]:
    """W&B's line chart of a logged table: a curve over t for each run and series."""
    columns, series = CURVES.get(name, ((), None))
    stroke = {} if series is None else {"stroke": series}
    return [
        _table_chart(name, "line", {"x": "t", "y": column, **stroke}, f"{name}: {column} over the noise level t")
        for column in columns
    ]


def _scales() -> Any:
    """What each scale of a calibration changes, over all solvers and steps."""
    fields = {"label": "scale", "value": "difference"}
    return _table_chart("ssc_calibration", "bar", fields, "SSC: Fréchet distance less that of no SSC")


def _table_chart(name: str, kind: str, fields: dict[str, str], title: str) -> Any:
    return _reports().CustomChart(
        query={"summaryTable": {"tableKey": f"{name}_table"}},
        chart_name=f"wandb/{kind}/v0",
        chart_fields=fields,
        chart_strings={"title": title},
    )


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
