"""Texts as vectors, one for each word, by a language model."""

from pathlib import Path

import pytest
import torch
from optional_packages import import_or_skip

from scene4d.errors import DataError
from scene4d.methods.text_mesh.words import LanguageModel


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
