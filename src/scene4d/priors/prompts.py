"""Texts as a model's text encoder embeds them: made once, kept as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from scene4d.errors import DataError
from scene4d.priors.tensor_files import read_tensors

_MOST_BYTES = 1 << 30


class Prompts:
    """Embeddings by text, each of a batch of one."""

    def __init__(self, embeddings: Mapping[str, Mapping[str, Tensor]]) -> None:
        """By text and name: ``embeds``, and what the family wants besides (``pooled``,
        ``mask``)."""
        self._embeddings = {text: dict(parts) for text, parts in embeddings.items()}

    @property
    def texts(self) -> Sequence[str]:
        """Those that are known; "" is no text."""
        return list(self._embeddings)

    def of(self, text: str) -> Mapping[str, Tensor]:
        """The embedding of a known text."""
        return self._embeddings[text]

    def save(self, path: Path) -> None:
        """Writes them."""
        from safetensors.torch import save_file

        flat = {
            f"{number}/{name}": value.detach().cpu().contiguous()
            for number, parts in enumerate(self._embeddings.values())
            for name, value in parts.items()
        }
        save_file(flat, path, metadata={"scene4d_texts": json.dumps(self.texts)})


def load_prompts(path: Path) -> Prompts:
    """The embeddings of a file. Raises :class:`DataError` for anything else."""
    flat, texts = read_tensors(
        path, "scene4d_texts", what="file of embeddings", most_bytes=_MOST_BYTES
    )
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise DataError("holds no embeddings of texts", where=path,
                        fix="make it with scene4d.priors.prompts.embed")  # fmt: skip
    found: dict[str, dict[str, Tensor]] = {text: {} for text in texts}
    for name, value in flat.items():
        number, _, part = name.partition("/")
        if not number.isdigit() or int(number) >= len(texts) or not part:
            raise DataError(f"has a tensor {name!r} that belongs to no text", where=path)
        found[texts[int(number)]][part] = value
    return Prompts(found)


def embed(pipeline: Any, texts: Sequence[str]) -> Prompts:
    """What a diffusers pipeline's own text encoders make of ``texts``; give "" among them for what
    is not told. Of pipelines that return more than two embeddings, positive ones alone are kept."""
    made: dict[str, dict[str, Tensor]] = {}
    for text in texts:
        given = pipeline.encode_prompt(text, device="cpu", num_images_per_prompt=1)
        parts = [value for value in given if isinstance(value, Tensor)]
        names = ("embeds", "pooled") if parts[-1].ndim == 2 and len(given) != 4 else ("embeds",)
        made[text] = dict(zip(names, parts, strict=False))
    return Prompts(made)
