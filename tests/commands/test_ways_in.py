"""A stored config runs no code: each way in is refused by each command, at any depth, before anything is built."""

from __future__ import annotations

import ast
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from flowexp.cli import jobs, trust
from flowexp.cli.assembly.building import build
from flowexp.cli.assembly.rebuilding import stored_config
from flowexp.cli.composing import Configs
from flowexp.records.run_folder import CONFIG, RunFolder

ROOT = Path(__file__).resolve().parents[2]
PLACES = (
    "interpolant", "optimizer.betas", "coupling", "terms.mine", "sampler.profile", "data.text", "backbone.taps.0.deep",
    "lr_schedule.inner", "ema.decay", "time_sampler", "parameterization", "objective",
)  # fmt: skip
OUR_OWN_THAT_WRITE_DELETE_OR_LOAD = (
    "flowexp.training.checkpoints.AtomicCheckpointIO.remove_checkpoint", "flowexp.records.files.atomic.write_text",
    "flowexp.records.files.atomic.remove_leftovers", "flowexp.records.run_folder.Path.unlink", "flowexp.sample.main",
    "flowexp.records.csv_log.CsvLog", "flowexp.records.tracking.wandb_logger", "flowexp.cli.assembly.building.build",
    "flowexp.cli.assembly.building.instantiate", "flowexp.cli.trust.use_parts", "flowexp.cli.sweeps.table.NoteSweep",
    "flowexp.integrations.encoders.weights.torch.load", "flowexp.data.storage.downloads.download",
    "flowexp.cli.launch.os.execv",
    "flowexp.training.checkpoints.StepCheckpoint", "flowexp.cli.recipes.runs.call", "flowexp.cli.jobs.main",
)  # fmt: skip


class _Pickled:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def ways_in(folder: Path, marker: Path) -> dict[str, dict[str, Any]]:
    """Targets outside flowexp with arguments that make `marker`, most of them under the Hydra of requirements.lock."""
    (folder / "hubconf.py").write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\nmine = dict\n")
    (folder / "payload.npy").write_bytes(pickle.dumps(_Pickled(marker)))
    (folder / "payload_of_a_stranger.py").write_text((folder / "hubconf.py").read_text())
    python, shell = f"__import__('pathlib').Path({str(marker)!r}).touch()", f"touch {marker}"
    pickled, written = str(folder / "payload.npy"), {"_target_": "builtins.open", "file": str(marker), "mode": "w"}
    return {
        "sympy.sympify": {"a": python},
        "sympy.parsing.sympy_parser.parse_expr": {"s": python},
        "torch.hub.load": {"repo_or_dir": str(folder), "model": "mine", "source": "local"},
        "torch.load": {"f": pickled, "weights_only": False},
        "torch.save": {"obj": 1, "f": str(marker)},
        "torch.utils.collect_env.run": {"command": shell},
        "numpy.load": {"file": pickled, "allow_pickle": True},
        "numpy.savetxt": {"fname": str(marker), "X": [1]},
        "joblib.load": {"filename": pickled},
        "functools.partial": {"_args_": [written]},
        "builtins.dict": {"inner": written},
        "importlib.import_module": {"name": "payload_of_a_stranger"},
        "payload_of_a_stranger.mine": {},
        "runpy.run_path": {"path_name": str(folder / "hubconf.py")},
        "subprocess.run": {"args": ["touch", str(marker)]},
        "subprocess.Popen": {"args": ["touch", str(marker)]},
        "os.system": {"command": shell},
        "shutil.copyfile": {"src": pickled, "dst": str(marker)},
        "pathlib.Path.touch": {"_args_": [{"_target_": "pathlib.Path", "_args_": [str(marker)]}]},
        "pathlib.Path.write_text": {"_args_": [{"_target_": "pathlib.Path", "_args_": [str(marker)]}, "x"]},
        "builtins.eval": {"_args_": [python]},
        "builtins.exec": {"_args_": [python]},
        "builtins.open": {"file": str(marker), "mode": "w"},
        "hydra.utils.instantiate": {"config": written},
        "hydra.utils.call": {"_args_": [written]},
        "hydra.utils.get_object": {"path": "payload_of_a_stranger.mine"},
        "jinja2.Template.render": {"_args_": [{"_target_": "jinja2.Template", "_args_": ["x"]}]},
        "urllib.request.urlretrieve": {"url": Path(pickled).as_uri(), "filename": str(marker)},
        "pytorch_lightning.LightningModule.load_from_checkpoint": {"checkpoint_path": pickled},
        "torch.optim.lr_scheduler.warnings.warn": {"_args_": ["x"]},
        "torch.optim.Optimizer.load_state_dict": {},
    }


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marker") / "made_by_the_payload"


