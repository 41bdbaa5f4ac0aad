"""Teachers' tokens: on the grid that is asked for, frozen, and the same from the disk."""

from __future__ import annotations

import errno
import warnings
from io import FileIO

import pytest
import torch
from torch import Tensor

from flowexp.integrations.encoders import TEACHERS, Teacher, TokenCache, create_teacher, dinov2
from flowexp.integrations.encoders.efficientnet_lite import load_lite0
from flowexp.integrations.encoders.teachers import DINOv2Teacher, EfficientNetLiteTeacher


class Patches(Teacher):
    """The smallest teacher: mean and largest colour of each patch; counts the pictures that it is shown."""

    name = "patches"
    dim = 2

    def __init__(self, version: int = 1) -> None:
        super().__init__()
        self.version = version
        self.shown = 0

    def read(self, images: Tensor, side: int) -> Tensor:
        self.shown += len(images)
        patches = images.float().unflatten(2, (side, -1)).unflatten(4, (side, -1)).permute(0, 2, 4, 1, 3, 5).flatten(3)
        return torch.stack([patches.mean(dim=3), patches.amax(dim=3)], dim=3).flatten(1, 2)

    def protocol(self) -> dict:
        return {"teacher": self.name, "version": self.version}


def images(num=3, channels=1, side=8) -> Tensor:
    return torch.randint(0, 256, (num, channels, side, side), dtype=torch.uint8)


@pytest.fixture(scope="module")
def lite() -> Teacher:
    return create_teacher("efficientnet_lite")


@pytest.mark.slow
@pytest.mark.parametrize("side", [4, 7])
def test_lites_tokens_are_its_fifth_stage_on_the_grid_that_is_asked_for(lite, side):
    pictures = images(2)
    tokens = lite.tokens(pictures, side)
    assert tokens.shape == (2, side**2, 112) and tokens.dtype == torch.float32
    size = (16 * side, 16 * side)
    pixels = torch.nn.functional.interpolate(pictures.repeat(1, 3, 1, 1).float(), size, mode="bilinear") / 127.5 - 1
    with torch.no_grad():
        stage = load_lite0()[0].eval().forward_intermediates(pixels, indices=[3], intermediates_only=True)[0]
    torch.testing.assert_close(tokens, stage.flatten(2).transpose(1, 2), rtol=1e-3, atol=1e-3)


def test_tokens_lie_where_their_patch_is(lite):
    """A change in the upper right corner changes the upper right token most."""
    pictures = torch.full((2, 1, 28, 28), 128, dtype=torch.uint8)
    pictures[1, :, :7, 21:] = torch.randint(0, 256, (7, 7), dtype=torch.uint8)
    before, after = lite.tokens(pictures, 4)
    assert (after - before).norm(dim=1).argmax().item() == 3


def test_dinov2s_tokens_are_the_patches_without_the_class_token(monkeypatch):
    class Network(torch.nn.Module):
        def forward_features(self, pixels: Tensor) -> Tensor:
            self.seen = pixels
            means = pixels.unflatten(2, (-1, 14)).unflatten(4, (-1, 14)).mean(dim=(1, 3, 5)).flatten(1)[..., None]
            return torch.cat([torch.full((len(pixels), 1, 1), torch.nan), means], dim=1)

    monkeypatch.setattr(dinov2, "load_dinov2", lambda weights: (Network(), "0" * 16))
    teacher, pictures = DINOv2Teacher(), images(2, channels=3, side=8)
    tokens = teacher.tokens(pictures, 4)
    assert tokens.shape == (2, 16, 1) and tokens.isfinite().all()
    assert torch.equal(teacher.network.seen, dinov2.Preprocess(antialias=False)(pictures, 56))


def test_a_teacher_is_frozen_and_its_tokens_can_be_trained_on(lite):
    assert not any(parameter.requires_grad for parameter in lite.parameters())
    assert not lite.train().network.training
    head = torch.nn.Linear(112, 2)
    tokens = lite.tokens(images(2), 3)
    assert not tokens.requires_grad
    head(tokens).sum().backward()
    assert head.weight.grad is not None


def test_autocast_changes_no_token(lite):
    pictures = images(2)
    with torch.autocast("cpu", torch.bfloat16):
        within = lite.tokens(pictures, 3)
    assert torch.equal(within, lite.tokens(pictures, 3))


def test_teachers_have_names_and_what_decides_their_tokens(lite):
    assert {"dinov2_vitb14", "efficientnet_lite"} <= {*TEACHERS}  # other tests have teachers of their own
    assert EfficientNetLiteTeacher.name == lite.protocol()["teacher"] and len(lite.protocol()["weights_sha256"]) == 16
    with pytest.raises(ValueError, match=r"dinov2_vitb14, efficientnet_lite.*, got 'clip'"):
        create_teacher("clip")
    with pytest.raises(ValueError, match="uint8 pictures"):
        lite.tokens(torch.rand(2, 3, 8, 8), 3)


