from __future__ import annotations

import pickle
import urllib.error

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from flowexp.encoders.inception import Inception
from flowexp.encoders.weights import read_state_dict


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights under the names of the real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *a, **k: None)
        network = FeatureExtractorInceptionV3("random", ["2048"])
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.slow
def test_features_are_those_of_torch_fidelity(weights):
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    theirs = FeatureExtractorInceptionV3("theirs", ["2048"], str(weights))
    encoder = Inception(weights)
    assert encoder(images).shape == (2, 2048)
    torch.testing.assert_close(encoder(images), theirs(images)[0], rtol=1e-4, atol=1e-4)


def test_without_weights_and_network_one_sentence_says_what_to_do(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(ValueError) as error:
        Inception()
    sentence = str(error.value)
    assert URL_INCEPTION_V3 in sentence and "encoder=efficientnet_lite" in sentence
    assert str(tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth") in sentence


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no Inception weights at .*nowhere"):
        Inception(tmp_path / "nowhere")


class Intruder:
    def __reduce__(self):
        return (print, ("code ran while weights were read",))


@pytest.mark.parametrize("content", [b"", b"PK truncated", pickle.dumps(Intruder(), protocol=2)])
def test_a_file_that_is_damaged_or_runs_code_is_refused(tmp_path, content, capsys):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match="damaged or is no file of plain weights"):
        read_state_dict(tmp_path / "weights.pth")
    assert capsys.readouterr().out == ""
