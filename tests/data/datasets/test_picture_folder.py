"""A folder of pictures as people have them: formats, modes, names, sizes, captions, hidden and broken files."""

from __future__ import annotations

import csv
import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from flowexp.cli.composing import Configs
from flowexp.data import DataError, ImageSet, PictureFolder
from flowexp.data.datasets.picture_folder import held_out
from flowexp.data.sets.as_seen import as_seen, square
from flowexp.records.keys import training_key

RED, BLUE = (250, 10, 10), (10, 20, 240)


def picture(colour: Any = RED, size: tuple[int, int] = (20, 20), mode: str = "RGB") -> Image.Image:
    return Image.new(mode, size, colour)


def half(left: Any = RED, right: Any = BLUE) -> Image.Image:
    """Two colours side by side."""
    image = picture(left, (40, 40))
    image.paste(right, (20, 0, 40, 40))
    return image


def folder_of(root: Path, *names: str, colour: Any = RED) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(colour).save(root / name)
    return root


def opened(root: Path, **settings: Any) -> PictureFolder:
    datamodule = PictureFolder(root, **{"batch_size": 1, "resolution": 16, **settings})
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def seen(image: Image.Image, tmp_path: Path, ending: str, **how: Any) -> np.ndarray:
    """What a file shows, (3, 16, 16)."""
    image.save(tmp_path / f"x{ending}", **how)
    return square(Image.open(tmp_path / f"x{ending}"), 16, "crop", 3)


# --- as a person sees them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "how"),
    [
        (".png", {}), (".jpg", {"quality": 98}), (".webp", {"lossless": True}), (".tiff", {}), (".bmp", {}),
        (".gif", {}), (".ppm", {}), (".jp2", {"irreversible": False}), (".tga", {}),
    ],
)  # fmt: skip
def test_every_format_shows_its_colours(ending: str, how: dict[str, Any], tmp_path: Path) -> None:
    pixels = seen(half(), tmp_path, ending, **how).astype(int)
    assert pixels.shape == (3, 16, 16)
    assert abs(pixels[:, 8, 2] - RED).max() < 12 and abs(pixels[:, 8, 13] - BLUE).max() < 12


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (picture(77, mode="L"), (77, 77, 77)),
        (picture(1, mode="1"), (255, 255, 255)),
        (picture((77, 255), mode="LA"), (77, 77, 77)),
        (picture((0, 0, 0, 0), mode="RGBA"), (255, 255, 255)),  # nothing, on white
        (picture((250, 10, 10, 255), mode="RGBA"), RED),
        (picture((0, 0, 0, 127), mode="RGBA"), (128, 128, 128)),
        (half().convert("P", palette=Image.Palette.ADAPTIVE), RED),
        (Image.fromarray(np.full((20, 20), 0x4D80, np.uint16)), (0x4D, 0x4D, 0x4D)),
    ],
    ids=["grey", "bilevel", "grey with alpha", "transparent", "opaque", "half", "palette", "16 bit"],
)
def test_every_mode_is_read_as_it_looks(image: Image.Image, colour: tuple[int, ...], tmp_path: Path) -> None:
    pixels = seen(image, tmp_path, ".png").astype(int)
    assert abs(pixels[:, 8, 2] - colour).max() <= 2


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    image = half().convert("P", palette=Image.Palette.ADAPTIVE)
    pixels = seen(image, tmp_path, ".png", transparency=image.getpixel((0, 0)))
    assert (pixels[:, 8, 2] == 255).all() and abs(pixels[:, 8, 13].astype(int) - BLUE).max() < 3


@pytest.mark.parametrize("ending", [".jpg", ".tiff"])
def test_the_inks_of_cmyk_are_no_light(ending: str, tmp_path: Path) -> None:
    pixels = seen(
        picture((0, 255, 255, 0), mode="CMYK"), tmp_path, ending, **({"quality": 98} if ending == ".jpg" else {})
    )
    assert abs(pixels[:, 8, 8].astype(int) - (255, 0, 0)).max() < 12


def test_16_bits_of_a_tiff_keep_their_higher_half(tmp_path: Path) -> None:
    assert (seen(Image.fromarray(np.full((20, 20), 0x4D80, np.uint16)), tmp_path, ".tif") == 0x4D).all()


