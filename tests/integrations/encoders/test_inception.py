from __future__ import annotations

import pickle
import urllib.error

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from flowexp.integrations.encoders.inception import Inception
from flowexp.integrations.encoders.weights import read_state_dict


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights under the names of the real ones, in which activations keep their size over layers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *a, **k: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *a, **k: None)
        network = FeatureExtractorInceptionV3("random", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 6**0.5)  # PyTorch's default alone shrinks them to 1e-12
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


def resized_as_tensorflow_1(images: torch.Tensor, size: int) -> torch.Tensor:
    """tf.compat.v1.image.resize_bilinear: output i lies at i * input / output of the input."""
    weights = []
    for length in images.shape[2:]:
        matrix = torch.zeros(size, length, dtype=torch.float64)
        for i in range(size):
            place = i * length / size
            below = int(place)
            matrix[i, below] += 1 - (place - below)
            matrix[i, min(below + 1, length - 1)] += place - below
        weights.append(matrix)
    return torch.einsum("yh,bchw,xw->bcyx", weights[0], images.double(), weights[1])


@pytest.mark.slow
@pytest.mark.parametrize("side", [28, 64, 300])
def test_pictures_are_resized_as_tensorflow_1_does(weights, side):
    images = torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8)
    seen = []
    encoder = Inception(weights)
    encoder.network.Conv2d_1a_3x3.register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    encoder(images)
    torch.testing.assert_close(seen[0], ((resized_as_tensorflow_1(images, 299) - 128) / 128).float(), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_one_pass_gives_adms_spatial_features_and_logits_without_bias(weights):
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    theirs = FeatureExtractorInceptionV3("theirs", ["2048", "logits_unbiased"], str(weights))
    blocks = []
    theirs.Mixed_6d.register_forward_hook(lambda block, inputs, output: blocks.append(output))
    features, logits = theirs(images.expand(-1, 3, -1, -1))
    encoder = Inception(weights)
    found = encoder.extract(images, ("spatial", "logits", "features"))
    assert {name: tuple(output.shape) for name, output in found.items()} == {
        name: (2, dim) for name, dim in encoder.dims.items()
    }
    assert encoder.dims == {"features": 2048, "spatial": 2023, "logits": 1008}
    torch.testing.assert_close(found["features"], features, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["logits"], logits, rtol=1e-4, atol=1e-4)
    channels_last = blocks[0].permute(0, 2, 3, 1)  # TensorFlow's order, which decides mu_s and sigma_s
    assert channels_last.shape == (2, 17, 17, 768)
    torch.testing.assert_close(found["spatial"], channels_last[..., :7].reshape(2, -1), rtol=1e-4, atol=1e-4)
    assert found["spatial"].min() >= 0 and encoder._spatial is None
    assert min(output.std() for output in found.values()) > 0.01, "too small to compare"


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
    with pytest.raises(ValueError, match=r"no Inception weights at .*nowhere: fetch .*encoder=efficientnet_lite"):
        Inception(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [{"a": torch.zeros(3)}, torch.zeros(3), {"fc.weight": torch.zeros(2, 2)}])
def test_weights_of_another_network_are_named_in_a_short_sentence(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=r"other\.pth holds other weights than Inception's: fetch .*which needs no"
    ) as error:
        Inception(tmp_path / "other.pth")
    assert len(str(error.value)) < 400


class Intruder:
    def __reduce__(self):
        return (print, ("code ran while weights were read",))


@pytest.mark.parametrize("content", [b"", b"PK truncated", pickle.dumps(Intruder(), protocol=2)])
def test_a_file_that_is_damaged_or_runs_code_is_refused(tmp_path, content, capsys):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match="damaged or is no file of plain weights"):
        read_state_dict(tmp_path / "weights.pth")
    assert capsys.readouterr().out == ""