@pytest.fixture(scope="module")
def payloads(tmp_path_factory: pytest.TempPathFactory, marker: Path) -> Iterator[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("payloads")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield ways_in(folder, marker)


@pytest.fixture(autouse=True)
def nothing_is_vouched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process leave their variables behind, and a test here nothing."""
    for variable in (trust.TARGETS, trust.PARTS, CONFIG):
        monkeypatch.setenv(variable, "")
    monkeypatch.delenv(CONFIG)
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture(scope="module")
def plain() -> DictConfig:
    """The config of a training, resolved, as a run's folder has it."""
    config = Configs().compose("train", ["name=x", "run_dir=x", "callbacks=none"])
    resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(resolved, DictConfig)
    return resolved


def poisoned(config: DictConfig, place: str, target: str, arguments: dict[str, Any]) -> DictConfig:
    """The config with a `_target_` at `place`; what stands there gives way to it."""
    copy = OmegaConf.create(OmegaConf.to_container(config))
    assert isinstance(copy, DictConfig)
    node: dict[str, Any] = {"_target_": target, **arguments}
    if ".0." in place:  # inside a list
        place, _, key = place.partition(".0.")
        OmegaConf.update(copy, place, [{key: node}], merge=False, force_add=True)
    else:
        OmegaConf.update(copy, place, node, merge=False, force_add=True)
    return copy


def test_no_way_in_passes_at_any_depth_of_a_stored_config(
    payloads: dict[str, dict[str, Any]], plain: DictConfig, tmp_path: Path, marker: Path
) -> None:
    targets = {**payloads, **{target: {} for target in OUR_OWN_THAT_WRITE_DELETE_OR_LOAD}}
    for number, (target, arguments) in enumerate(targets.items()):
        place = PLACES[number % len(PLACES)]
        with pytest.raises(ValueError, match=rf"{place.split('.0.')[0]}.* would call {target}.*parts=FOLDER"):
            trust.check_stored(poisoned(plain, place, target, arguments))
    for place in PLACES:
        OmegaConf.save(poisoned(plain, place, "sympy.sympify", payloads["sympy.sympify"]), tmp_path / "config.yaml")
        with pytest.raises(ValueError, match=r"would call sympy\.sympify"):
            stored_config(RunFolder(tmp_path))
    assert not marker.exists()


def test_what_builds_refuses_too_and_imports_nothing(payloads: dict[str, dict[str, Any]], marker: Path) -> None:
    for target, arguments in payloads.items():
        for config in ({"_target_": target, **arguments}, {"_target_": "flowexp.training.ema.EMA", "decay": arguments}):
            if any("_target_" in str(value) for value in arguments.values()) or config["_target_"] == target:
                with pytest.raises(ValueError, match="would call"):
                    build(OmegaConf.create(config))
    assert "payload_of_a_stranger" not in sys.modules and not marker.exists()


def test_the_parts_of_conf_and_the_optimizers_of_torch_pass(plain: DictConfig) -> None:
    trust.check_stored(plain)
    trust.check_targets(plain)
    for target in ("torch.optim.RMSprop", "torch.optim.lr_scheduler.StepLR"):
        trust.check_stored(poisoned(plain, "optimizer", target, {}))


def test_no_file_is_read_in_a_way_that_runs_it() -> None:
    """Tensors are read with weights_only and arrays without pickles, wherever files are read."""
    for file in [*ROOT.glob("flowexp/**/*.py"), *ROOT.glob("experiments/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            said = {each.arg: ast.unparse(each.value) for each in call.keywords}
            if ast.unparse(call.func).endswith("torch.load"):
                assert said.get("weights_only") == "True", file
            assert said.get("allow_pickle", "False") == "False" and "trust_remote_code" not in said, file
            assert ast.unparse(call.func) not in ("pickle.load", "pickle.loads", "joblib.load"), file


# --- every command ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(shell, tiny) -> Path:
    """A run of one step."""
    shell.here("train", *tiny, "trainer.max_steps=1", "checkpoint.every_n_steps=1", "run_dir=sound").succeeded()
    return shell.folder / "sound"


@pytest.fixture
def poison(sound: Path) -> Iterator[Callable[..., Path]]:
    """Makes a copy of the run whose config has a payload at a place; its folder."""
    copy = sound.with_name("poisoned")

    def make(place: str, target: str, arguments: dict[str, Any]) -> Path:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(sound, copy)
        config = OmegaConf.load(copy / "config.yaml")
        assert isinstance(config, DictConfig)
        OmegaConf.save(poisoned(config, place, target, arguments), copy / "config.yaml")
        return copy

    yield make
    shutil.rmtree(copy, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sample", ["run=poisoned", "num_samples=2"]),
        ("sample", ["run=sound", "num_samples=2", "guide=poisoned", "sampler.autoguidance_scale=2"]),
        ("evaluate", ["run=poisoned", "callbacks=[samples]"]),
        ("diagnose", ["run=poisoned"]),
        ("export", ["run=poisoned", "to=exported"]),
    ],
    ids=["sample", "guide", "evaluate", "diagnose", "export"],
)
def test_a_command_on_a_run_of_a_stranger_ends_in_a_sentence(
    command: str, words: list[str], shell, poison, payloads, marker: Path
) -> None:
    for place, target in [("optimizer.betas", "sympy.sympify"), ("coupling", "torch.utils.collect_env.run")]:
        poison(place, target, payloads[target])
        refused = shell.here(command, *words, "device=cpu")
        assert refused.code == 2 and refused.err.count("error: ") == 1, refused.err
        assert f"{place} would call {target}" in refused.err and "poisoned/config.yaml" in refused.err
        assert "Traceback" not in refused.err and not marker.exists()


@pytest.mark.slow
def test_training_that_begins_from_the_weights_of_a_stranger_s_run_refuses_it(
    shell, tiny, poison, payloads, marker: Path
) -> None:
    poison("coupling", "sympy.sympify", payloads["sympy.sympify"])
    refused = shell.here("train", *tiny, "init=poisoned", "run_dir=from_its_weights")
    assert refused.code == 2 and "coupling would call sympy.sympify" in refused.err and not marker.exists()


@pytest.mark.slow
def test_the_sampler_that_is_taken_from_a_run_is_looked_at_too(shell, poison, payloads, marker: Path) -> None:
    poison("sampler.profile", "sympy.sympify", payloads["sympy.sympify"])
    for command, words in {"sample": (), "evaluate": (), "diagnose": (), "export": ("to=exported",)}.items():
        refused = shell.here(command, "run=poisoned", *words)
        assert refused.code == 2 and "would call sympy.sympify" in refused.err and not marker.exists()


@pytest.mark.slow
def test_replaying_a_step_in_a_folder_of_a_stranger_is_refused(
    shell, poison, payloads, marker: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowexp import replay

    file = poison("coupling", "sympy.sympify", payloads["sympy.sympify"]) / "nonfinite_step_00000001.pt"
    file.write_bytes(b"")
    monkeypatch.setattr(replay, "_read", lambda path: None)  # the step itself is sound
    monkeypatch.setattr(sys, "argv", ["flowexp.replay", str(file)])
    assert replay.main() == 2
    assert "coupling would call sympy.sympify" in capsys.readouterr().err and not marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", ["ckpt=poisoned", "run_dir=from_it", "trainer.max_steps=1"]),
        ("train", ["run_dir=poisoned", "ckpt=last", "trainer.max_steps=1"]),
        ("train", ["trained_run=poisoned", "run_dir=shares_it", "trainer.max_steps=1"]),
        ("train", ["init=poisoned", "run_dir=begins_from_it", "trainer.max_steps=1"]),
    ],
    ids=["ckpt", "run_dir", "trained_run", "init"],
)
def test_training_from_a_run_builds_nothing_that_its_config_names(
    command: str, words: list[str], shell, tiny, poison, payloads, marker: Path
) -> None:
    poison("coupling", "sympy.sympify", payloads["sympy.sympify"])
    ended = shell.here(command, *tiny, *words)
    assert ended.code in (0, 2) and "Traceback" not in ended.err and not marker.exists()


@pytest.mark.slow
def test_a_report_of_a_stranger_s_run_builds_nothing(poison, payloads, marker: Path, monkeypatch) -> None:
    from flowexp import report

    folder = poison("coupling", "sympy.sympify", payloads["sympy.sympify"])
    monkeypatch.setattr(sys, "argv", ["flowexp.report", f"run={folder}"])
    assert report.main() == 0 and not marker.exists()


@pytest.mark.parametrize("command", ["train", "encode", "sample", "evaluate", "diagnose", "adopt", "export"])
def test_a_job_whose_config_lies_in_a_folder_is_refused(
    command: str, payloads, marker: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = poisoned(OmegaConf.create(), "data.deep.er", "sympy.sympify", payloads["sympy.sympify"])
    OmegaConf.save(config, tmp_path / "config.yaml")
    monkeypatch.setattr(sys, "argv", ["flowexp.cli.jobs", command, str(tmp_path)])
    assert jobs.main() == 2
    assert "data.deep.er would call sympy.sympify" in capsys.readouterr().err and not marker.exists()


@pytest.mark.slow
def test_a_recipe_that_measures_a_run_of_a_stranger_stops_at_the_command_that_refuses_it(
    shell, poison, payloads, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flowexp import reproduce
    from flowexp.cli.recipes import runs

    def call(name: str, overrides: Sequence[str]) -> None:
        refused = shell.here(name, *overrides)
        assert refused.code == 2 and "coupling would call sympy.sympify" in refused.err
        raise SystemExit(refused.code)

    monkeypatch.setattr(runs, "call", call)
    monkeypatch.chdir(shell.folder)
    poison("coupling", "sympy.sympify", payloads["sympy.sympify"])
    with pytest.raises(SystemExit) as ended:
        reproduce.main(["vd/fig05", "budget=smoke", "run=poisoned"])
    assert ended.value.code == 2 and not marker.exists()


def test_a_stored_config_reads_nothing_of_its_reader(plain: DictConfig, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(plain) + "secret: ${oc.env:HOME}\n")
    with pytest.raises(ValueError, match=r"config\.yaml is damaged, or not by flowexp: .*\$\{oc\.env:HOME\}"):
        RunFolder(tmp_path).config()


# --- what the command line vouches for --------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder of one's own, with an environment and flowexp itself deeper in it."""
    folder = tmp_path / "mine"
    (folder / "a_package_of_mine").mkdir(parents=True)
    (folder / "an_idea_of_mine.py").write_text("import os\nfrom pathlib import Path\n\nclass Idea:\n    pass\n")
    (folder / "a_package_of_mine/__init__.py").write_text("from a_package_of_mine.inner import Inner\n")
    (folder / "a_package_of_mine/inner.py").write_text("class Inner:\n    pass\n")
    return folder


def allowed(target: str) -> bool:
    try:
        trust.check_targets(OmegaConf.create({"_target_": target}))
    except ValueError:
        return False
    return True


def test_parts_lets_in_what_is_defined_in_its_files_and_nothing_that_they_import(parts: Path) -> None:
    assert not allowed("an_idea_of_mine.Idea")
    trust.use_parts(str(parts))
    assert allowed("an_idea_of_mine.Idea") and allowed("a_package_of_mine.Inner")
    for imported in ("an_idea_of_mine.os.system", "an_idea_of_mine.Path.unlink", "os.system", "sympy.sympify"):
        assert not allowed(imported)
    trust.use_parts(None)
    assert not allowed("an_idea_of_mine.Idea")


def test_parts_is_not_what_lies_deeper_in_its_folder_nor_flowexp() -> None:
    trust.use_parts(str(ROOT))  # a checkout, often with .venv in it
    assert not allowed("sympy.sympify") and not allowed("flowexp.records.files.atomic.write_text")


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"parts=.*nowhere is no folder"):
        trust.use_parts(str(tmp_path / "nowhere"))


def test_words_and_yamls_of_the_command_line_vouch_for_the_targets_that_they_name(tmp_path: Path) -> None:
    (tmp_path / "terms").mkdir()
    (tmp_path / "terms/x.yaml").write_text("x:\n  _target_: of.a.yaml\n")
    words = [
        "sampler.solver={_target_:of.a.group}",
        "+callbacks.x._target_=of.a.key",
        '++a=\'{"_target_": "quoted.x"}\'',
    ]
    said = trust.vouched_for([*words, "seed=1"], [tmp_path])[trust.TARGETS].split()
    assert said == ["of.a.group", "of.a.key", "of.a.yaml", "quoted.x"]


def test_what_a_run_says_of_its_parts_counts_for_nothing(parts: Path, plain: DictConfig) -> None:
    config = poisoned(plain, "coupling", "an_idea_of_mine.Idea", {})
    config.parts = str(parts)
    with pytest.raises(ValueError, match=r"coupling would call an_idea_of_mine\.Idea.*made with parts=.*mine"):
        trust.check_stored(config)


@pytest.mark.slow
def test_a_folder_of_yamls_vouches_for_what_it_names_each_time(
    shell, tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "optimizer_of_mine.py").write_text("from torch.optim import SGD\n\nclass Slow(SGD):\n    pass\n")
    (tmp_path / "yamls/optimizer").mkdir(parents=True)
    (tmp_path / "yamls/optimizer/slow.yaml").write_text("_target_: optimizer_of_mine.Slow\n_partial_: true\nlr: 0.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    named = f"--config-dir={tmp_path / 'yamls'}"
    short = ("trainer.max_steps=1", "run_dir=slow")
    shell.here("train", named, *tiny, "optimizer=slow", *short).succeeded()
    drawn = ("run=slow", "num_samples=2", "device=cpu", "sampler.num_steps=2")
    refused = shell.here("sample", *drawn)
    assert refused.code == 2 and "optimizer would call optimizer_of_mine.Slow" in refused.err
    shell.here("sample", named, *drawn).succeeded()
    shell.here("sample", *drawn, f"parts={tmp_path}").succeeded()
