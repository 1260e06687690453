"""The network from texts to scenes: words, planes, a decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import DataError
from scene4d.methods.text_mesh.generated import Drawing, GeneratedScene
from scene4d.methods.text_mesh.method import TextMeshMethod
from scene4d.methods.text_mesh.planes_network import PlanesNetwork, PlanesShape
from scene4d.methods.text_mesh.word_vectors import nearest_words
from scene4d.methods.text_mesh.words import LanguageModel
from scene4d.plain import from_table
from scene4d.priors.words import LearnedWords, TextEncoder
from scene4d.ranges import Rate, Share, Within
from scene4d.representations.base import Generator, ParameterGroup
from scene4d.representations.saved import Form, module_forms
from scene4d.representations.task import Task
from scene4d.representations.triplane_field import TriplaneNetworks, TriplaneShape

_FIRST_BLUR, _LAST_BLUR = 0.2, 0.02
"""Of fog at first, and where meshes begin; scene units."""
BALL = 0.6
"""Radius of what an untrained network makes."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Plain data of a checkpoint, beside the sizes of the network and the words."""

    neurons: Annotated[int, Within(1, 4096)]
    resolution: Annotated[int, Within(2, 512)]
    texture_size: Annotated[int, Within(1, 16384)]
    volume_until: Share
    lr: Rate


class TextMeshes(Generator):
    """Words become planes, planes a scene: one network for all texts."""

    def __init__(
        self,
        encoder: TextEncoder,
        shape: PlanesShape,
        settings: Settings,
        conditions: Sequence[str],
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.settings = encoder, settings
        self.network = PlanesNetwork(shape)
        field = TriplaneShape(
            resolutions=(shape.size,),
            channels=shape.features,
            neurons=settings.neurons,
            radius=BALL,
        )  # fmt: skip
        self.decoder = TriplaneNetworks(field, generator=generator)
        self._conditions = list(conditions)
        self._progress = 1.0

    @classmethod
    def untrained(
        cls, task: Task, options: TextMeshMethod, generator: torch.Generator
    ) -> TextMeshes:
        """A network that makes balls."""
        encoder: TextEncoder
        if options.text_encoder:
            encoder = LanguageModel(options.text_encoder)
        else:
            encoder = LearnedWords.of(task.conditions, options.word_width)
            if options.word_vectors is not None:
                encoder.others = nearest_words(options.word_vectors, encoder.vocabulary)
            with torch.no_grad():
                rows = encoder.embedding.weight
                rows.copy_(torch.randn(rows.shape, generator=generator))
        shape = PlanesShape(
            words=encoder.width, channels=options.channels, plan=options.blocks,
            features=options.features,
        )  # fmt: skip
        settings = Settings(
            neurons=options.neurons, resolution=options.resolution,
            texture_size=options.texture_size, volume_until=options.volume_until, lr=options.lr,
        )  # fmt: skip
        made = cls(encoder, shape, settings, task.conditions, generator=generator)
        made.network.reset(generator)
        return made

    @property
    def conditions(self) -> Sequence[str]:
        """The texts that it was trained for."""
        return self._conditions

    @property
    def draws_volumes(self) -> bool:
        """Whether scenes are drawn as volumes: in the first part of a training, whoever looks:
        guidance renders in evaluation mode."""
        return self._progress < self.settings.volume_until

    def on_progress(self, progress: float) -> None:
        """Volumes sharpen, then give way to meshes."""
        self._progress = progress

    def code(self, condition: str) -> Float[Tensor, "3 features rows columns"]:
        """The planes."""
        return self.network(self.encoder(condition))

    def decoded(self, code: Float[Tensor, "3 features rows columns"]) -> GeneratedScene:
        """The scene of planes."""
        blur = None
        if self.draws_volumes:
            done = self._progress / self.settings.volume_until
            blur = _FIRST_BLUR * (_LAST_BLUR / _FIRST_BLUR) ** done
        drawing = Drawing(
            cells=self.settings.resolution,
            texture_size=self.settings.texture_size,
            blur=blur,
            phase=(0.5 + self._progress * 61803.39887) % 1.0,  # far from the steps before
        )
        return GeneratedScene(code, self.decoder, drawing)

    def parameter_groups(self) -> list[ParameterGroup]:
        """One."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [ParameterGroup(name="network", parameters=parameters,
                               learning_rate=self.settings.lr, eps=1e-8)]  # fmt: skip

    def plain_data(self) -> Mapping[str, Any]:
        """Words, sizes, texts."""
        return {
            "words": self.encoder.plain(), "shape": self.network.shape.plain(),
            "settings": vars(self.settings), "conditions": self._conditions,
        }  # fmt: skip

    @classmethod
    def saved_forms(cls, plain: Mapping[str, Any]) -> Mapping[str, Form] | None:
        """Those of a network of such sizes, which takes no memory yet."""
        saved = from_table(_Saved, plain, where="settings")

        def made() -> TextMeshes:
            return cls(saved.words.learned(), saved.shape, saved.settings, saved.conditions)

        forms = module_forms(made)
        if saved.words.source:
            forms.pop("encoder.embedding.weight")
        return forms

    @classmethod
    def from_saved(cls, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> TextMeshes:
        """Built again. Raises :class:`DataError` for sizes that cannot be."""
        saved = from_table(_Saved, plain, where="settings")
        made = cls(saved.words.encoder(), saved.shape, saved.settings, saved.conditions)
        made.load_state_dict(dict(tensors))
        return made

    def describe(self) -> dict[str, float]:
        """How it draws."""
        return {"volumes": float(self.draws_volumes)}


@dataclass(frozen=True, kw_only=True)
class Words:
    """How texts are read."""

    source: str = ""
    """Of a language model; else the words are learned."""
    vocabulary: tuple[str, ...] = ()
    width: Annotated[int, Within(0, 1 << 14)] = 0
    others: tuple[str, ...] = ()
    read_as: tuple[str, ...] = ()
    """Of ``vocabulary``, for each of ``others``."""

    def encoder(self) -> TextEncoder:
        """As it is before anything was learned."""
        if self.source:  # a stranger's file is not to make us fetch anything
            return LanguageModel(self.source, fetch=False)
        return self.learned()

    def learned(self) -> LearnedWords:
        """Those whose vectors are among the weights."""
        if len(self.others) != len(self.read_as) or not set(self.read_as) <= set(self.vocabulary):
            raise DataError("has words that are read as none of its own", where="words")
        others = dict(zip(self.others, self.read_as, strict=True))
        return LearnedWords(self.vocabulary, self.width, others)


@dataclass(frozen=True, kw_only=True)
class _Saved:
    words: Words
    shape: PlanesShape
    settings: Settings
    conditions: tuple[str, ...]
