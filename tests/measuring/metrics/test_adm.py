from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

from flowexp.measuring.metrics import Moments, read_adm_reference, write_adm_batch, write_adm_batches
from flowexp.measuring.metrics.adm import DIMS


@pytest.fixture
def images():
    return torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)


def read_all(path) -> torch.Tensor:
    return torch.cat(list(read_adm_reference(path).batches(2)))


def test_pictures_come_back_in_batches_from_the_layout_that_adm_reads(tmp_path, images):
    write_adm_batch(tmp_path / "samples.npz", images)
    stored = np.load(tmp_path / "samples.npz")
    assert [*stored] == ["arr_0"] and stored["arr_0"].dtype == np.uint8 and stored["arr_0"].shape == (5, 4, 4, 3)
    assert torch.equal(torch.from_numpy(stored["arr_0"]).permute(0, 3, 1, 2), images)
    batches = list(read_adm_reference(tmp_path / "samples.npz", resolution=4).batches(2))
    assert [len(batch) for batch in batches] == [2, 2, 1] and torch.equal(torch.cat(batches), images)
    assert [file.name for file in tmp_path.iterdir()] == ["samples.npz"]


def test_a_compressed_file_is_read_alike(tmp_path, images):
    np.savez_compressed(tmp_path / "samples.npz", arr_0=images.permute(0, 2, 3, 1).numpy())
    assert torch.equal(read_all(tmp_path / "samples.npz"), images)


def test_grey_pictures_become_colour(tmp_path, images):
    write_adm_batch(tmp_path / "samples.npz", images[:, :1])
    assert torch.equal(read_all(tmp_path / "samples.npz"), images[:, :1].expand(-1, 3, -1, -1))


def test_pictures_that_come_in_batches_make_the_same_file(tmp_path, images):
    write_adm_batch(tmp_path / "whole.npz", images)
    write_adm_batches(tmp_path / "batches.npz", iter(images.split(2)), len(images))
    assert np.array_equal(np.load(tmp_path / "whole.npz")["arr_0"], np.load(tmp_path / "batches.npz")["arr_0"])
    whole, batches = (read_adm_reference(tmp_path / f"{name}.npz") for name in ("whole", "batches"))
    assert whole.fingerprint == batches.fingerprint


def test_a_file_has_a_fingerprint_of_its_content_however_it_was_packed(tmp_path, images):
    write_adm_batch(tmp_path / "one.npz", images)
    np.savez_compressed(tmp_path / "packed.npz", arr_0=images.permute(0, 2, 3, 1).contiguous().numpy())
    write_adm_batch(tmp_path / "other.npz", images ^ 1)
    found = [read_adm_reference(tmp_path / f"{name}.npz").fingerprint for name in ("one", "packed", "other")]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    "num, sizes, sentence",
    [
        (5, [3], "5 pictures were announced .* got 3"),
        (2, [3], "2 pictures were announced .* got 3"),
        (0, [], "at least one is needed"),
    ],
)
def test_a_file_with_another_number_of_pictures_than_announced_does_not_appear(tmp_path, images, num, sizes, sentence):
    with pytest.raises(ValueError, match=sentence):
        write_adm_batches(tmp_path / "samples.npz", [images[:size] for size in sizes], num)
    assert not list(tmp_path.iterdir())


def test_pictures_of_two_sizes_are_refused(tmp_path, images):
    with pytest.raises(ValueError, match=r"one shape, got \(4, 4, 3\) and \(2, 2, 3\)"):
        write_adm_batches(tmp_path / "samples.npz", [images, images[:, :, :2, :2]], 10)


def test_moments_of_a_reference_come_back(tmp_path, images, monkeypatch):
    for name, dim in (("features", 20), ("spatial", 13)):
        monkeypatch.setitem(DIMS, name, dim)
    moments = {
        name: Moments(torch.randn(dim).double(), torch.eye(dim, dtype=torch.float64), 9) for name, dim in DIMS.items()
    }
    write_adm_batch(tmp_path / "reference.npz", images, moments)
    assert set(np.load(tmp_path / "reference.npz")) == {"arr_0", "mu", "sigma", "mu_s", "sigma_s"}
    found = read_adm_reference(tmp_path / "reference.npz").moments
    for name, expected in moments.items():
        assert torch.equal(found[name].mean, expected.mean) and torch.equal(found[name].covariance, expected.covariance)
        assert found[name].count == 0


