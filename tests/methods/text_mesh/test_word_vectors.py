"""Words that no caption had, read as the nearest that one had."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from scene4d.errors import DataError
from scene4d.methods.text_mesh.word_vectors import nearest_words

# Angles about the mean, which is 0.
ANGLES = {"the": 160.0, "couch": 3.0, "sofa": 0.0, "car": 120.0, "cars": 125.0, "red": 240.0}
LENGTHS = {"sofa": 0.1}
WORDS = list(ANGLES)


def vectors_at(angles: dict[str, float]) -> np.ndarray:
    turned = np.radians(list(angles.values()))
    lengths = np.array([LENGTHS.get(word, 1.0) for word in angles])
    return lengths[:, None] * np.stack([np.cos(turned), np.sin(turned)], axis=1)


def centred() -> np.ndarray:
    """With one more, "and", that makes the mean 0."""
    made = vectors_at(ANGLES)
    return np.concatenate([made, -made.sum(axis=0, keepdims=True)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npz"
    # The mean is taken away first: all vectors may lie on one side.
    np.savez(path, words=np.array([*WORDS, "and"]), vectors=(centred() + 5).astype(np.float32))
    return path


def test_words_are_read_as_the_nearest_by_angle(file: Path) -> None:
    found = nearest_words(file, ["couch", "car"])
    assert found["sofa"] == "couch" and found["cars"] == "car"  # whatever their lengths
    assert "couch" not in found and "car" not in found


def test_what_is_near_none_is_not_read(file: Path) -> None:
    found = nearest_words(file, ["couch", "car"])
    assert "red" not in found  # 117 and 120 degrees away
    assert found["the"] == "car"  # 40 degrees away; 60 are the most


def test_text_files_are_read_alike(file: Path, tmp_path: Path) -> None:
    lines = [
        f"{word} {' '.join(f'{x:.8g}' for x in row)}"
        for word, row in zip([*WORDS, "and"], centred() + 5, strict=True)
    ]
    expected = nearest_words(file, ["couch", "red"])
    spaced = [*lines[:2], ". . . 5.1 4.9", "", *lines[2:]]  # as GloVe's largest files have
    for head in ("", f"{len(lines)} 2\n"):  # GloVe's; word2vec's and fastText's
        path = tmp_path / "vectors.txt"
        path.write_text(head + "\n".join(spaced if not head else lines) + "\n")
        assert nearest_words(path, ["couch", "red"]) == expected


def test_of_a_word_that_comes_twice_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, -0.1]], dtype=np.float32)
    np.savez(path, words=np.array(["Red", "crimson", "blue", "red"]), vectors=vectors)
    assert nearest_words(path, ["red", "blue"]) == {"crimson": "red"}


def test_words_of_captions_that_a_file_lacks_are_named(file: Path, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert nearest_words(file, ["couch", "dumpster"])["sofa"] == "couch"
    assert "1 of 2 words" in caplog.text and "dumpster" in caplog.text
    with pytest.raises(DataError, match="none of the words of captions: dumpster"):
        nearest_words(file, ["dumpster"])


VECTORS = np.ones((len(WORDS), 2), dtype=np.float32)
NOT_VECTORS = {
    "words.npz": {"words": np.array(WORDS)},
    "fewer.npz": {"words": np.array(WORDS), "vectors": VECTORS[:3]},
    "flat.npz": {"words": np.array(WORDS), "vectors": VECTORS[:, 0]},
    "infinite.npz": {"words": np.array(WORDS), "vectors": VECTORS * np.inf},
    "objects.npz": {"words": np.array(WORDS, dtype=object), "vectors": VECTORS},
    "no.npz": b"red 1 2 3",
    "cut.npz": b"PK\x03\x04 and no more",
    "empty.npz": b"",
    "words.txt": b"red one two three\n",
    "wide.txt": b"red 1 2 3\nblue 1 2\n",
    "empty.txt": b"",
    "binary.txt": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", NOT_VECTORS)
def test_files_that_hold_no_vectors(name: str, tmp_path: Path) -> None:
    content = NOT_VECTORS[name]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.savez(tmp_path / name, **content)
    with pytest.raises(DataError, match=name):
        nearest_words(tmp_path / name, ["red"])
    with pytest.raises(DataError, match="missing"):
        nearest_words(tmp_path / "missing.npz", ["red"])
