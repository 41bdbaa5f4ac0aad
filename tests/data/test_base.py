from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
import torch
from PIL import Image

from flowexp.data import (
    CIFAR10,
    COCO,
    ClassCaptions,
    DataError,
    Digits,
    Emoji,
    FashionMNIST,
    HubDataset,
    ImageDataModule,
    ImageNet,
    ImageSet,
    Latents,
    PictureFolder,
    TextLatents,
    TinyImageNet,
    to_float,
    to_uint8,
)

DATASETS = {"digits": Digits, "fashion_mnist": FashionMNIST, "cifar10": CIFAR10, "tiny_imagenet": TinyImageNet}
# ... and those whose files are large, or not free: no download, and more parts than a folder
GIVEN = {
    "imagenet": ImageNet,
    "imagenet_latents_256": Latents,
    "imagenet_latents_512": Latents,
    "coco": COCO,
    "coco_latents_256": TextLatents,
}
# ... and those of which the command line says where they lie, or the system has them
OF_ANYBODY = {
    "folder": (PictureFolder, "data.root"),
    "folder_captions": (PictureFolder, "data.root"),
    "folder_latents": (Latents, "data.pictures.root"),
    "folder_captions_latents": (TextLatents, "data.pictures.root"),
    "hub": (HubDataset, "data.name"),
    "hub_captions": (HubDataset, "data.name"),
    "emoji": (Emoji, ""),
    "emoji_classes": (Emoji, ""),
}
CONF = Path(__file__).parents[2] / "conf"


class Few(ImageDataModule):
    name, resolution, channels, num_classes, flips = "few", 2, 1, 3, True

    def load(self) -> tuple[ImageSet, ImageSet]:
        self.reads = getattr(self, "reads", 0) + 1
        images = torch.arange(12, dtype=torch.uint8).reshape(12, 1, 1, 1).expand(12, 1, 2, 2).contiguous()
        return ImageSet(images, torch.arange(12) % 3), ImageSet(images[:3], torch.arange(3))


def few(**arguments: Any) -> Few:
    datamodule = Few(**{"batch_size": 4, **arguments})
    datamodule.setup("fit")
    return datamodule


def attached(datamodule: ImageDataModule, rank: int, world_size: int, device: str = "cpu") -> ImageDataModule:
    strategy = SimpleNamespace(root_device=torch.device(device))
    datamodule.trainer = SimpleNamespace(global_rank=rank, world_size=world_size, strategy=strategy)  # type: ignore[assignment]
    return datamodule


def test_the_files_are_read_once():
    datamodule = few()
    datamodule.setup("fit")
    assert datamodule.reads == 1 and datamodule.steps_per_epoch == 3 == len(datamodule.train_dataloader())


def test_train_size_takes_nested_subsets_and_leaves_the_test_set_whole():
    small, large = few(train_size=5), few(train_size=8)
    rows = [datamodule.train.images[:, 0, 0, 0].tolist() for datamodule in (small, large)]
    assert rows[0] == rows[1][:5] and len(small.test) == 3


def test_train_size_does_not_depend_on_the_seed_of_the_run():
    assert torch.equal(few(train_size=5, seed=1).train.images, few(train_size=5, seed=2).train.images)


def test_images_become_floats_in_the_unit_range_after_the_transfer():
    datamodule = few()
    batch = next(iter(datamodule.train_dataloader()))
    moved = datamodule.on_after_batch_transfer(batch, 0)
    assert moved["image"].dtype == torch.float32 and moved["image"].min() >= -1 and moved["image"].max() <= 1
    assert torch.equal(moved["label"], batch["label"]) and batch["image"].dtype == torch.uint8
    assert datamodule.on_after_batch_transfer(moved, 0) is moved


def test_each_process_gets_its_slice_of_the_batch():
    whole = next(iter(few().train_dataloader()))
    slices = [next(iter(attached(few(), rank, 2).train_dataloader())) for rank in range(2)]
    assert torch.equal(torch.cat([part["image"] for part in slices]), whole["image"])


def test_on_device_moves_the_images_to_the_device_of_the_trainer():
    datamodule = attached(Few(batch_size=4, on_device=True), 0, 1, device="meta")
    datamodule.setup("fit")
    assert datamodule.train.images.device.type == "meta" == datamodule.test.labels.device.type
    assert attached(few(), 0, 1, device="meta").train.images.device.type == "cpu"


