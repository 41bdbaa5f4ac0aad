"""Emoji from the packages of the system, and what is said where they are not installed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from flowexp.data import DataError, Emoji
from flowexp.data.datasets.emoji import _rows_of
from flowexp.data.storage.colour_font import ColourFont
from flowexp.integrations.encoders.words import HashedWords

FILES = [folder / name for folder, name in zip(Emoji.system_folders, (Emoji.font_file, Emoji.list_file), strict=True)]
INSTALLED = pytest.mark.skipif(
    not all(file.is_file() for file in FILES),
    reason="Debian's packages fonts-noto-color-emoji and unicode-data are not installed",
)
LIST = """# group: Smileys & Emotion
# subgroup: face-smiling
1F600                     ; fully-qualified     # 😀 E1.0 grinning face
263A FE0F                 ; fully-qualified     # ☺️ E0.6 smiling face
263A                      ; unqualified         # ☺ E0.6 smiling face
# group: Component
1F3FB                     ; component           # 🏻 E1.0 light skin tone
# group: People & Body
# subgroup: hand-fingers-open
1F44B 1F3FB               ; fully-qualified     # 👋🏻 E1.0 waving hand: light skin tone
"""


def test_a_list_of_unicode_is_read_with_its_groups():
    rows = list(_rows_of(LIST))
    assert [(row.caption, row.group, row.subgroup) for row in rows] == [
        ("grinning face", "Smileys & Emotion", "face-smiling"),
        ("smiling face", "Smileys & Emotion", "face-smiling"),
        ("waving hand: light skin tone", "People & Body", "hand-fingers-open"),
    ]
    assert (rows[1].name, rows[1].base, rows[2].base) == ("263A-FE0F", "263A", "1F44B")


def without_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Emoji, "system_folders", ())


def test_what_is_missing_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_the_system(monkeypatch)
    with pytest.raises(DataError, match=r"emoji-test\.txt not found in .*Debian's package unicode-data"):
        Emoji(root=tmp_path).setup()
    (tmp_path / "emoji-test.txt").write_text(LIST, encoding="utf-8")
    with pytest.raises(DataError, match=r"NotoColorEmoji\.ttf not found in .*Debian's package fonts-noto-color-emoji"):
        Emoji(root=tmp_path).setup()
    (tmp_path / "NotoColorEmoji.ttf").write_bytes(b"no font")
    with pytest.raises(DataError, match=r"NotoColorEmoji\.ttf is damaged, or no font of coloured bitmaps"):
        Emoji(root=tmp_path).setup()
    (tmp_path / "emoji-test.txt").write_text("nothing")
    with pytest.raises(DataError, match=r"emoji-test\.txt is damaged, or no list"):
        Emoji(root=tmp_path).setup()


def test_a_font_of_outlines_is_refused(tmp_path: Path) -> None:
    from matplotlib import font_manager

    with pytest.raises(DataError, match=r"no font of coloured bitmaps \(CBDT\)"):
        ColourFont(Path(font_manager.findfont("DejaVu Sans")))


def test_classes_are_groups_or_subgroups(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.labels must be one of group, subgroup, got 'word'"):
        Emoji(root=tmp_path, labels="word")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def listed() -> Emoji:
    return Emoji(labels="subgroup")


@INSTALLED
def test_every_emoji_of_the_list_is_drawn_and_captioned(listed: Emoji) -> None:
    listing = listed.listing
    pictures = [*listing.train, *listing.test]
    captions = Counter(picture.captions[0] for picture in pictures)
    assert len(pictures) >= 3655 and len(captions) == len(pictures)  # each has a caption of its own
    assert {"grinning face", "flag: Kenya", "flag: Scotland", "keycap: *", "waving hand: dark skin tone"} <= {*captions}
    assert len(listed.class_names) >= 99 and len(Emoji().class_names) == 9
    assert Emoji().class_names[:2] == ("Smileys & Emotion", "People & Body")
    assert {picture.label for picture in pictures} == {*range(len(listed.class_names))}


@INSTALLED
def test_no_emoji_is_held_out_in_another_skin(listed: Emoji) -> None:
    def bases(part: str) -> set[str]:
        tones = [f"-{tone:X}" for tone in range(0x1F3FB, 0x1F400)]
        names = [picture.name.replace("-FE0F", "") for picture in getattr(listed.listing, part)]
        for tone in tones:
            names = [name.replace(tone, "") for name in names]
        return {*names}

    assert not bases("train") & bases("test")
    num, held = len(listed.listing.train) + len(listed.listing.test), len(listed.listing.test)
    assert 0.07 < held / num < 0.13
    assert [p.name for p in Emoji().listing.test] == [p.name for p in listed.listing.test]  # whatever the classes are


@INSTALLED
def test_pictures_have_their_colours_on_white(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "emoji-test.txt").write_text(
        "# group: Smileys & Emotion\n# subgroup: x\n"
        "1F534 ; fully-qualified # 🔴 E0.6 red circle\n1F535 ; fully-qualified # 🔵 E0.6 blue circle\n"
        "1F7E2 ; fully-qualified # 🟢 E12.0 green circle\n0041 ; fully-qualified # A E0.6 no emoji\n",
        encoding="utf-8",
    )
    datamodule = Emoji(root=tmp_path, text=HashedWords(), batch_size=1)
    with pytest.warns(UserWarning, match="not in the font, and passed over: no emoji"):
        datamodule.setup()
    shown = {}
    for split, images in (("train", datamodule.train), ("test", datamodule.test)):
        shown |= dict(zip(datamodule.texts[split], images.images, strict=True))
    assert {name.split()[0]: int(pixels[:, 16, 16].argmax()) for name, pixels in shown.items()} == {
        "red": 0, "green": 1, "blue": 2,
    }  # fmt: skip
    assert all((pixels[:, 0, 0] == 255).all() and pixels.shape == (3, 32, 32) for pixels in shown.values())
    conditions = datamodule.conditions(range(2))
    assert conditions is not None and torch.equal(conditions[0], HashedWords().encode(datamodule.texts["test"])[0])
