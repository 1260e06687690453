"""Texts as vectors, one for each of their words, by words that are learned with what reads them."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.errors import UsageError
from scene4d.files import printable

LONGEST = 64
"""Words of a text."""
_log = logging.getLogger(__name__)
_WORD = re.compile(r"[^\W_]+", re.UNICODE)


def split_words(text: str) -> list[str]:
    """The words of a text, small letters. Raises :class:`UsageError` where there are none, or more
    than :data:`LONGEST`."""
    words = _WORD.findall(text.lower())
    if not 1 <= len(words) <= LONGEST:
        raise UsageError(
            f"the text {printable(text)!r} has {len(words)} words",
            fix=f"give 1 to {LONGEST}",
        )
    return words


class TextEncoder(nn.Module, ABC):
    """Texts as vectors."""

    width: int
    """Numbers of a vector."""

    @abstractmethod
    def forward(self, text: str) -> Float[Tensor, "words width"]:
        """One vector a word. Raises :class:`UsageError` for a text that it cannot read."""

    @abstractmethod
    def plain(self) -> dict[str, Any]:
        """What it is built of again."""


class LearnedWords(TextEncoder):
    """An embedding of the words of the captions, trained with what reads it."""

    def __init__(
        self, vocabulary: Sequence[str], width: int, others: Mapping[str, str] | None = None
    ) -> None:
        """``vocabulary``: all words that it is to know. ``others``: more words, and the ones of
        these that they are read as."""
        super().__init__()
        self.vocabulary, self.width = list(vocabulary), width
        self.others = dict(others or {})
        self._told: set[str] = set()
        self._rows = {word: row for row, word in enumerate(self.vocabulary)}
        self.embedding = nn.Embedding(len(self.vocabulary), width)

    @classmethod
    def of(cls, captions: Sequence[str], width: int) -> LearnedWords:
        """That of all words in ``captions``."""
        words = {word for caption in captions for word in split_words(caption)}
        return cls(sorted(words), width)

    def forward(self, text: str) -> Float[Tensor, "words width"]:
        """Rows of the embedding. Raises :class:`UsageError` for words that no caption had."""
        words = [self._read(word) for word in split_words(text)]
        unknown = sorted(set(words) - set(self._rows))
        if unknown:
            raise self._unknown(unknown[0])
        rows = torch.tensor([self._rows[word] for word in words])
        return self.embedding(rows.to(self.embedding.weight.device))

    def _read(self, word: str) -> str:
        if word in self._rows or word not in self.others:
            return word
        if word not in self._told:
            self._told.add(word)
            _log.info("no caption has the word %r: it is read as %r", word, self.others[word])
        return self.others[word]

    def _unknown(self, word: str) -> UsageError:
        some = ", ".join(self.vocabulary[:60])
        more = "" if len(self.vocabulary) <= 60 else f" and {len(self.vocabulary) - 60} more"
        return UsageError(
            f"no caption that it was trained on has the word {printable(word)!r}",
            fix=f"use some of: {some}{more}",
        )

    def plain(self) -> dict[str, Any]:
        """The vocabulary, and what others are read as."""
        made: dict[str, Any] = {"vocabulary": self.vocabulary, "width": self.width}
        if self.others:
            made |= {"others": list(self.others), "read_as": list(self.others.values())}
        return made
