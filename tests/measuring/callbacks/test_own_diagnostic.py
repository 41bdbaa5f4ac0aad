"""What docs/diagnostics/README.md promises: a diagnostic of one's own is a file and a yaml."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from flowexp.cli.assembly.building import build_monitors
from flowexp.cli.launch import config_folder
from flowexp.cli.trust import TARGETS
from flowexp.records.recording import Recorder
from flowexp.reporting.page import render_runs
from flowexp.reporting.reading import read_run

PAGE = Path(__file__).parents[3] / "docs/diagnostics/README.md"


def block(kind: str) -> str:
    """The page's only block of code of a kind."""
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> str:
    """The documented file as a module; returns what the documented yaml targets."""
    settings = yaml.safe_load(block("yaml"))
    name, _ = settings["_target_"].rsplit(".", 1)
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(block("python"), module.__dict__)
    return settings["_target_"]


def composed(*overrides: str):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("diagnose", ["run=x", *overrides])


def test_a_diagnostic_of_ones_own_has_its_curve_number_sentence_and_section(
    own, module, datamodule, tmp_path, monkeypatch
):
    monkeypatch.setenv(TARGETS, own)  # as the command line that spells it out does
    config = composed("callbacks=none", f"+callbacks.own._target_={own}", "+callbacks.own.num_images=64")
    (monitor,) = build_monitors(config)
    monitor.run(module, datamodule, Recorder(tmp_path), 5)
    (tmp_path / "config.yaml").write_text("name: mine\n")
    page = render_runs([read_run(tmp_path)])
    for words in ("State norm</h2>", "Mean length of the noised images.", "state_norm/at_noise", "at the noise end"):
        assert words in page, words


@pytest.mark.parametrize("command", re.findall(r"\+callbacks@callbacks\.(velocity_norms)=\w+", PAGE.read_text()))
def test_a_monitor_is_added_to_those_of_a_command_by_the_documented_words(command):
    config = composed("callbacks=none", f"+callbacks@callbacks.{command}={command}")
    assert config.callbacks[command]._target_.endswith("VelocityNorms")
