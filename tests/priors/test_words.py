"""Texts as vectors, one for each word, of words that are learned."""

import pytest
import torch

from scene4d.errors import UsageError
from scene4d.priors.words import LONGEST, LearnedWords, split_words


def test_words_are_small_letters_without_signs() -> None:
    assert split_words("A Red, ARM-chair!") == ["a", "red", "arm", "chair"]
    assert split_words("ein grünes Haus 3") == ["ein", "grünes", "haus", "3"]


@pytest.mark.parametrize("text", ["", " .,; ", "word " * (LONGEST + 1)])
def test_no_words_and_too_many(text) -> None:
    with pytest.raises(UsageError, match="words"):
        split_words(text)


def test_learned_words_are_rows_of_a_table() -> None:
    encoder = LearnedWords.of(["a red box", "a blue bar"], 4)
    assert encoder.vocabulary == ["a", "bar", "blue", "box", "red"]
    found = encoder("blue box")
    torch.testing.assert_close(found, encoder.embedding.weight[[2, 3]])


def test_unknown_words_are_told_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="'grean'") as error:
        LearnedWords.of(["a red box"], 4)("a grean box")
    assert "a, box, red" in str(error.value)
