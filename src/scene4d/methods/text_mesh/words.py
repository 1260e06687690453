"""A frozen text encoder of transformers, from a folder or the hub, which knows any word.

In place of :class:`scene4d.priors.words.LearnedWords`, which knows those of the captions that it is
trained on, and needs nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from scene4d.errors import DataError, UsageError
from scene4d.files import printable
from scene4d.optional import why_not
from scene4d.priors.words import LONGEST, TextEncoder, split_words


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
