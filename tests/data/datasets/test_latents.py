from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flowexp.data import (
    COCO,
    BatchLoader,
    DataError,
    ImageNet,
    LatentCache,
    Latents,
    Pick,
    TextLatents,
    to_float,
    to_uint8,
)
from flowexp.data.sets.batch_rows import subset_rows
from flowexp.encode import _small_arrays, describe, encode, share_of

CPU = torch.device("cpu")


def fill(datamodule: Any, vae: Any, folder: Path, share: tuple[int, int] = (0, 1), shard_size: int = 5) -> LatentCache:
    """What the command does, without its config."""
    datamodule.setup()
    cache = LatentCache(folder)
    cache.begin(describe(datamodule, vae, shard_size, CPU), _small_arrays(datamodule, CPU))
    own = [shard for shard in list(cache.shards())[share[0] :: share[1]] if not cache.has(shard)]
    encode(datamodule, vae, cache, own, CPU, batch_size=2)
    return cache


def pictures(root: Path, **options: Any) -> ImageNet:
    return ImageNet(**{"root": root, "resolution": 16, "batch_size": 4, "num_workers": 1, **options})


@pytest.fixture
def cache(imagenet: Path, vae: Any, tmp_path: Path) -> LatentCache:
    return fill(pictures(imagenet), vae, tmp_path / "cache")


def latents(cache: LatentCache, vae: Any, imagenet: Path, **options: Any) -> Latents:
    datamodule = Latents(vae, pictures(imagenet), root=cache.folder, **{"batch_size": 4, **options})
    datamodule.setup()
    return datamodule


def moments(images: Tensor, vae: Any) -> Tensor:
    return torch.stack(vae.encode(to_float(images)), dim=1)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.npy"))}


# --- the cache -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_cache_holds_the_posterior_of_each_picture_and_of_its_mirror_image(
    cache: LatentCache, imagenet: Path, vae: Any
):
    source = pictures(imagenet)
    source.setup()
    found = torch.from_numpy(cache.latents("train").gather(np.arange(12))).float()
    assert found.shape == (12, 2, 2, 4, 2, 2)
    images = source.train.images
    torch.testing.assert_close(found[:, 0], moments(images, vae), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found[:, 1], moments(images.flip(-1), vae), atol=1e-3, rtol=1e-3)
    assert cache.small("train_labels").tolist() == source.train.labels.tolist()


@pytest.mark.slow
def test_shares_written_apart_are_what_one_process_writes(cache: LatentCache, imagenet: Path, vae: Any, tmp_path: Path):
    for share in [(2, 3), (0, 3), (1, 3)]:
        fill(pictures(imagenet), vae, tmp_path / "shared", share)
    assert bytes_of(tmp_path / "shared") == bytes_of(cache.folder)


@pytest.mark.slow
def test_a_stopped_encoding_goes_on_with_the_shards_that_are_missing(
    cache: LatentCache, imagenet: Path, vae: Any, monkeypatch: pytest.MonkeyPatch
):
    before, lost = bytes_of(cache.folder), cache.folder / "train/00001.npy"
    lost.unlink()
    with pytest.raises(DataError, match=r"1 of 3 shards are missing .*00001\.npy: run the same `flowexp encode` again"):
        latents(cache, vae, imagenet)
    kept = (cache.folder / "train/00000.npy").stat().st_mtime_ns
    fill(pictures(imagenet), vae, cache.folder)
    assert bytes_of(cache.folder) == before and (cache.folder / "train/00000.npy").stat().st_mtime_ns == kept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"), [("scale", 0.2), ("name", "other"), ("fingerprint", "00"), ("resolution", 24), ("flip", False)]
)
def test_another_encoding_into_the_same_folder_is_refused(
    cache: LatentCache, imagenet: Path, vae: Any, name: str, value: Any
):
    options = {name: value} if name in ("resolution", "flip") else {}
    if not options:
        setattr(vae, name, value)
    with pytest.raises(DataError, match=r"holds other latents .* instead of .*: give another output"):
        fill(pictures(imagenet, **options), vae, cache.folder)


