"""A wrong value never ends in a stack trace: one sentence names the key and what came, and the exit code is 2."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowexp import replay, report

pytestmark = pytest.mark.slow

TINY = (
    "data=digits", "data.train_size=64", "data.batch_size=16", "+backbone.depth=2", "+backbone.width=16",
    "+backbone.heads=2", "trainer.max_steps=2", "trainer.accelerator=cpu", "callbacks=none", "sampler.num_steps=2",
    "class_conditional=false", "progress_bar=false",
)  # fmt: skip

# A command line for each; of its last argument the key's last part and the value must be in the sentence, or the words
# behind `=>`. R is a run, and C one of a class-conditional network.
WRONG = """
train trainer.devices=abc
train trainer.devices=[0,0]
train trainer.devices=0
train trainer.devices=-2
train trainer.devices=[0,1]
train trainer.devices=2.5
train trainer.devices=true
train trainer.devices=null
train trainer.num_nodes=0
train trainer.num_nodes=2
train trainer.accelerator=tpu
train trainer.accelerator=[cpu]
train trainer.precision=16-mixed
train trainer.precision=16-true
train trainer.precision=bf16-true
train trainer.precision=16
train trainer.precision=8
train trainer.precision=abc dry_run=true => trainer.precision must be one of auto, 32-true, 64-true, bf16-mixed
train trainer.precision=null
train trainer.accumulate_grad_batches=0
train trainer.accumulate_grad_batches=-2
train trainer.accumulate_grad_batches=abc
train trainer.max_steps=ten
train trainer.max_steps=0
train trainer.max_steps=1.5
train trainer.max_steps=-1 => both are unlimited
train +trainer.max_time=abc
train +trainer.max_time=5
train +trainer.min_steps=-1
train +trainer.min_epochs=x
train +trainer.limit_train_batches=0
train +trainer.limit_train_batches=1.5
train +trainer.limit_train_batches=-1
train +trainer.limit_train_batches=0.0001 => limit_train_batches=0.25
train +trainer.limit_train_batches=true
train +trainer.profiler=abc
train +trainer.deterministic=maybe
train +trainer.benchmark=2
train +trainer.detect_anomaly=abc
train +trainer.foo=1
train trainer.gradient_clip_val=-0.5 => gradient_clip_val
train trainer.maxsteps=3
train trainer=null
train trainer=abc
train optimizer.betas=[0.9]
train optimizer.betas=[]
train optimizer.betas=0.9
train optimizer.betas=[0.9,2]
train optimizer.betas=[a,b]
train optimizer.lr=0
train optimizer.lr=abc
train optimizer.lr=nan
train optimizer.weight_decay=-1
train optimizer=null
train +backbone.width=-64
train +backbone.heads=3
train +backbone.depth=0
train +backbone.depth=2.5
train +backbone.foo=3
train backbone.width=32 => +backbone.width=...
train backbone.name=abc => backbone.name must be one of
train backbone.label_dropout=2
train backbone.conditioning=abc
train objective.T_min=5 => which objective=lcf has
train objective=lcf objective.T_min=1000
train objective=lcf objective.T_min=abc
train objective=lcf objective.denominator=abc
train objective=lcf objective.tap=99
train objective=lcf objective.normalize=maybe
train objective=fm,lcf => add -m to sweep over them
train objective=abc
train time_sampler=logit_normal time_sampler.m=1e9 => must be at most 100 in size
train time_sampler=logit_normal time_sampler.s=0
train time_sampler=logit_normal time_sampler.s=-1
train sampler.s0=0
train sampler.s0=-1
train sampler.s0=abc
train sampler.num_steps=0
train sampler.num_steps=abc
train sampler.final_jump=2000
train sampler.guidance_scale=2
train sampler.autoguidance_scale=2 => sampler.autoguidance_scale needs a weaker model
train sampler.solver=abc
train +sampler.solver_options.rtol=1
train sampler=dopri5 sampler.solver_options.rtol=0
train sampler=dopri5 sampler.solver_options.rtol=nan
train sampler=euler_maruyama sampler.solver_options.diffusion=abc
train seed=-1
train seed=null
train seed=99999999999
train class_conditional=7
train log_every_n_steps=0
train ckpt=nowhere
train trained_run=nowhere
train run_dir=
train name=
train name=../../x
train name=/x
train name=null
train output_root=
train output_root=null
train run_dir=null
train optimized_metric=[1]
train data.batch_size=0
train data.train_size=0
train data.train_size=99999999
train data.root=[1]
train data=abc
train data=null
train terms=[dispersive,dispersive]
train terms=dispersive terms.dispersive.lam=abc
train terms=dispersive terms.dispersive.tap=99
train +terms.repa.lam=1
train callbacks=[noise_levels,noise_levels]
train callbacks=abc
train +callbacks.probe.every_n_steps=3
train callbacks=noise_levels callbacks.noise_levels.every_n_steps=0
train callbacks=probe callbacks.probe.levels=[0.1,0.1]
train callbacks=probe callbacks.probe.levels=[]
train callbacks=probe callbacks.probe.levels=abc
train callbacks=probe callbacks.probe.levels=[a]
train callbacks=probe callbacks.probe.taps=[]
train callbacks=probe callbacks.probe.taps=[1.5]
train callbacks=probe callbacks.probe.protocol=abc
train callbacks=probe callbacks.probe.readings=[abc]
train callbacks=probe callbacks.probe.baselines=[abc]
train callbacks=probe callbacks.probe.epochs=0 => at least 1 epoch
train callbacks=frechet callbacks.frechet.num_samples=0 => at least 2 samples are needed
train callbacks=frechet callbacks.frechet.metrics=[abc]
train callbacks=frechet callbacks.frechet.metrics=[]
train callbacks=frechet callbacks.frechet.batch_size=0 => in batches of at least 1
train callbacks=frechet +callbacks.frechet.options.foo=1 => got foo
train callbacks=frechet callbacks.frechet.metrics=[kid] +callbacks.frechet.options.k=abc
train callbacks=samples callbacks.samples.num_samples=0
train callbacks=velocity_norms callbacks.velocity_norms.num_images=0 => at least 2 images
train callbacks=velocity_norms callbacks.velocity_norms.batch_size=0
train checkpoint.every_n_steps=0
train checkpoint.keep=0
train +checkpoint.foo=1
train +logger.project=x => logger.project is called logger.wandb.project now
train logger=abc
train logger=tensorboard
train parameterization.prediction=abc
train strategy=single strategy.foo=1
train +strategy.foo=1
train strategy=fsdp trainer.precision=64-true dry_run=true => does not support `Fabric(..., precision='64-true')`
train strategy=ddp +strategy.foo=1 => there is no key strategy.foo
train foo=1
train +foo=1
train =3 => '' in '=3' is no key
train a$b=3
train x=[é
train run=R => there is no key run
train ~foo
train lr=0.01 => did you mean optimizer.lr?
train experiment=digits_lfc => did you mean digits_lcf?
train --config-dir=nowhere
train -m seed=1,2 run_dir=x
sample run=nowhere
sample run=
sample run=null
sample run=R label=cat
sample run=R label="3"
sample run=R label=[1,2]
sample run=R label=true
sample run=R label=3
sample run=C label=10
sample run=C label=-1
sample run=C labels=abc
sample run=C labels=[1]
sample run=R num_samples=-1
sample run=R num_samples=1e12 => num_samples must be a whole number
sample run=R num_samples=1000000000000
sample run=R batch_size=0
sample run=R seed=-1
sample run=R seed=null
sample run=R device=meta
sample run=R device=3
sample run=R device=cuda
sample run=R device=null
sample run=R checkpoint=nowhere
sample checkpoint=R/config.yaml => lies in no run's folder
sample run=R guide=nowhere
sample run=R guide=R
sample run=R guide_checkpoint=x
sample run=R sampler.num_steps=0
sample run=R sampler.s00=1
sample run=R ++sampler.foo=1
sample run=R sampler={foo:1}
sample run=R sampler.solver_options.rtol=1e-3
sample run=R sampler=dopri5 sampler.solver_options.rtol=0
sample run=R sampler=dopri5 sampler.solver_options.rtol=-1
sample run=R sampler=dopri5 sampler.solver_options.rtol=nan
sample run=R sampler.solver_options=3
sample run=R sampler.guidance_scale=2
sample run=R sampler=null
sample run=R ~sampler.foo
sample run=R ~sampler
sample run=R +objective.T_min=5
sample run=R +callbacks=probe
sample run=R trainer.max_steps=3
sample run=R data.batch_size=3
sample run=R run_dir=R
sample run=R run_dir=
sample run=R experiment=digits_fm
evaluate run=R seed=abc
evaluate run=R seed=1.5
evaluate run=R seed=-1
evaluate run=R seed=-1 callbacks=none => seed must lie in 0..
evaluate run=R seed=[1]
evaluate run=R devices=0
evaluate run=R device=meta
evaluate run=R device=tpu
evaluate run=R +callbacks.probe.levels=[0.1] callbacks=none => +callbacks.probe.levels=[0.1] sets what is not chosen
evaluate run=R +optimizer.lr=1
evaluate run=R +backbone.depth=2
diagnose run=R device=meta
diagnose run=R +data.root=x
diagnose run=R data=digits data.batch_size=0
diagnose run=R callbacks=velocity_norms callbacks.velocity_norms.levels=[2000]
diagnose run=R callbacks=velocity_norms callbacks.velocity_norms.levels=[0.5,0.5]
diagnose run=R seed=3
encode data=abc
encode shard=abc
encode shard=4/4
encode batch_size=abc
encode output=
encode output=null
adopt file=nowhere
adopt file=
adopt file=R/config.yaml
adopt file=R/config.yaml step=abc
report run=nowhere
report run=R pictures=abc
report run=R pictures=0
report run=R pictures=1.5
report run=R foo=1
report foo
report run=R runs=[R]
report runs=[R,R] => the same folder twice
report runs=abc => no folder abc
report runs=abc*
report run=[R,nowhere] => there is no folder nowhere
report wandb=[1]
report run=é
replay nowhere
replay R/config.yaml
""".strip().splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable[..., int]) -> Path:
    """A folder with the two runs."""
    path = tmp_path_factory.mktemp("wrong")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        assert in_this_process("train", *TINY, "run_dir=R") == 0
        assert in_this_process("train", *TINY, "run_dir=C", "class_conditional=true") == 0
    return path


def with_tiny_settings(given: list[str], number: int) -> list[str]:
    """A training that would take a second, were it not refused, in a folder of its own."""
    keys = {argument.partition("=")[0].lstrip("+~") for argument in given}
    settings = [setting for setting in TINY if setting.partition("=")[0].lstrip("+") not in keys]
    named = keys & {"run_dir", "output_root", "name"} or "-m" in given
    return [*settings, *given, *([] if named else [f"run_dir=refused/{number}"])]


def complaint(command: str, arguments: list[str], run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> str:
    """The sentence that a command ends with."""
    if command in ("report", "replay"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [command, *arguments])
            code = {"report": report, "replay": replay}[command].main()
    else:
        code = run(command, *arguments)
    told = capsys.readouterr().err
    assert code == 2 and "Traceback" not in told
    lines = [line for line in told.splitlines() if "error: " in line]
    assert len(lines) == 1, told
    return lines[0].partition("error: ")[2]


def test_the_list_is_long() -> None:
    assert len({*WRONG}) == len(WRONG) >= 150
    assert {line.split()[0] for line in WRONG} >= {
        "train",
        "sample",
        "evaluate",
        "diagnose",
        "encode",
        "adopt",
        "report",
    }


@pytest.mark.parametrize("number", range(len(WRONG)), ids=lambda number: WRONG[number].partition(" => ")[0])
def test_a_wrong_value_is_refused_in_a_sentence(
    number: int, folder: Path, in_this_process: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.chdir(folder)
    line, _, words = WRONG[number].partition(" => ")
    command, *given = shlex.split(line)
    arguments = with_tiny_settings(given, number) if command == "train" else given
    sentence = complaint(command, arguments, in_this_process, capsys)
    key, _, value = given[-1].partition("=")
    came = (
        [] if re.search("there is no key|nothing reads|is not taken", sentence) else re.findall(r"[\w.-]+", value)[:1]
    )
    expected = [words] if words else [re.split(r"[.+~]", key)[-1], *came]
    assert all(word in sentence for word in expected), (expected, sentence)
    assert "full_key" not in sentence and "object_type" not in sentence  # OmegaConf's own words
