"""Diffusers' first-block cache, for the steps of one trajectory.

Where the first block of a transformer answers nearly what it did in the last step, what all others
added to it then is added again, and they are not asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from scene4d.errors import UsageError
from scene4d.optional import import_optional


@contextmanager
def first_block_cache(networks: Sequence[nn.Module], most: float) -> Iterator[None]:
    """Reuses where the first block's answer changed by a share of at most ``most``. What was kept
    is forgotten at the end. Raises :class:`UsageError` for networks that diffusers has no cache of.
    """
    diffusers = import_optional("diffusers", extra="priors", needed_for="diffusion models")
    with ExitStack() as undoing:
        for network in networks:
            cached: Any = network
            try:
                cached.enable_cache(diffusers.FirstBlockCacheConfig(threshold=most))
            except (AttributeError, IndexError, ValueError) as error:
                name = type(network).__name__
                raise UsageError(f"diffusers has no first-block cache of a {name}",
                                 fix="leave --reuse out") from error  # fmt: skip
            undoing.callback(cached.disable_cache)
        yield


@contextmanager
def of_text(networks: Sequence[nn.Module], text: str | None) -> Iterator[None]:
    """Within it answers are those about one text, whose last ones are kept apart."""
    with ExitStack() as within:
        for network in networks:
            cached: Any = network
            within.enter_context(cached.cache_context(f"text {text or ''}"))
        yield