@pytest.mark.slow
def test_pictures_that_no_autoencoder_takes_are_refused(imagenet: Path, vae: Any, tmp_path: Path):
    with pytest.raises(ValueError, match="a multiple of 8, got imagenet of 3 x 20 x 20"):
        fill(pictures(imagenet, resolution=20), vae, tmp_path / "cache")


@pytest.mark.parametrize(
    ("shard", "rank", "expected"), [(None, None, (0, 1)), (None, "3", (3, 8)), ("1/4", "3", (1, 4))]
)
def test_the_share_comes_from_the_command_line_or_the_launcher(
    monkeypatch: pytest.MonkeyPatch, shard: str | None, rank: str | None, expected: tuple[int, int]
):
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "8")
    assert share_of(shard) == expected


@pytest.mark.parametrize("shard", ["4/4", "1", "a/b", "-1/4"])
def test_a_share_that_is_none_is_refused(shard: str):
    with pytest.raises(ValueError, match="shard must be 0/4 for the first of four shares"):
        share_of(shard)


# --- damage ----------------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Any) -> None:
    """Replaces an array by what `change` makes of it, in numpy's own format."""
    np.save(path, change(np.load(path)))


DAMAGE = {  # file, what happens to it, and what its refusal says
    "half of the rows": ("train/00000.npy", lambda array: array[:2], r"must be float16 \(5, 2, 2, 4, 2, 2\)"),
    "another dtype": ("train/00000.npy", lambda array: array.astype(np.float32), "must be float16"),
    "one more row": ("train/00000.npy", lambda array: np.concatenate((array, array[:1])), r"got float16 \(6, 2"),
    "no checksums": ("train/00000.npy", lambda array: array, "it lacks its checksums"),
    "fewer labels": ("train_labels.npy", lambda array: array[:6], r"must be int64 \(12,\), got int64 \(6,\)"),
    "labels as floats": ("test_labels.npy", lambda array: array.astype(float), r"must be int64 \(6,\), got float64"),
    "other labels": ("test_labels.npy", lambda array: array[::-1], "its content is not what was written"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_file_of_another_form_is_refused_by_name_and_made_anew(
    cache: LatentCache, imagenet: Path, vae: Any, damage: str
):
    name, change, words = DAMAGE[damage]
    before = bytes_of(cache.folder)
    rewrite(cache.folder / name, change)
    with pytest.raises(DataError, match=rf"{name} is damaged .*{words}.*delete it and run the same `flowexp encode`"):
        latents(cache, vae, imagenet)
    fill(pictures(imagenet), vae, cache.folder)
    assert bytes_of(cache.folder) == before


@pytest.mark.parametrize("spoil", [lambda content: content + b"\0", lambda content: content[:-1]])
def test_a_shard_that_is_longer_or_shorter_is_refused_by_name(cache: LatentCache, imagenet: Path, vae: Any, spoil: Any):
    path = cache.folder / "test/00001.npy"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=r"test/00001\.npy is damaged \(it must have \d+ bytes, got \d+\)"):
        latents(cache, vae, imagenet)


def test_a_flipped_bit_is_refused_when_its_latent_is_used(cache: LatentCache, imagenet: Path, vae: Any):
    path = cache.folder / "train/00001.npy"
    content = bytearray(path.read_bytes())
    content[200] ^= 1  # in the first latent of the second shard of five
    path.write_bytes(content)
    train = latents(cache, vae, imagenet).train
    assert train.batch(Pick(torch.tensor([0, 4, 6])))["image"].isfinite().all()
    with pytest.raises(DataError, match=r"train/00001\.npy is damaged \(row 0 is not what was written\)"):
        train.batch(Pick(torch.tensor([0, 5])))


@pytest.mark.parametrize(
    "change",
    [{"shard_size": 0}, {"num_images": {"train": 12}}, {"shape": [4, "2", 2]}, {"flips": 3}, {"num_images": 3}],
)
def test_a_manifest_with_impossible_numbers_is_refused_by_name(
    cache: LatentCache, imagenet: Path, vae: Any, change: dict[str, Any]
):
    path = cache.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        latents(cache, vae, imagenet)


def test_two_encodings_at_once_leave_every_row_of_every_shard_whole(
    cache: LatentCache, imagenet: Path, vae: Any, tmp_path: Path
):
    """Each begins a shard while the other is in the middle of it."""
    together = threading.Barrier(2)

    class InStep(type(vae)):
        def encode(self, images: Tensor) -> Any:
            with suppress(threading.BrokenBarrierError):
                together.wait(timeout=5)
            return super().encode(images)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: fill(pictures(imagenet), InStep(), tmp_path / "both"), range(2)))
    assert bytes_of(tmp_path / "both") == bytes_of(cache.folder)
    assert not list((tmp_path / "both").rglob("*partial"))