@pytest.mark.parametrize(("orientation", "corner"), [(1, RED), (2, BLUE), (3, BLUE), (6, RED), (8, BLUE)])
def test_a_picture_is_turned_as_the_camera_was(orientation: int, corner: tuple[int, ...], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = seen(half(), tmp_path, ".png", exif=exif)
    assert abs(pixels[:, 1, 1].astype(int) - corner).max() < 12


def test_a_colour_profile_is_applied_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert abs(seen(half(), tmp_path, ".png", icc_profile=lab)[:, 8, 2].astype(int) - RED).max() <= 2
    assert abs(seen(half(), tmp_path, ".png", icc_profile=b"none")[:, 8, 2].astype(int) - RED).max() <= 2
    other = picture((128, 128, 128), mode="RGB")
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()  # no profile of RGB: passed over
    assert (seen(other, tmp_path, ".png", icc_profile=linear)[:, 8, 8] == 128).all()


def test_floats_are_refused_because_their_range_is_unknown() -> None:
    with pytest.raises(ValueError, match="mode F"):
        as_seen(Image.fromarray(np.full((4, 4), 0.5, np.float32)))


@pytest.mark.parametrize(
    ("how", "corner", "middle"), [("crop", BLUE, RED), ("pad", (255,) * 3, RED), ("stretch", BLUE, RED)]
)
def test_a_wide_picture_becomes_a_square_as_said(how: str, corner: Any, middle: Any) -> None:
    image = picture(BLUE, (60, 20))
    image.paste(RED, (24, 0, 36, 20))
    pixels = square(image, 16, how, 3).astype(int)
    assert pixels.shape == (3, 16, 16) and abs(pixels[:, 8, 8] - middle).max() < 12
    assert abs(pixels[:, 0, 0] - corner).max() < 6
    assert square(image, 16, how, 1).shape == (1, 16, 16)


# --- what is in a folder ----------------------------------------------------------------------------------------------


STRANGE = ("a b.png", "π=3,14.png", "日本/é, ü.jpg", "x[1]{2}'\".png", "-dash.PNG", "sub/deep/er.webp", "100%.bmp")


def test_names_may_have_any_characters(tmp_path: Path) -> None:
    datamodule = opened(folder_of(tmp_path / "ö = my, pictures", *STRANGE), val_fraction=0.3)
    assert sorted(p.name for p in (*datamodule.listing.train, *datamodule.listing.test)) == sorted(STRANGE)
    assert datamodule.train.images.shape == (5, 3, 16, 16) and len(datamodule.test) == 2
    assert datamodule.num_classes == 0 and datamodule.name == "ö = my, pictures"


def test_names_that_are_no_text_are_read_and_shown(tmp_path: Path) -> None:
    for name in (b"\xff\xfe.png", b"ok.png"):
        picture().save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    assert len(opened(tmp_path).train) == 1
    (tmp_path / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"none")
    with pytest.raises(DataError, match=r"\ufffd\ufffd\.png") as refused:
        opened(tmp_path)
    str(refused.value).encode()


def test_subfolders_are_classes_where_all_pictures_lie_in_some(tmp_path: Path) -> None:
    folder_of(tmp_path, "dogs/1.png", "dogs/2.png", "dogs/more/3.png", colour=RED)
    datamodule = opened(folder_of(tmp_path, "cats/1.png", "cats/2.png", colour=BLUE))
    assert datamodule.class_names == ("cats", "dogs") and datamodule.num_classes == 2
    for images in (datamodule.train, datamodule.test):
        assert {*images.labels.tolist()} == {0, 1}
        red = images.images[:, 0].float().mean(dim=(1, 2)) > 128
        assert red.long().tolist() == images.labels.tolist()
    assert opened(tmp_path, classes=False).num_classes == 0
    with pytest.raises(DataError, match=r"data\.classes=true needs every picture .* stray\.png is in none"):
        opened(folder_of(tmp_path, "stray.png"), classes=True)


def test_train_and_val_are_the_splits_and_what_lies_outside_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path, "train/a/1.png", "train/b/2.png", "validation/a/3.png", "validation/b/4.png", "old/5.png")
    with pytest.warns(UserWarning, match=r"outside of train and validation .*: old/5\.png"):
        datamodule = opened(tmp_path)
    assert [p.name for p in datamodule.listing.test] == ["validation/a/3.png", "validation/b/4.png"]
    assert datamodule.class_names == ("a", "b") and len(datamodule.train) == 2