def test_a_batch_of_samples_has_no_moments(tmp_path, images):
    write_adm_batch(tmp_path / "samples.npz", images)
    assert read_adm_reference(tmp_path / "samples.npz").moments == {}


PIXELS = np.zeros((2, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    "arrays, sentence",
    [
        ({"images": PIXELS}, "needs an array arr_0"),
        ({"arr_0": PIXELS.astype(np.float32)}, r"must be uint8 \(N, H, W, 3\), got float32"),
        ({"arr_0": PIXELS[0]}, r"got uint8 \(4, 4, 3\)"),
        ({"arr_0": PIXELS.transpose(0, 3, 1, 2).copy()}, r"got uint8 \(2, 3, 4, 4\)"),
        ({"arr_0": PIXELS[:0]}, r"got uint8 \(0, 4, 4, 3\)"),
        ({"arr_0": PIXELS, "mu": np.zeros(2048), "sigma": np.eye(2)}, "has mu, sigma: a reference batch has all of"),
        (
            {"arr_0": PIXELS, "mu": np.zeros(64), "sigma": np.eye(64), "mu_s": np.zeros(3), "sigma_s": np.eye(3)},
            r"mu and sigma of .* must be \(2048,\) and \(2048, 2048\), got \(64,\)",
        ),
    ],
)
def test_another_layout_is_answered_with_what_is_needed(tmp_path, arrays, sentence):
    np.savez(tmp_path / "reference.npz", **arrays)
    with pytest.raises(ValueError, match=sentence):
        read_adm_reference(tmp_path / "reference.npz")


@pytest.mark.parametrize(
    "name, value, sentence",
    [
        ("mu", np.full(20, np.nan), "mu and sigma of .* NaN or infinite"),
        ("sigma_s", np.full((13, 13), np.inf), "mu_s and sigma_s of .* NaN or infinite"),
        ("mu", np.array(["a"] * 20), "mu and sigma of .* must be floats, got <U1 and float64"),
        ("sigma", np.array([{}]), "the moments in .* are damaged: fetch it again .*Object arrays"),
    ],
)
def test_moments_that_no_distance_can_use_are_refused(tmp_path, monkeypatch, name, value, sentence):
    for output, dim in (("features", 20), ("spatial", 13)):
        monkeypatch.setitem(DIMS, output, dim)
    moments = {"mu": np.zeros(20), "sigma": np.eye(20), "mu_s": np.zeros(13), "sigma_s": np.eye(13)}
    np.savez(tmp_path / "reference.npz", arr_0=PIXELS, **{**moments, name: value})
    with pytest.raises(ValueError, match=sentence):
        read_adm_reference(tmp_path / "reference.npz")


def test_pictures_that_are_damaged_behind_the_header_are_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    path = tmp_path / "reference.npz"
    np.savez(path, arr_0=pixels)
    content = bytearray(path.read_bytes())
    content[3000:3100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"the pictures in .* are damaged: fetch it again .*CRC"):
        read_all(path)


def test_fewer_pictures_than_the_header_announces_are_named(tmp_path):
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (9, 4, 4, 3)}
    np.lib.format.write_array_header_1_0(file, header)
    with zipfile.ZipFile(tmp_path / "reference.npz", "w") as archive:
        archive.writestr("arr_0.npy", file.getvalue() + PIXELS.tobytes())
    with pytest.raises(ValueError, match=r"the pictures in .* are damaged"):
        read_all(tmp_path / "reference.npz")


def test_another_resolution_is_refused(tmp_path, images):
    write_adm_batch(tmp_path / "reference.npz", images)
    with pytest.raises(ValueError, match="pictures of 4 x 4, the samples have 32 x 32"):
        read_adm_reference(tmp_path / "reference.npz", resolution=32)


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="no reference batch at"):
        read_adm_reference(tmp_path / "nowhere.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK no zip")
    with pytest.raises(ValueError, match="is no batch of ADM"):
        read_adm_reference(tmp_path / "broken.npz")


@pytest.mark.parametrize("wrong", [torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 4, 4, dtype=torch.uint8)])
def test_pictures_that_adm_would_misread_are_not_written(tmp_path, wrong):
    with pytest.raises(ValueError, match="takes uint8 pictures"):
        write_adm_batch(tmp_path / "samples.npz", wrong)


def test_a_name_that_numpy_would_change_is_refused(tmp_path, images):
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        write_adm_batch(tmp_path / "samples.zip", images)
