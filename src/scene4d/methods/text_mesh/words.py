"""What a text becomes before a network reads it: one vector for each of its words.

Two encoders: :class:`LearnedWords` knows the words of the captions that it is trained on, and needs
nothing else; :class:`LanguageModel` is a frozen text encoder of transformers, from a folder or the
hub, which knows any word.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scene4d.errors import DataError, UsageError
from scene4d.files import printable
from scene4d.optional import why_not

LONGEST = 64
"""Words of a text."""
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

    def __init__(self, vocabulary: Sequence[str], width: int) -> None:
        """``vocabulary``: all words that it is to know."""
        super().__init__()
        self.vocabulary, self.width = list(vocabulary), width
        self._rows = {word: row for row, word in enumerate(self.vocabulary)}
        self.embedding = nn.Embedding(len(self.vocabulary), width)

    @classmethod
    def of(cls, captions: Sequence[str], width: int) -> LearnedWords:
        """That of all words in ``captions``."""
        words = {word for caption in captions for word in split_words(caption)}
        return cls(sorted(words), width)

    def forward(self, text: str) -> Float[Tensor, "words width"]:
        """Rows of the embedding. Raises :class:`UsageError` for words that no caption had."""
        words = split_words(text)
        unknown = sorted(set(words) - set(self._rows))
        if unknown:
            some = ", ".join(self.vocabulary[:60])
            more = "" if len(self.vocabulary) <= 60 else f" and {len(self.vocabulary) - 60} more"
            raise UsageError(
                f"no caption that it was trained on has the word {printable(unknown[0])!r}",
                fix=f"use some of: {some}{more}",
            )
        rows = torch.tensor([self._rows[word] for word in words])
        return self.embedding(rows.to(self.embedding.weight.device))

    def plain(self) -> dict[str, Any]:
        """The vocabulary."""
        return {"vocabulary": self.vocabulary, "width": self.width}


class LanguageModel(TextEncoder):
    """A text encoder of transformers as it is; a text's vectors are made once."""

    def __init__(self, source: str, *, fetch: bool = True) -> None:
        """``source``: a local folder, or a name on the hub, which is fetched only with ``fetch``.
        Raises :class:`DataError` where there is no such model, :class:`UsageError` where
        transformers is not there."""
        super().__init__()
        if (missing := why_not("transformers")) is not None:
            raise UsageError(
                f"text encoders want transformers: {missing}",
                fix="pip install 'scene4d[priors]', or leave --text-encoder out",
            )
        import transformers

        self.source = source
        try:
            how = {"trust_remote_code": False, "local_files_only": not fetch}
            self._tokenise = transformers.AutoTokenizer.from_pretrained(source, **how)
            model = transformers.AutoModel.from_pretrained(source, use_safetensors=True, **how)
        except Exception as error:  # whatever transformers raises for what is no model
            raise DataError(
                f"holds no text encoder ({printable(error)})", where=source,
                fix="give a folder with config.json, model.safetensors and a tokenizer; of a run,"
                " fetch what it names first",
            ) from error  # fmt: skip
        model = getattr(model, "text_model", model)  # CLIP's half that reads
        # In a list, so that it is no part of what is trained and saved.
        self._model: list[Any] = [model.eval().requires_grad_(False)]
        self.width = int(model.config.hidden_size)
        self._known: dict[str, Tensor] = {}

    @torch.no_grad()
    def forward(self, text: str) -> Float[Tensor, "words width"]:
        """The last layer's vectors."""
        if text not in self._known:
            split_words(text)
            tokens = self._tokenise(
                text, return_tensors="pt", truncation=True, max_length=LONGEST + 2
            )
            self._known[text] = self._model[0](**tokens).last_hidden_state[0].float()
        return self._known[text]

    def plain(self) -> dict[str, Any]:
        """Where it lies."""
        return {"source": self.source}
