"""Captions of classes on scikit-learn's digits: which caption which image gets, what probes and samples see."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from flowexp.backbones import create_backbone
from flowexp.data import CIFAR10, ClassCaptions, Digits, FashionMNIST, ImageNet, Pick
from flowexp.flow.sampler import Sampler
from flowexp.integrations.encoders.words import HashedWords
from flowexp.objectives import FlowMatching

SENTENCES = ("a picture of {}", "{} in grey", "{}")


def read(text: Any, **options: Any) -> ClassCaptions:
    datamodule = ClassCaptions(Digits(), text, **{"sentences": SENTENCES, "batch_size": 16, **options})
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def captions(datamodule: ClassCaptions, rows: torch.Tensor, seed: int = 0, epoch: int = 0) -> list[str]:
    numbers = datamodule.train.batch(Pick(rows, None, seed, epoch))["label"]
    return [datamodule.texts[number] for number in numbers.tolist()]


def test_an_image_gets_a_caption_of_its_own_class_and_every_sentence_comes_equally_often(text: Any):
    datamodule = read(text)
    rows = torch.arange(200)
    names = [Digits.class_names[label] for label in datamodule.train.labels[rows].tolist()]
    seen: Counter[str] = Counter()
    for epoch in range(30):
        for caption, name in zip(captions(datamodule, rows, epoch=epoch), names, strict=True):
            assert caption in {sentence.replace("{}", name) for sentence in SENTENCES}
            seen[caption.replace(name, "{}")] += 1
    assert set(seen) == set(SENTENCES) and all(abs(num / 6000 - 1 / 3) < 0.03 for num in seen.values())


def test_the_caption_is_a_function_of_seed_epoch_and_row_alone(text: Any):
    datamodule, rows = read(text), torch.arange(60)
    whole = captions(datamodule, rows, 3, 8)
    assert [caption for part in rows.split(7) for caption in captions(datamodule, part, 3, 8)] == whole
    assert whole != captions(datamodule, rows, 4, 8) and whole != captions(datamodule, rows, 3, 9)


def test_the_sets_keep_pictures_and_labels_of_the_dataset(text: Any):
    plain = Digits()
    plain.setup()
    datamodule = read(text)
    assert (datamodule.name, datamodule.num_classes, datamodule.text_shape) == ("digits", 10, text.shape)
    for split in ("train", "test"):
        own, other = getattr(datamodule, split), getattr(plain, split)
        assert torch.equal(own.images, other.images) and torch.equal(own.labels, other.labels)
        assert torch.equal(datamodule.reference_pictures(split).images, other.images)


def test_a_subset_keeps_captions_of_its_own_classes(text: Any):
    datamodule = read(text, train_size=50, sentences=("{}",))
    expected = [Digits.class_names[label] for label in datamodule.train.labels.tolist()]
    assert len(expected) == 50 and captions(datamodule, torch.arange(50)) == expected


def test_after_the_transfer_captions_are_embeddings_and_pictures_floats(text: Any):
    datamodule = read(text)
    batch = next(iter(datamodule.train_dataloader()))
    moved = datamodule.on_after_batch_transfer(batch, 0)
    expected = text.encode([datamodule.texts[number] for number in batch["label"].tolist()])
    assert torch.equal(moved["label"], expected) and moved["label"].shape == (16, *text.shape)
    assert moved["image"].dtype == torch.float32 and moved["image"].shape == (16, 1, 8, 8)
    again = datamodule.on_after_batch_transfer(moved, 0)
    assert torch.equal(again["label"], moved["label"]) and torch.equal(again["image"], moved["image"])


def test_samples_take_the_classes_in_turn_and_each_round_the_next_sentence(text: Any):
    datamodule = ClassCaptions(Digits(), text, SENTENCES)  # no file is read
    names = Digits.class_names
    expected = ["a picture of " + names[0], "a picture of " + names[9], names[0] + " in grey", names[3], names[0]]
    expected += ["a picture of " + names[7]]
    assert torch.equal(datamodule.conditions([0, 9, 10, 23, 20, 37]), text.encode(expected))


def test_the_null_text_is_the_empty_caption(text: Any):
    assert torch.equal(read(text).null_text(), text.encode([""])[0])


def test_flips_are_the_habit_of_the_pictures_unless_said(text: Any):
    assert ClassCaptions(CIFAR10(), text).flip and not ClassCaptions(Digits(), text).flip
    assert not ClassCaptions(CIFAR10(), text, flip=False).flip


def test_the_pictures_lie_where_root_says(text: Any, tmp_path: Path):
    datamodule = ClassCaptions(FashionMNIST(root="elsewhere"), text, root=tmp_path)
    assert datamodule.root == datamodule.pictures.root == tmp_path
    assert ClassCaptions(FashionMNIST(root=tmp_path), text).root == tmp_path


@pytest.mark.parametrize("dataset", [Digits, FashionMNIST, CIFAR10])
def test_named_datasets_have_a_name_for_each_class(dataset: Any):
    assert len(set(dataset.class_names)) == dataset.num_classes


def test_a_dataset_without_names_and_a_sentence_without_a_place_are_refused(text: Any):
    with pytest.raises(ValueError, match="captions need classes with names, as those of fashion_mnist, got imagenet"):
        ClassCaptions(ImageNet(), text)
    for wrong in ((), ("a picture",), ("{}", "two")):
        with pytest.raises(ValueError, match=r"sentences must have \{\} for the name"):
            ClassCaptions(Digits(), text, wrong)


def test_guidance_moves_samples_from_the_empty_caption_to_their_own():
    """The guided field of an MMDiT on captions is v_null + s (v_caption - v_null), with one call of doubled batch."""
    datamodule = read(HashedWords(dim=6, length=5))
    network = create_backbone(
        "mmdit_nano4", resolution=8, channels=1, depth=2, width=16, heads=2, text_length=5, text_dim=6
    )
    module = FlowMatching(network)
    module.conditions = datamodule.conditions
    x, t = torch.randn(4, 1, 8, 8), torch.rand(4)
    label = module.labels_for(range(4), 0)
    assert label is not None
    guided = Sampler(guidance_scale=3.0).velocity_field(module.velocity_network, label)(x, t)
    null, own = network(x, t), network(x, t, label)
    assert not torch.allclose(null, own)
    torch.testing.assert_close(guided, null + 3 * (own - null))