# --- training on it --------------------------------------------------------------------------------------------


def test_a_batch_is_a_scaled_sample_of_the_posterior(cache: LatentCache, imagenet: Path, vae: Any):
    train = latents(cache, vae, imagenet).train
    mean, std = torch.from_numpy(cache.latents("train").gather(np.arange(12))[:, 0]).float().unbind(1)
    draws = torch.stack([train.batch(Pick(torch.arange(12), None, 0, epoch))["image"] for epoch in range(400)])
    noise = (draws / vae.scale - mean) / std
    assert abs(float(noise.mean())) < 0.02 and float(noise.std()) == pytest.approx(1, abs=0.02)
    assert abs(float((noise[:, :-1] * noise[:, 1:]).mean())) < 0.02  # rows have noise of their own
    assert abs(float((noise[..., :-1] * noise[..., 1:]).mean())) < 0.02  # and so have pixels
    assert abs(float((noise[:-1] * noise[1:]).mean())) < 0.02  # and epochs
    assert torch.equal(train.batch(Pick(torch.tensor([3])))["label"], train.labels[3:4])


@pytest.mark.slow
def test_the_sample_is_a_function_of_seed_epoch_and_row_alone(cache: LatentCache, imagenet: Path, vae: Any):
    train = latents(cache, vae, imagenet).train
    whole = train.batch(Pick(torch.arange(12), None, 5, 2))["image"]
    assert torch.equal(train.batch(Pick(torch.tensor([7, 2]), None, 5, 2))["image"], whole[[7, 2]])
    for seed, epoch in ((6, 2), (5, 3)):
        assert not torch.equal(train.batch(Pick(torch.arange(12), None, seed, epoch))["image"], whole)


@pytest.mark.slow
def test_a_flip_takes_the_latent_of_the_mirrored_picture(cache: LatentCache, imagenet: Path, vae: Any):
    train, rows = latents(cache, vae, imagenet).train, torch.arange(12)
    mixed = train.batch(Pick(rows, rows % 2 == 1))["image"]
    plain, mirrored = (train.batch(Pick(rows, torch.full((12,), flag)))["image"] for flag in (False, True))
    assert torch.equal(mixed[::2], plain[::2]) and torch.equal(mixed[1::2], mirrored[1::2])
    assert not torch.equal(plain, mirrored)


@pytest.mark.slow
def test_the_slices_of_two_ranks_are_the_batch_and_a_resumed_loader_goes_on(
    cache: LatentCache, imagenet: Path, vae: Any
):
    train, options = latents(cache, vae, imagenet).train, {"seed": 1, "flip": True}
    whole = list(islice(chain.from_iterable(repeat(BatchLoader(train, 4, **options))), 7))
    ranks = [list(BatchLoader(train, 4, rank=rank, world_size=2, **options)) for rank in range(2)]
    for batch, *parts in zip(whole[:3], *ranks, strict=True):
        assert torch.equal(torch.cat([part["image"] for part in parts]), batch["image"])
    resumed = BatchLoader(train, 4, **options)
    resumed.load_state_dict({**resumed.state_dict(), "step": 5})
    assert torch.equal(next(iter(resumed))["image"], whole[5]["image"])