def test_a_second_fit_with_the_same_data_starts_from_the_first_batch():
    datamodule = few()
    list(datamodule.train_dataloader())
    datamodule.load_state_dict(datamodule.state_dict())
    assert [datamodule.train_dataloader().step, datamodule.train_dataloader().step] == [3, 0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"train_size": -3}, "train_size must be at least 1, got -3"),
        ({"train_size": 13}, "train_size must be at most the 12 training images of few, got 13"),
        ({"batch_size": 13}, "batch_size must be at most the 12 training images of few, got 13"),
        ({"batch_size": 5, "train_size": 4}, "batch_size must be at most the 4 training images of few, got 5"),
    ],
)
def test_impossible_sizes_are_refused_in_a_sentence(arguments: dict[str, int], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        few(**arguments)


def test_a_batch_that_does_not_divide_over_the_processes_is_refused():
    with pytest.raises(ValueError, match="must divide over 3 of them, got 4"):
        attached(few(), 0, 3).train_dataloader()


@pytest.mark.parametrize("dataset", [CIFAR10, TinyImageNet])
def test_photographs_are_flipped_and_small_grey_images_are_not(dataset: type[ImageDataModule]):
    assert dataset().flip and not dataset(flip=False).flip
    assert not Digits().flip and not FashionMNIST().flip and FashionMNIST(flip=True).flip


@pytest.mark.parametrize("name", DATASETS)
def test_the_default_root_is_a_folder_under_the_current_one(name: str):
    assert DATASETS[name]().root == Path("data") / name


def configured(name: str, *overrides: str) -> Any:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("train", [f"data={name}", "seed=7", *overrides])
    return hydra.utils.instantiate(config.data, _convert_="all")


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS | GIVEN)
def test_the_config_of_a_dataset_builds_it_with_the_seed_of_the_run(name: str):
    datamodule = configured(name)
    assert type(datamodule) is (DATASETS | GIVEN)[name] and datamodule.name == name and datamodule.seed == 7
    assert datamodule.root == Path("data") / name
    assert datamodule.flip == (name not in ("digits", "fashion_mnist", "coco", "coco_latents_256"))


@pytest.mark.slow
def test_captions_of_classes_are_a_dataset_with_the_root_of_its_pictures():
    datamodule = configured("fashion_mnist_captions")
    assert type(datamodule) is ClassCaptions and datamodule.name == "fashion_mnist" and datamodule.seed == 7
    assert datamodule.root == datamodule.pictures.root == Path("data/fashion_mnist") and not datamodule.flip


def test_every_config_names_a_dataset_tested_here():
    known = {*DATASETS, *GIVEN, *OF_ANYBODY, "fashion_mnist_captions"}
    assert {path.stem for path in (CONF / "data").glob("[!_]*.yaml")} == known


@pytest.mark.parametrize("name", OF_ANYBODY)
def test_the_config_of_anybody_s_pictures_builds_them_where_the_command_line_says(name: str, tmp_path: Path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        for number in "12":
            Image.new("RGB", (8, 8)).save(tmp_path / folder / f"{number}.png")
    kind, place = OF_ANYBODY[name]
    datamodule = configured(name, *([f"{place}={tmp_path}"] if place else []))
    assert type(datamodule) is kind and datamodule.seed == 7 and not datamodule.flip
    assert (datamodule.text_shape is None) == (
        name not in ("emoji", *(each for each in OF_ANYBODY if "captions" in each))
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels", "side"), [("imagenet_latents_256", 4, 32), ("imagenet_latents_512", 4, 64)]
)
def test_latents_have_an_eighth_of_the_side(name: str, channels: int, side: int):
    datamodule = configured(name)
    assert (datamodule.channels, datamodule.resolution, datamodule.pictures.resolution) == (channels, side, 8 * side)


@pytest.mark.slow
def test_the_autoencoder_and_the_text_encoder_are_chosen_by_name():
    latents = configured("imagenet_latents_256", "vae@data.vae=sd_ft_ema")
    assert latents.vae.weights == "stabilityai/sd-vae-ft-ema" and latents.vae.scale == 0.18215
    repa = configured("imagenet_latents_256", "+vae@data.decoder=sd_ft_ema")
    assert (repa.vae.name, repa.decoder.name, latents.decoder) == ("sd_vae_ft_mse", "sd_vae_ft_ema", None)
    assert configured("coco").text_shape == (77, 768) == configured("coco_latents_256").text_shape
    assert configured("coco", "text@data.text=minilm").text_shape == (77, 384)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("imagenet", "ImageNet not found in"),
        ("coco", "MS-COCO 2014 not found in"),
        ("imagenet_latents_256", "latents not found in .*flowexp encode"),
    ],
)
def test_a_dataset_that_must_be_given_says_what_to_put_where(name: str, words: str, workdir: Path):
    with pytest.raises(DataError, match=words):
        configured(name).setup("fit")
    assert not list(workdir.iterdir())


def test_pixels_are_their_own_pictures_and_have_no_texts():
    datamodule = few()
    data = datamodule.to_data(datamodule.train.images)
    assert torch.equal(data, to_float(datamodule.train.images))
    assert torch.equal(datamodule.to_pictures(data), to_uint8(data))
    assert datamodule.reference_pictures("train") is datamodule.train
    assert datamodule.reference_pictures("test") is datamodule.test
    assert datamodule.conditions([0, 1]) is None is datamodule.null_text() is datamodule.text_shape


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_a_missing_dataset_is_a_sentence_with_the_place_and_a_way_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(FashionMNIST, "system_folder", tmp_path / "system")
    datamodule = DATASETS[name](root=tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"not found in .*nowhere.*put .*choose data=digits"):
        datamodule.setup("fit")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_without_a_network_prepare_data_says_which_file_to_put_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(FashionMNIST, "system_folder", tmp_path / "system")
    monkeypatch.setattr(DATASETS[name], "url", (tmp_path / "no_such_site").as_uri())
    with pytest.raises(DataError, match=r"is missing and could not be downloaded .*put the file there.*data=digits"):
        DATASETS[name](root=tmp_path / "nowhere").prepare_data()
