"""Frozen readers of texts: vectors of words from a file, and text encoders of transformers.

In place of :class:`scene4d.priors.words.LearnedWords`, which knows the words of the captions that
it is trained on alone, and needs nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import DataError, UsageError
from scene4d.files import printable
from scene4d.optional import why_not
from scene4d.priors.words import LONGEST, LearnedWords, TextEncoder, split_words

MOST_WORDS = 50_000
"""Of a file of vectors, which are sorted by how often words are used; a run keeps them."""
_VECTOR_FILES = {".npz", ".txt", ".vec"}
_NAMED = 10
"""Words that are named in a warning; more are counted."""
_log = logging.getLogger(__name__)


def frozen_encoder(source: str, captions: Sequence[str], generator: torch.Generator) -> TextEncoder:
    """``source``: a file of word vectors, or what :class:`LanguageModel` takes.

    Words of ``captions`` that the file lacks get vectors at random, and are named in a warning.
    """
    if Path(source).suffix.lower() not in _VECTOR_FILES:
        return LanguageModel(source)
    found = WordVectors.read(Path(source))
    words = {word for caption in captions for word in split_words(caption)}
    lacking = sorted(words.difference(found.vocabulary))
    if lacking:
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        _log.warning("%s has no vector of %d of %d words of captions, which get one at random,"
                     " near no other word: %s%s", printable(source), len(lacking), len(words),
                     printable(", ".join(lacking[:_NAMED])), more)  # fmt: skip
    return found.with_random(lacking, generator)


class WordVectors(LearnedWords):
    """Vectors of words from a file, such as GloVe's (Pennington et al. 2014): frozen, so that a
    word that no caption had stands near those that it is used like."""

    def __init__(self, vocabulary: Sequence[str], width: int) -> None:
        super().__init__(vocabulary, width)
        self.embedding.requires_grad_(False)

    @classmethod
    def read(cls, path: Path) -> WordVectors:
        """The first :data:`MOST_WORDS` words of a ``.npz`` with ``words`` [n] and ``vectors``
        [n, width], or of a text file with a word and its numbers a line (GloVe's, word2vec's and
        fastText's), moved to mean 0 and scaled to variance 1 as a whole.

        Raises :class:`DataError` for files that are neither.
        """
        try:
            words, vectors = (_of_npz if path.suffix.lower() == ".npz" else _of_text)(path)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"holds no vectors of words ({printable(error)})", where=path,
                fix="give an .npz with words and vectors, or a text file with a word and its"
                " numbers a line",
            ) from error  # fmt: skip
        if not np.isfinite(vectors).all() or not np.ptp(vectors, axis=0).any():
            raise DataError("has vectors that are all the same, or not finite", where=path)
        made = cls(words, vectors.shape[1])
        centred = vectors - vectors.mean(axis=0)
        with torch.no_grad():
            made.embedding.weight.copy_(torch.from_numpy(centred / centred.std()))
        return made

    def with_random(self, words: Sequence[str], generator: torch.Generator) -> WordVectors:
        """With ``words`` that are new to it, whose vectors are normal noise."""
        made = WordVectors([*self.vocabulary, *words], self.width)
        noise = torch.randn(len(words), self.width, generator=generator)
        with torch.no_grad():
            made.embedding.weight.copy_(torch.cat([self.embedding.weight, noise]))
        return made

    def _unknown(self, word: str) -> UsageError:
        return UsageError(
            f"the word {printable(word)!r} is none of the {len(self.vocabulary):,} that it has"
            " vectors of",
            fix="use a more common word, in English letters if the vectors are English",
        )

    def plain(self) -> dict[str, Any]:
        """The vocabulary; the vectors are saved with the weights."""
        return {**super().plain(), "frozen": True}


def _of_npz(path: Path) -> tuple[list[str], np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        words = [str(word).lower() for word in file["words"][:MOST_WORDS]]
        return _first_of_each(words, np.asarray(file["vectors"][:MOST_WORDS], dtype=np.float32))


def _of_text(path: Path) -> tuple[list[str], np.ndarray]:
    words, rows = [], []
    with path.open(encoding="utf-8", errors="strict") as file:
        for number, line in enumerate(file):
            word, *numbers = line.split()
            if number == 0 and len(numbers) == 1:  # word2vec's: how many words, how wide
                continue
            words.append(word.lower())
            rows.append(np.array(numbers, dtype=np.float32))
            if len(words) == MOST_WORDS:
                break
    return _first_of_each(words, np.stack(rows))


def _first_of_each(words: list[str], vectors: np.ndarray) -> tuple[list[str], np.ndarray]:
    if vectors.ndim != 2 or len(vectors) != len(words) or not vectors.size:
        raise ValueError(f"{len(words)} words, vectors {list(vectors.shape)}")
    first = {word: row for row, word in reversed(list(enumerate(words)))}
    rows = sorted(first.values())
    return [words[row] for row in rows], vectors[rows]


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