@pytest.mark.slow
def test_latents_are_data_as_they_are_and_pictures_are_decoded(cache: LatentCache, imagenet: Path, vae: Any):
    datamodule = latents(cache, vae, imagenet)
    samples = torch.randn(3, 4, 2, 2)
    assert datamodule.to_data(samples) is samples
    assert torch.equal(datamodule.to_pictures(samples), to_uint8(vae.decode(samples / vae.scale)))
    batch = next(iter(datamodule.train_dataloader()))
    assert datamodule.on_after_batch_transfer(batch, 0) is batch
    assert (datamodule.channels, datamodule.resolution, datamodule.num_classes) == (4, 2, 3)
    assert datamodule.name == "imagenet_latents_16"


@pytest.mark.slow
def test_samples_are_compared_with_the_real_pictures(cache: LatentCache, imagenet: Path, vae: Any):
    reference = latents(cache, vae, imagenet).reference_pictures("test")
    assert reference.images.dtype == torch.uint8 and reference.images.shape == (6, 3, 16, 16)


@pytest.mark.slow
def test_the_pictures_and_the_autoencoder_are_not_touched_by_training(
    cache: LatentCache, imagenet: Path, vae: Any, tmp_path: Path
):
    vae.encode = vae.decode = None
    datamodule = latents(cache, vae, tmp_path / "gone")
    assert next(iter(datamodule.train_dataloader()))["image"].shape == (4, 4, 2, 2)
    with pytest.raises(DataError, match="ImageNet not found in"):
        datamodule.reference_pictures("train")


@pytest.mark.slow
def test_a_subset_is_the_same_rows_as_of_the_pictures(cache: LatentCache, imagenet: Path, vae: Any):
    part, source = latents(cache, vae, imagenet, train_size=5), pictures(imagenet, train_size=5)
    source.setup()
    assert torch.equal(part.train.labels, source.train.labels) and len(part.train.images) == 5
    whole = latents(cache, vae, imagenet).train
    assert torch.equal(part.train.images, whole.images[subset_rows(5, 12)]), "noise goes with the row in the cache"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("scale", 0.2301, "scale=0.5, this run wants 0.2301"),
        ("name", "other", "vae=pool, this run wants other"),
    ],
)
def test_a_cache_of_another_autoencoder_is_refused(
    cache: LatentCache, imagenet: Path, vae: Any, name: str, value: Any, words: str
):
    setattr(vae, name, value)
    with pytest.raises(DataError, match=f"were made with {words}: change the setting, or encode again"):
        latents(cache, vae, imagenet)


@pytest.mark.slow
def test_weights_that_changed_under_the_same_name_are_found_when_they_are_read(
    cache: LatentCache, imagenet: Path, vae: Any
):
    vae.fingerprint = "another"
    datamodule = latents(cache, vae, imagenet)
    with pytest.raises(DataError, match="vae_weights=fedcba9876543210, this run wants another"):
        datamodule.to_pictures(torch.zeros(1, 4, 2, 2))


@pytest.mark.slow
def test_another_decoder_may_make_the_pictures(cache: LatentCache, imagenet: Path, vae: Any):
    class Doubled:
        def decode(self, latents: Tensor) -> Tensor:
            return 2 * vae.decode(latents)

    samples = 0.1 * torch.randn(3, 4, 2, 2)
    datamodule = latents(cache, vae, imagenet, decoder=Doubled())
    assert torch.equal(datamodule.to_pictures(samples), to_uint8(2 * vae.decode(samples / vae.scale)))


@pytest.mark.slow
def test_a_cache_of_another_resolution_is_refused(cache: LatentCache, imagenet: Path, vae: Any):
    with pytest.raises(DataError, match="resolution=16, this run wants 24"):
        Latents(vae, pictures(imagenet, resolution=24), root=cache.folder, batch_size=4).setup()


@pytest.mark.slow
def test_flips_that_were_not_encoded_are_refused(imagenet: Path, vae: Any, tmp_path: Path):
    single = fill(pictures(imagenet, flip=False), vae, tmp_path / "single")
    assert latents(single, vae, imagenet, flip=False).train.images.shape == (12, 4, 2, 2)
    with pytest.raises(DataError, match=r"have no mirrored ones: set data\.flip=false"):
        latents(single, vae, imagenet, flip=True)


