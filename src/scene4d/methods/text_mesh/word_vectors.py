"""Words that no caption had, read as the nearest that one had, by vectors of words from a file.

Such as GloVe's (Pennington et al. 2014). They say which words are used alike, not what things look
like; as what the network itself reads they are worse than words that are learned with it
(methods/text-mesh/README.md).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float

from scene4d.errors import DataError
from scene4d.files import printable

MOST_WORDS = 100_000
"""Of a file of vectors, which are sorted by how often words are used."""
NEAR = 0.5
"""Cosine of the largest angle to a word that another is read as."""
_NAMED = 10
"""Words that are named in a warning; more are counted."""
_log = logging.getLogger(__name__)


def nearest_words(path: Path, known: Sequence[str]) -> dict[str, str]:
    """Other words of the file, each with the one of ``known`` at the smallest angle about the mean
    of all vectors; left out where none is near (:data:`NEAR`).

    The file: a ``.npz`` with ``words`` [n] and ``vectors`` [n, width], or text with a word and its
    numbers a line (GloVe's, word2vec's, fastText's); its first :data:`MOST_WORDS` count. Words of
    ``known`` that it lacks are named in a warning. Raises :class:`DataError` for other files, and
    where it has none of ``known``.
    """
    try:
        words, vectors = (_of_npz if path.suffix.lower() == ".npz" else _of_text)(path)
    except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
        raise DataError(
            f"holds no vectors of words ({printable(error)})", where=path,
            fix="give an .npz with words and vectors, or a text file with a word and its numbers"
            " a line",
        ) from error  # fmt: skip
    rows = {word: row for row, word in reversed(list(enumerate(words)))}
    found = [word for word in known if word in rows]
    if not found:
        some = printable(", ".join(known[:_NAMED]))
        raise DataError(f"has vectors of none of the words of captions: {some}", where=path)
    if lacking := [word for word in known if word not in rows]:
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        _log.warning("%s has no vectors of %d of %d words of captions, so that no other word is"
                     " read as one of these: %s%s", printable(path), len(lacking), len(known),
                     printable(", ".join(lacking[:_NAMED])), more)  # fmt: skip
    turned = vectors - vectors.mean(axis=0)
    turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)
    cosines = turned @ turned[[rows[word] for word in found]].T
    nearest, near, own = cosines.argmax(axis=1), cosines.max(axis=1) >= NEAR, set(known)
    return {w: found[nearest[row]] for w, row in rows.items() if near[row] and w not in own}


def _of_npz(path: Path) -> tuple[list[str], Float[np.ndarray, "n width"]]:
    with np.load(path, allow_pickle=False) as file:
        words = [str(word).lower() for word in file["words"][:MOST_WORDS]]
        return words, _checked(words, np.asarray(file["vectors"][:MOST_WORDS], np.float32))


def _of_text(path: Path) -> tuple[list[str], Float[np.ndarray, "n width"]]:
    words, rows = [], []
    width = 0
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            parts = line.split()
            if not parts or (number == 0 and len(parts) == 2):  # word2vec's: how many, how wide
                continue
            width = width or len(parts)
            if len(parts) > width:  # GloVe's largest files have ". . .", which is no word
                continue
            words.append(parts[0].lower())
            rows.append(np.array(parts[1:], dtype=np.float32))
            if len(words) == MOST_WORDS:
                break
    return words, _checked(words, np.stack(rows))


def _checked(words: Sequence[str], vectors: np.ndarray) -> Float[np.ndarray, "n width"]:
    if vectors.ndim != 2 or len(vectors) != len(words) or not vectors.size:
        raise ValueError(f"{len(words)} words, vectors {list(vectors.shape)}")
    if not np.isfinite(vectors).all():
        raise ValueError("numbers that are not finite")
    return vectors
