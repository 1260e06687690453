"""Texts as vectors, one for each word: of a file, and by a language model."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from optional_packages import import_or_skip

from scene4d.errors import DataError, UsageError
from scene4d.methods.text_mesh.words import LanguageModel, WordVectors, frozen_encoder

WORDS = ["the", "couch", "sofa", "car", "red"]
VECTORS = np.array([[2, 2, 2], [3, 1, 2], [3.1, 1, 2], [1, 3, 2], [2, 2, 4]], dtype=np.float32)


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npz"
    np.savez(path, words=np.array(WORDS), vectors=VECTORS.astype(np.float16))
    return path


def test_vectors_of_a_file_keep_their_directions_about_the_mean(vectors: Path) -> None:
    encoder = WordVectors.read(vectors)
    found = encoder("Sofa, couch")
    whole = VECTORS.astype(np.float16).astype(np.float64)
    expected = (whole - whole.mean(axis=0)) / (whole - whole.mean(axis=0)).std()
    np.testing.assert_allclose(found, expected[[2, 1]], atol=1e-5)  # float32 of numbers near 1
    assert encoder.width == 3 and not found.requires_grad


@pytest.mark.parametrize("head", ["", "5 3\n"])  # GloVe's; word2vec's and fastText's
def test_text_files_are_read_as_well(head: str, vectors: Path, tmp_path: Path) -> None:
    lines = [f"{w} {' '.join(map(str, row))}" for w, row in zip(WORDS, VECTORS, strict=True)]
    (tmp_path / "vectors.txt").write_text(head + "\n".join(lines) + "\n")
    found = WordVectors.read(tmp_path / "vectors.txt")
    assert found.vocabulary == WORDS
    expected = WordVectors.read(vectors)("sofa car")
    # float16 of the other: 3.1 is 1e-3 away
    torch.testing.assert_close(found("sofa car"), expected, atol=5e-3, rtol=0)


def test_of_a_word_that_comes_twice_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    np.savez(path, words=np.array(["Red", "blue", "red"]), vectors=VECTORS[:3])
    encoder = WordVectors.read(path)
    assert encoder.vocabulary == ["red", "blue"]
    torch.testing.assert_close(encoder("red"), -encoder("blue"))


def test_words_of_captions_that_a_file_lacks_get_vectors_of_their_own(vectors, caplog) -> None:
    generator = torch.Generator().manual_seed(0)
    with caplog.at_level(logging.WARNING):
        encoder = frozen_encoder(str(vectors), ["a red couch", "the dumpster"], generator)
    assert "2 of 5 words" in caplog.text and "a, dumpster" in caplog.text
    torch.testing.assert_close(encoder("sofa"), WordVectors.read(vectors)("sofa"))
    assert encoder("dumpster").std() > 0
    with pytest.raises(UsageError, match="'armchair' is none of the 7"):
        encoder("a red armchair")


NOT_VECTORS = {
    "words.npz": dict(words=np.array(WORDS)),
    "fewer.npz": dict(words=np.array(WORDS), vectors=VECTORS[:3]),
    "flat.npz": dict(words=np.array(WORDS), vectors=VECTORS[:, 0]),
    "same.npz": dict(words=np.array(WORDS), vectors=np.ones_like(VECTORS)),
    "infinite.npz": dict(words=np.array(WORDS), vectors=VECTORS * np.inf),
    "objects.npz": dict(words=np.array(WORDS, dtype=object), vectors=VECTORS),
    "no.npz": b"red 1 2 3",
    "words.txt": b"red one two three\n",
    "wide.txt": b"red 1 2 3\nblue 1 2\n",
    "empty.txt": b"",
    "binary.txt": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", NOT_VECTORS)
def test_files_that_hold_no_vectors(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    content = NOT_VECTORS[name]
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, **content)
    with pytest.raises(DataError, match=name):
        WordVectors.read(path)
    with pytest.raises(DataError, match="missing"):
        WordVectors.read(tmp_path / "missing.npz")


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    """A BERT of two layers, built here."""
    transformers, tokenizers = import_or_skip("transformers"), import_or_skip("tokenizers")
    folder = tmp_path_factory.mktemp("bert")
    words = ["[UNK]", "[CLS]", "[SEP]", "a", "red", "blue", "box"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def test_a_language_model_gives_a_vector_a_token_and_is_not_trained(language_model: Path) -> None:
    encoder = LanguageModel(str(language_model))
    red, blue = encoder("a red box"), encoder("a blue box")
    assert red.shape == (5, 16)  # with the marks of begin and end
    assert encoder.width == 16
    assert not torch.allclose(red, blue)
    assert encoder("a red box") is red
    assert list(encoder.parameters()) == [] and not red.requires_grad


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    import_or_skip("transformers")
    with pytest.raises(DataError, match="no text encoder"):
        LanguageModel(str(tmp_path))
