"""`compile=auto`: the count of operations, and the runs that are compiled."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from flowexp.backbones import create_backbone
from flowexp.cli.assembly import compiling
from flowexp.cli.assembly.compiling import REPAID, CompilerClock, describe_compiling, is_compiled, operations
from flowexp.cli.validate import check_like

WIDTH, DEPTH, TOKENS = 32, 2, 16


def network():
    return create_backbone("dit_nano4", resolution=16, channels=1, depth=DEPTH, width=WIDTH, heads=2)


def config(value: object, accelerator: str = "cpu"):
    return OmegaConf.create({"compile": value, "trainer": {"accelerator": accelerator}})


def test_operations_are_those_of_the_products_of_matrices():
    per_token = 12 * WIDTH**2 + 2 * TOKENS * WIDTH  # qkv, proj, MLP; scores and their mixture
    modulation = 6 * WIDTH**2
    ends = TOKENS * 2 * 16 * WIDTH + (256 + WIDTH) * WIDTH + 2 * WIDTH**2  # patches and head, t, the head's modulation
    assert operations(network()) == 2 * (DEPTH * (TOKENS * per_token + modulation) + ends)


@pytest.mark.parametrize("name", ["unet_nano", "mmdit_nano"])
def test_every_family_is_counted(name: str):
    backbone = create_backbone(name, resolution=16, channels=3)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert operations(backbone) > sum(p.numel() for p in backbone.parameters())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_auto_compiles_what_repays_it(monkeypatch: pytest.MonkeyPatch):
    backbone = network()
    enough = round(REPAID["cpu"] / 3 / operations(backbone)) + 1
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    assert is_compiled(config("auto"), backbone, enough)
    assert not is_compiled(config("auto"), backbone, enough - 2)
    assert [is_compiled(config(value), backbone, 1) for value in (True, False)] == [True, False]
    assert describe_compiling(config("auto"), backbone, enough) == {"compiled": "yes: 1e+14 floating-point operations"}
    assert describe_compiling(config("auto"), backbone, 1)["compiled"].startswith("no: ")
    assert describe_compiling(config(False), backbone, enough) == {}
    monkeypatch.setattr(compiling, "has_compiler", lambda: False)
    assert not is_compiled(config("auto"), backbone, enough)


def test_auto_leaves_a_u_net_on_a_cpu_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(compiling, "has_compiler", lambda: True)
    u_net, transformer = (create_backbone(name, resolution=16, channels=3) for name in ("unet_nano", "mmdit_nano"))
    assert [is_compiled(config("auto"), each, 10**9) for each in (u_net, transformer)] == [False, True]
    assert describe_compiling(config("auto"), u_net, 10**9)["compiled"].endswith("convolutions")


def test_auto_is_a_word_of_compile_alone():
    check_like(config("auto"), {"compile": False})
    with pytest.raises(ValueError, match="compile must be true or false"):
        check_like(config("maybe"), {"compile": False})
    with pytest.raises(ValueError, match="dry_run must be true or false"):
        check_like(OmegaConf.create({"dry_run": "auto"}), {"dry_run": False})


def test_the_clock_adds_up_what_the_compiler_takes_and_says_it_once(monkeypatch: pytest.MonkeyPatch):
    said, now = list[str](), iter([10.0, 14.0, 20.0, 23.0])
    monkeypatch.setattr(compiling, "rank_zero_info", said.append)
    monkeypatch.setattr(compiling.time, "perf_counter", lambda: next(now))
    clock = CompilerClock(num_steps=2)
    for _ in range(2):
        clock._begin(None)
        clock._end(None)
    for _ in range(4):
        clock.on_train_batch_end(None)
    assert len(said) == 1 and said[0].startswith("the compiler took 7 s")
