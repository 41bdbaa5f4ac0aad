"""`run=zoo:NAME`: the run of a network that comes with flowexp, in a folder here, where its measurements can lie."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from flowexp.records import zoo
from flowexp.records.files import atomic, fingerprint
from flowexp.records.files.json_files import read_object
from flowexp.records.run_folder import RunFolder

RUNS = Path("outputs/zoo")


def unpack(name: str, root: Path = RUNS) -> Path:
    """The run folder of `zoo:NAME` below `root`: made at the first time, and again where the network has changed.

    Its weights are the EMA that the zoo has, in the place of those as trained, as those of `adopt` are.

    Raises:
        ValueError: there is none of that name.
    """
    source = zoo.find(name)
    run, origin = RunFolder(root / source.name), read_object(source / zoo.ORIGIN)
    weights = fingerprint.of_file(source / zoo.WEIGHTS)
    if not (run.has_trained() and _is_of(run, weights)):
        step = int(origin["num_steps"])
        _write_checkpoint(run, source, step)
        config = OmegaConf.load(source / zoo.CONFIG)
        config.run_dir = str(run.path)
        atomic.write_text(run.config_file, OmegaConf.to_yaml(config))
        atomic.write_json(run.origin_file, origin | {"adopted": {"file": f"zoo:{source.name}", "fingerprint": weights}})
        atomic.write_json(run.trained_file, {"step": step})
    return run.path


def _is_of(run: RunFolder, weights: str) -> bool:
    adopted = run.origin().get("adopted", {})
    return bool(adopted.get("fingerprint") == weights)


def _write_checkpoint(run: RunFolder, source: Path, step: int) -> None:
    from flowexp.integrations.published import read_weights
    from flowexp.training.checkpoints import AtomicCheckpointIO, path_of

    state = {f"backbone.{name}": value for name, value in read_weights(source / zoo.WEIGHTS).items()}
    AtomicCheckpointIO().save_checkpoint({"state_dict": state, "global_step": step}, path_of(run.checkpoints, step))