def test_the_held_out_share_is_of_each_class_and_stays_when_pictures_are_added() -> None:
    names = [f"{kind}/{number}.png" for kind in "abc" for number in range(40)]
    train, test = held_out(names, 0.1, lambda name: name[0])
    assert [sum(name[0] == kind for name in test) for kind in "abc"] == [4, 4, 4] and not {*train} & {*test}
    _, later = held_out([*names, "a/new.png"], 0.1, lambda name: name[0])
    assert len({*test} - {*later}) <= 1
    assert held_out(["a", "b"], 0.01, lambda name: "")[1] and held_out(["a"], 0.9, lambda name: "") == (["a"], [])


def test_hidden_pictures_are_named_and_passed_over(tmp_path: Path) -> None:
    folder_of(tmp_path, "1.png", "2.png", "._1.png", ".trash/3.png")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"hidden in .*, and passed over: \._1\.png, \.trash"):
        assert len(opened(tmp_path).listing.train) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(folder_of(tmp_path / "clean", "1.png", "2.png"))


def break_files(root: Path) -> None:
    (root / "empty_.png").write_bytes(b"not empty, and no picture")
    whole = (root / "1.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(root / "floats.tiff")


def test_broken_pictures_are_all_named_and_refused_or_passed_over_as_said(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{number}.png" for number in range(9)))
    break_files(tmp_path)
    with pytest.raises(DataError, match=r"3 pictures of .* cannot be read: .*data\.broken=skip") as refused:
        opened(tmp_path)
    assert all(name in str(refused.value) for name in ("empty_.png", "cut.png", "floats.tiff", "("))
    assert not [*tmp_path.glob(".flowexp/decoded_16_????????")]
    for _ in range(2):  # decoded, and mapped
        with pytest.warns(UserWarning, match="broken, and passed over"):
            datamodule = opened(tmp_path, broken="skip")
    assert len(datamodule.train) + len(datamodule.test) == 9
    assert (datamodule.train.images[:, 0] > 200).all()  # no row is left black


def test_an_empty_file_and_a_folder_without_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no picture"):
        opened(tmp_path)
    with pytest.raises(DataError, match="nowhere is no folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(DataError, match="1 pictures, and none can be held out"):
        opened(folder_of(tmp_path, "1.png"))
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"2\.png in .* is empty"):
        opened(tmp_path)


# --- decoded once -----------------------------------------------------------------------------------------------------


def test_pictures_are_decoded_once_and_anew_when_the_folder_has_changed(tmp_path: Path, capsys, monkeypatch) -> None:
    folder_of(tmp_path, "1.png", "2.png", "3.png")
    first = opened(tmp_path)
    assert "decoding 3 pictures once into" in capsys.readouterr().out
    assert isinstance(first.train, ImageSet)
    with monkeypatch.context() as patch:
        patch.setattr(PictureFolder, "open", lambda *_: pytest.fail("decoded again"))
        assert torch.equal(opened(tmp_path).train.images, first.train.images) and not capsys.readouterr().out
    picture(BLUE).save(tmp_path / "1.png")
    changed = torch.cat([opened(tmp_path).train.images, opened(tmp_path).test.images])
    assert "have changed since decoded_16_" in capsys.readouterr().out
    assert (changed[:, 2] > 200).any() and not (first.train.images[:, 2] > 200).any()
    opened(folder_of(tmp_path, "4.png")), opened(tmp_path, square="pad"), opened(tmp_path, resolution=8)
    assert capsys.readouterr().out.count("decoding 4 pictures") == 3


def test_a_folder_that_may_not_be_written_is_decoded_elsewhere_or_in_memory(tmp_path: Path, monkeypatch) -> None:
    root = folder_of(tmp_path / "pictures", "1.png", "2.png")
    opened(root, cache=tmp_path / "elsewhere")
    assert [*(tmp_path / "elsewhere").glob("decoded_16_*/train_images.npy")] and not (root / ".flowexp").exists()
    (root / ".flowexp").write_text("a file in the way")
    with pytest.warns(UserWarning, match=r"data\.cache=FOLDER; until then every start decodes them anew"):
        assert len(opened(root).train) == 1


def test_two_folders_are_two_datasets_to_the_search_for_runs(tmp_path: Path) -> None:
    keys = {training_key(Configs().compose("train", ["data=folder", f"data.root={root}", "name=x"])) for root in "ab"}
    assert len(keys) == 2
    assert len({training_key(Configs().compose("train", [f"data.root={root}", "data=cifar10"])) for root in "ab"}) == 1


# --- captions ---------------------------------------------------------------------------------------------------------


class Lengths:
    """Embeds a caption as its length."""

    name, fingerprint, shape = "lengths", "0123456789abcdef", (1, 1)

    def encode(self, captions: Any, device: Any = "cpu") -> torch.Tensor:
        return torch.tensor([[[float(len(text))]] for text in captions], device=device).reshape(-1, 1, 1)


def captions_of(datamodule: PictureFolder) -> dict[str, tuple[str, ...]]:
    return {picture.name: picture.captions for picture in (*datamodule.listing.train, *datamodule.listing.test)}


def test_captions_lie_beside_the_pictures_a_line_each(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png", "b, c.jpg", "sub/d.png")
    (tmp_path / "a.txt").write_text("\ufeffa cat\n\n  a dog  \n", encoding="utf-8")
    (tmp_path / "b, c.jpg.txt").write_text("é", encoding="utf-8")
    (tmp_path / "sub/d.caption").write_text("one")
    (tmp_path / "readme.txt").write_text("of nothing")
    datamodule = opened(tmp_path, text=Lengths())
    assert captions_of(datamodule) == {"a.png": ("a cat", "a dog"), "b, c.jpg": ("é",), "sub/d.png": ("one",)}
    batch = datamodule.on_after_batch_transfer(next(iter(datamodule.train_dataloader())), 0)
    assert batch["label"].shape == (1, 1, 1) and batch["image"].is_floating_point()
    conditions = datamodule.conditions(range(3))
    assert conditions is not None and conditions.shape == (3, 1, 1)
    assert datamodule.texts["test"] == list(datamodule.listing.test[0].captions)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_captions_of_a_table_as_imagefolder_has_it(kind: str, tmp_path: Path) -> None:
    rows = [("a.png", 'a "cat", é'), ("sub/b = c.png", "two\nlines"), ("e\u0301.png", "accent")]
    folder_of(tmp_path, "a.png", "sub/b = c.png", "é.png")
    write_table(tmp_path / f"metadata.{kind}", "text", rows)
    found = captions_of(opened(tmp_path, text=Lengths()))
    assert found == {"a.png": ('a "cat", é',), "sub/b = c.png": ("two\nlines",), "é.png": ("accent",)}
    write_table(tmp_path / f"metadata.{kind}", "words", rows)
    assert captions_of(opened(tmp_path, text=Lengths(), caption_column="words")) == found
    with pytest.raises(DataError, match=rf"metadata\.{kind} must have file_name and text or caption.*caption_column"):
        opened(tmp_path, text=Lengths())
    write_table(tmp_path / f"metadata.{kind}", "text", [*rows, ("gone.png", "x")])
    with pytest.raises(DataError, match=r"lists gone\.png, which is not there"):
        opened(tmp_path, text=Lengths())
    assert opened(tmp_path).text_shape is None  # without a text encoder nobody reads them


def write_table(file: Path, column: str, rows: list[tuple[str, str]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened_file:
        if file.suffix == ".csv":
            csv.writer(opened_file).writerows([("file_name", column), *rows])
        else:
            opened_file.write("".join(json.dumps({"file_name": name, column: text}) + "\n" for name, text in rows))


def test_several_captions_of_a_table_are_a_list(tmp_path: Path) -> None:
    folder_of(tmp_path, "train/a.png", "val/b.png")
    (tmp_path / "train/metadata.jsonl").write_text('{"file_name": "a.png", "caption": ["one", "two"]}\n')
    (tmp_path / "val/metadata.jsonl").write_text('{"file_name": "b.png", "caption": "three"}\n')
    assert captions_of(opened(tmp_path, text=Lengths())) == {"train/a.png": ("one", "two"), "val/b.png": ("three",)}


def test_a_picture_without_a_caption_is_named(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_text("a cat")
    with pytest.raises(DataError, match=r"each of the 2 pictures .* b\.png lack one: write a text file"):
        opened(tmp_path, text=Lengths())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"val_fraction": 0.0}, r"data\.val_fraction must lie between 0 and 1"),
        ({"square": "round"}, r"data\.square must be one of crop, pad, stretch, got 'round'"),
        ({"broken": "maybe"}, r"data\.broken must be one of refuse, skip"),
        ({"channels": 4}, r"data\.channels must be 1 for grey or 3 for colour, got 4"),
        ({"resolution": 0}, "resolution must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        PictureFolder(tmp_path, **wrong)


def test_text_in_a_png_is_no_caption(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", "a cat")
    picture().save(tmp_path / "a.png", pnginfo=info)
    picture().save(tmp_path / "b.png", pnginfo=info)
    with pytest.raises(DataError, match="needs a caption"):
        opened(tmp_path, text=Lengths())