@pytest.mark.slow
def test_a_damaged_cache_is_a_sentence(cache: LatentCache, imagenet: Path, vae: Any):
    shard = cache.folder / "test/00000.npy"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"00000\.npy is damaged .*: delete it and run the same `flowexp encode` again"):
        latents(cache, vae, imagenet)
    (cache.folder / "manifest.json").write_text(json.dumps({"version": 2}))
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        latents(cache, vae, imagenet)


@pytest.mark.slow
def test_no_cache_says_how_to_make_one(imagenet: Path, vae: Any, tmp_path: Path):
    with pytest.raises(DataError, match=r"latents not found in .*: encode them once by `flowexp encode data="):
        latents(LatentCache(tmp_path / "nowhere"), vae, imagenet)


@pytest.mark.slow
def test_latents_cannot_stay_on_a_device(cache: LatentCache, imagenet: Path, vae: Any):
    with pytest.raises(DataError, match="latents are read batch by batch"):
        latents(cache, vae, imagenet).train.to("cpu")


# --- with captions ---------------------------------------------------------------------------------------------


def captioned(root: Path, text: Any, **options: Any) -> COCO:
    return COCO(**{"text": text, "root": root, "resolution": 16, "batch_size": 2, "num_workers": 1, **options})


@pytest.fixture
def text_cache(coco: Path, vae: Any, text: Any, tmp_path: Path) -> LatentCache:
    return fill(captioned(coco, text), vae, tmp_path / "text_cache", shard_size=2)


def text_latents(cache: LatentCache, coco: Path, vae: Any, text: Any) -> TextLatents:
    datamodule = TextLatents(vae, captioned(coco, text), root=cache.folder, batch_size=2)
    datamodule.setup()
    return datamodule


def test_embedded_captions_are_those_drawn_from_the_pictures_set(
    text_cache: LatentCache, coco: Path, vae: Any, text: Any
):
    stored, source = text_latents(text_cache, coco, vae, text), captioned(coco, text)
    source.setup()
    pick = Pick(torch.tensor([4, 0, 2]), None, 3, 1)
    numbers = source.train.batch(pick)["label"].tolist()
    found = stored.train.batch(pick)["label"]
    expected = text.encode([source.texts["train"][number] for number in numbers])
    assert found.dtype == torch.float32 and stored.text_shape == (3, 4)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(stored.conditions(range(9)), source.conditions(range(9)), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(stored.null_text(), source.null_text(), atol=1e-3, rtol=1e-3)


def test_a_subset_of_the_pictures_is_encoded_with_its_own_captions(coco: Path, vae: Any, text: Any, tmp_path: Path):
    part = captioned(coco, text, train_size=3)
    cache = fill(part, vae, tmp_path / "part", shard_size=2)
    stored = text_latents(cache, coco, vae, text)
    pick = Pick(torch.arange(3))
    expected = text.encode([part.texts["train"][number] for number in part.train.batch(pick)["label"].tolist()])
    torch.testing.assert_close(stored.train.batch(pick)["label"], expected, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_captions_of_another_encoder_are_refused(text_cache: LatentCache, coco: Path, vae: Any, text: Any):
    text.name = "clip"
    with pytest.raises(DataError, match="text=hash, this run wants clip"):
        text_latents(text_cache, coco, vae, text)


@pytest.mark.slow
def test_a_shard_counts_only_with_its_captions(text_cache: LatentCache, coco: Path, vae: Any, text: Any):
    before = bytes_of(text_cache.folder)
    (text_cache.folder / "train/00001_text.npy").unlink()
    with pytest.raises(DataError, match="1 of 3 shards are missing"):
        text_latents(text_cache, coco, vae, text)
    fill(captioned(coco, text), vae, text_cache.folder, shard_size=2)
    assert bytes_of(text_cache.folder) == before
