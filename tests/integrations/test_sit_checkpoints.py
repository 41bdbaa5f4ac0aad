"""SiT's and REPA's weights give, in our network and on our axis, the velocity that they gave on theirs."""

from __future__ import annotations

import pytest
import torch

from flowexp.backbones import Backbone, create_backbone
from flowexp.integrations.sit_checkpoints import convert, read_official

SHAPE = {"resolution": 8, "channels": 4, "num_classes": 10, "depth": 3, "width": 32, "heads": 2}


def network(**options) -> Backbone:
    torch.manual_seed(0)
    created = create_backbone("sit_s2", **SHAPE, **options)
    with torch.no_grad():
        for parameter in created.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return created


@pytest.mark.parametrize("learn_sigma", [True, False])
def test_sits_velocity_is_ours_at_the_reversed_time_with_the_other_sign(learn_sigma):
    official, ours = network(learn_sigma=learn_sigma), network()
    ours.load_state_dict(convert(official.state_dict(), ours, "sit"))
    x, label, t = torch.randn(5, 4, 8, 8), torch.arange(5), torch.tensor([0.0, 0.1, 0.5, 0.77, 1.0])
    torch.testing.assert_close(ours(x, t, label), -official(x, 1 - t, label), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours(x, t, label), official(x, t, label), atol=0.1)


def test_repas_weights_are_ours_without_projectors_and_with_todays_names():
    official, ours = network(), network()
    torch.nn.init.zeros_(ours.x_embedder.proj.weight)
    state = official.state_dict() | {"projectors.0.0.weight": torch.zeros(2, 2)}
    old = {name.replace("blocks.2.", "decoder_blocks.0."): value for name, value in state.items()}
    ours.load_state_dict(convert(old, ours, "repa"))
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.2, 0.9])
    assert torch.equal(ours(x, t), official(x, t))


def test_weights_of_another_network_are_refused_by_name():
    with pytest.raises(ValueError, match=r"not those of this network: missing \['blocks.2"):
        convert({k: v for k, v in network().state_dict().items() if "blocks.2" not in k}, network(), "sit")


@pytest.mark.parametrize("convention", ["sit", "repa"])
def test_a_network_that_reads_t_on_another_scale_is_refused(convention):
    """dit_s2 has the weights' names and shapes too, but multiplies t by 1000."""
    with pytest.raises(ValueError, match=r"read t in \[0, 1\], and this network reads 1000 t"):
        convert(network().state_dict(), create_backbone("dit_s2", **SHAPE), convention)


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="convention must be one of sit, repa, got 'edm'"):
        convert({}, network(), "edm")


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"ema": state, "model": {}, "opt": {}}])
def test_bare_and_training_files_are_read(tmp_path, wrap):
    state = {"a": torch.ones(2)}
    torch.save(wrap(state), tmp_path / "file.pt")
    assert torch.equal(read_official(tmp_path / "file.pt")[0]["a"], state["a"])


def test_a_file_that_is_no_checkpoint_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="is damaged or is no file of plain weights"):
        read_official(tmp_path / "broken.pt")
