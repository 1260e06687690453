"""Texts as a model's text encoder embeds them: made once, kept as safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import DataError, UsageError
from scene4d.priors.families import family_of
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


def embed(pipeline: Any, texts: Sequence[str], **more: Any) -> Prompts:
    """What a diffusers pipeline's own text encoders make of ``texts``; give "" among them for what
    is not told.

    ``more``: told to the pipeline's ``encode_prompt`` with each text but that, such as
    ``complex_human_instruction`` of Sana and ``chi_prompt`` of SanaWM. Raises :class:`UsageError`
    for a pipeline of no known family, or that reads none.
    """
    family = family_of(pipeline)
    if not family.texts or not hasattr(pipeline, "encode_prompt"):
        raise UsageError("this pipeline reads no text", where=type(pipeline).__name__)
    told = {"device": "cpu", "do_classifier_free_guidance": False,
            "num_images_per_prompt": 1, "num_videos_per_prompt": 1}  # fmt: skip
    _, *asked = signature(pipeline.encode_prompt).parameters.values()
    # second and third encoders are told the same where that is None
    usual = {p.name: told.get(p.name) for p in asked if p.name in told or p.default is p.empty}
    made = {}
    for text in texts:
        given = pipeline.encode_prompt(text, **{**usual, **(more if text else {})})
        parts = [given] if isinstance(given, Tensor) else given
        made[text] = {name: value for name, value in zip(family.texts, parts, strict=False) if name}
    return Prompts(made)


def embed_pictures(
    pipeline: Any, pictures: Mapping[str, Float[Tensor, "1 3 height width"]]
) -> Prompts:
    """What the image encoder of SVD's pipeline makes of pictures (0..1), by names that stand for
    texts; "" is no picture, neither looked at nor shown to the network."""
    made = {
        name: {"embeds": pipeline._encode_image(picture, "cpu", 1, False)}
        for name, picture in pictures.items()
    }
    like = next(iter(made.values()))["embeds"]
    nothing = {"embeds": torch.zeros_like(like), "seen": like.new_zeros(1, 1, 1, 1)}
    return Prompts({"": nothing, **made})
