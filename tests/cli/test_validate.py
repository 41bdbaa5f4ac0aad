"""A value of the wrong kind is refused by name before anything is built from it."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from pytorch_lightning import Trainer

from flowexp.cli.launch import config_folder
from flowexp.cli.validate import check_like, check_values

SAMPLER = "flowexp.flow.sampler.Sampler"
LCF = "flowexp.objectives.LocalContrastiveFlow"


def node(target: str, **values: object):
    return OmegaConf.create({"part": {"_target_": target, **values}}).part


@pytest.mark.parametrize(
    "target, values, words",
    [
        (SAMPLER, {"s0": "abc"}, "part.s0 must be a number, got 'abc'"),
        (SAMPLER, {"s0": None}, "part.s0 must be a number, got null"),
        (SAMPLER, {"s0": True}, "part.s0 must be a number, got true"),
        (SAMPLER, {"s0": float("nan")}, "part.s0 must be finite, got nan"),
        (SAMPLER, {"num_steps": 2.5}, "part.num_steps must be a whole number or null, got 2.5"),
        (SAMPLER, {"s0": [1.0, 1.1]}, "part.s0 must be a number, got"),
        (LCF, {"normalize": "maybe"}, "part.normalize must be true or false, got 'maybe'"),
        (LCF, {"tap": "last"}, "part.tap must be a whole number or null, got 'last'"),
        (LCF, {"Tmin": 20}, "there is no key part.Tmin; did you mean T_min?"),
        (LCF, {"taus": 1}, "did you mean tau?"),
    ],
)
def test_a_wrong_value_or_key_is_named(target: str, values: dict, words: str):
    with pytest.raises(ValueError) as refusal:
        check_values(node(target, **values))
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    "target, values",
    [
        (SAMPLER, {"s0": 1, "num_steps": None, "solver": "heun", "guidance_interval": [0, 1]}),
        (LCF, {"T_min": 0.5, "t_min": None, "seed": 3}),  # seed is the base's
        ("flowexp.backbones.create_backbone", {"name": "dit_s2", "depth": 2}),  # what it passes on is not known here
    ],
)
def test_a_right_one_passes(target: str, values: dict):
    check_values(node(target, **values))


def test_nodes_inside_are_compared_with_their_own_targets():
    outer = OmegaConf.create({"callbacks": {"_target_": "builtins.dict", "sampler": dict(node(SAMPLER, s1="x"))}})
    with pytest.raises(ValueError, match=r"callbacks\.sampler\.s1 must be a number"):
        check_values(outer.callbacks)


def test_the_trainers_keys_are_those_of_lightning():
    with pytest.raises(ValueError, match=r"trainer\.max_steps must be a whole number, got 'ten'"):
        check_values(OmegaConf.create({"trainer": {"max_steps": "ten"}}).trainer, Trainer)
    default = OmegaConf.load(config_folder() / "trainer/default.yaml")
    check_values(OmegaConf.create({"trainer": default}).trainer, Trainer)


def test_the_commands_own_keys_keep_the_kind_of_their_defaults():
    defaults = {"compile": False, "seed": 0, "ckpt": None, "name": "x"}
    check_like(OmegaConf.create({"compile": True, "seed": 7, "ckpt": "auto", "name": 5}), defaults)
    with pytest.raises(ValueError, match="compile must be true or false, got 'maybe'"):
        check_like(OmegaConf.create({"compile": "maybe"}), defaults)
    with pytest.raises(ValueError, match=r"seed must be a whole number, got 1\.5"):
        check_like(OmegaConf.create({"seed": 1.5}), defaults)