def test_the_cache_gives_the_teachers_tokens_and_asks_once_for_each_picture(tmp_path):
    teacher, pictures = Patches(), images(5)
    cache = TokenCache(teacher, tmp_path)
    expected = Patches().tokens(pictures, 4).half().float()
    assert torch.equal(cache.tokens(pictures, 4), expected)
    order = torch.tensor([3, 1, 1, 4])
    assert torch.equal(cache.tokens(pictures[order], 4), expected[order])
    assert teacher.shown == 5
    cache.tokens(pictures.flip(3), 4)
    assert teacher.shown == 10, "a flipped picture has other tokens"


def test_the_cache_outlives_the_process_for_the_same_teacher_and_grid_only(tmp_path):
    pictures = images(4)
    TokenCache(Patches(), tmp_path).tokens(pictures[:2], 4)
    TokenCache(Patches(), tmp_path).tokens(pictures[2:], 4)
    for teacher, side, asked in ((Patches(), 4, 0), (Patches(), 2, 4), (Patches(version=2), 4, 4)):
        tokens = TokenCache(teacher, tmp_path).tokens(pictures, side)
        assert teacher.shown == asked
        assert torch.equal(tokens, Patches().tokens(pictures, side).half().float())


def test_a_cache_that_was_cut_off_gives_what_is_whole(tmp_path):
    pictures = images(3)
    TokenCache(Patches(), tmp_path).tokens(pictures, 4)
    (keys,) = tmp_path.glob("*/*.keys")
    keys.write_bytes(keys.read_bytes()[:-7])
    teacher = Patches()
    assert torch.equal(TokenCache(teacher, tmp_path).tokens(pictures, 4), Patches().tokens(pictures, 4).half().float())
    assert teacher.shown == 1


def cached_tokens(folder, pictures):
    """The tokens from a cache in `folder`, and how many pictures the teacher was asked for."""
    teacher = Patches()
    return TokenCache(teacher, folder).tokens(pictures, 4), teacher.shown


@pytest.mark.parametrize(
    ("spoil", "asked"),
    [
        (lambda content: content[: len(content) // 2], 2),
        (lambda content: content[:-1], 1),
        (lambda content: b"", 3),
        (lambda content: bytes(len(content)), 3),
        (lambda content: content[:9] + bytes([content[9] ^ 64]) + content[10:], 1),
        (lambda content: content[1:], 3),
    ],
    ids=["half", "a byte less", "empty", "zeros", "a flipped bit", "shifted"],
)
def test_damaged_tokens_are_asked_for_again_with_a_warning_that_names_their_file(tmp_path, spoil, asked):
    pictures = images(3)
    expected = Patches().tokens(pictures, 4).half().float()
    cached_tokens(tmp_path, pictures)
    (path,) = tmp_path.glob("*/*.tokens")
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.warns(UserWarning, match=rf"{path.name} is damaged: its lost tokens are computed again"):
        tokens, shown = cached_tokens(tmp_path, pictures)
    assert torch.equal(tokens, expected) and shown == asked
    again, shown = cached_tokens(tmp_path, pictures)
    assert torch.equal(again, expected) and shown == 0, "what was asked for again was stored again"


def test_no_flipped_bit_of_an_index_gives_a_picture_the_tokens_of_another(tmp_path):
    pictures = images(3)
    expected = Patches().tokens(pictures, 4).half().float()
    cached_tokens(tmp_path, pictures)
    (path,) = tmp_path.glob("*/*.keys")
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokens, shown = cached_tokens(tmp_path, pictures)
        assert torch.equal(tokens, expected) and shown <= 1
        for fresh in set(tmp_path.glob("*/*")) - {path, path.with_suffix(".tokens")}:
            fresh.unlink()


def test_without_its_tokens_an_index_counts_for_nothing(tmp_path):
    pictures = images(3)
    cached_tokens(tmp_path, pictures)
    next(tmp_path.glob("*/*.tokens")).unlink()
    assert cached_tokens(tmp_path, pictures)[1] == 3


@pytest.mark.parametrize("in_the_way", ["tokens", "tokens/cache"])
def test_a_place_that_cannot_be_written_costs_a_warning_and_no_token(tmp_path, in_the_way):
    (tmp_path / "tokens").write_text("a file in the way")
    teacher, pictures = Patches(), images(3)
    cache = TokenCache(teacher, tmp_path / in_the_way)
    with pytest.warns(UserWarning, match=r"tokens.* cannot be written .*the teacher runs at every step") as said:
        for _ in range(2):
            assert torch.equal(cache.tokens(pictures, 4), Patches().tokens(pictures, 4).half().float())
    assert teacher.shown == 6 and len(said) == 1


def test_a_disk_that_fills_up_costs_a_warning_and_no_token(tmp_path, monkeypatch):
    class Full(FileIO):
        """Takes the first ten bytes and no more."""

        def write(self, content):
            if self.tell() >= 10:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(content[:10])

    monkeypatch.setattr("flowexp.integrations.encoders.token_cache.FileIO", Full)
    pictures = images(3)
    with pytest.warns(UserWarning, match="no space left on device"):
        tokens, _ = cached_tokens(tmp_path, pictures)
    assert torch.equal(tokens, Patches().tokens(pictures, 4).half().float())
    monkeypatch.undo()
    assert cached_tokens(tmp_path, pictures)[1] == 3
