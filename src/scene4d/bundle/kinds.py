"""The kinds of bundle, found by the entry points ``scene4d.bundle_kinds``.

A kind says how scenes of one family are put into a bundle and read from it. Reading needs no torch;
what turns it into a representation that renders, or such a one into codes, imports torch itself.
"""

from __future__ import annotations

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar

from scene4d.errors import DataError
from scene4d.formats.splat_cloud import SplatCloud

if TYPE_CHECKING:
    import numpy as np

    from scene4d.bundle.coding import Coded
    from scene4d.bundle.container import Bundle
    from scene4d.formats.textured_mesh import MeshData

GROUP = "scene4d.bundle_kinds"
_log = logging.getLogger("scene4d")


class BundleKind(ABC):
    """How scenes of one family are stored; its methods get whole bundles, or representations."""

    name: ClassVar[str]
    """The manifest's ``kind``, and the name of the manifest's entry that is the kind's own."""
    made_of_splats: ClassVar[bool] = False
    """Whether :meth:`decode` gives Gaussians, so that less important ones can be left out."""
    trains_sizes: ClassVar[bool] = False
    """Whether training towards another size is what reaches one that coarser steps do not; what is
    left then goes as :meth:`reduced` has it."""
    leaves_out: ClassVar[bool] = False
    """Whether, where nothing is trained for a size, what shows least goes, as :meth:`reduced` has
    it, so that steps need not be as coarse."""

    # Reading, without torch

    @abstractmethod
    def decode(self, bundle: Bundle, *, stages: int | None = None) -> Any:
        """The content as arrays, in bundle coordinates; of its first ``stages``. A
        :class:`SplatCloud` where the kind is made of splats. Raises :class:`DataError` where it is
        not sound."""

    @abstractmethod
    def describe(self, manifest: Mapping[str, Any]) -> str:
        """What a bundle holds, for people."""

    def faults(self, manifest: Mapping[str, Any]) -> list[str]:
        """What is wrong with the kind's own entry of the manifest; the schema knows those of the
        kinds that come with it."""
        return []

    def motion_line(self, manifest: Mapping[str, Any]) -> str | None:
        """How what a bundle holds moves, for people; None: it is of a kind that stands still."""
        return None

    def from_earlier_version(self, manifest: Mapping[str, Any]) -> bool:
        """Whether a manifest that the schema refuses is laid out as before format 1.0."""
        return False

    def summary(self, bundle: Bundle) -> dict[str, Any]:
        """Facts for ``scene4d info``, from the manifest."""
        return {}

    # With torch

    @abstractmethod
    def takes(self, representation: Any) -> bool:
        """Whether a representation is stored in this kind."""

    @abstractmethod
    def encode(self, representation: Any, *, factor: float = 1.0) -> Coded:
        """Members and the manifest's part, with all steps ``factor`` times coarser."""

    def in_order(self, shown: Callable[[], np.ndarray]) -> BundleKind:
        """The kind for a scene of which ``shown`` tells [N] how much of what one sees each splat
        is, if asked: its first stages, or what :meth:`reduced` keeps, are those that show most,
        unless they have an order of their own."""
        return self

    @abstractmethod
    def open(self, bundle: Bundle) -> Any:
        """The representation that renders what the bundle holds, in bundle coordinates."""

    def of_mesh(self, mesh: MeshData) -> Any:
        """The representation that draws a mesh of a file; None: the kind has none."""
        return None

    def reduced(self, representation: Any, most: int, sh_degree: int) -> Any:
        """The scene with at most so many of its splats and harmonics up to ``sh_degree``; None: as
        the plain splats that :meth:`Representation.splats` gives."""
        return None

    def content_box(self, representation: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Lowest and highest corner [3] of what a player frames; None: that of its splats."""
        return None

    def stored_line(self, representation: Any) -> str | None:
        """What was stored, for people; None: its number of Gaussians."""
        return None

    def trained_mb(self, representation: Any) -> float | None:
        """The size that it was trained for, MB (10^6 bytes); None: none."""
        return None


@functools.cache
def bundle_kinds() -> Mapping[str, BundleKind]:
    """Every kind that can be imported, by name; the others are named in a warning and left out."""
    kinds: dict[str, BundleKind] = {}
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            kind = entry.load()()
            assert isinstance(kind, BundleKind) and kind.name == entry.name
        except Exception as error:  # a plugin may fail in any way; it must not take others down
            _log.warning(
                "the bundle kind %r (%s) cannot be used: %r", entry.name, entry.value, error
            )
        else:
            kinds[kind.name] = kind
    return kinds


def kind_of(bundle: Bundle) -> BundleKind:
    """The kind of a bundle that was opened, which checks that there is such a kind."""
    return bundle_kinds()[bundle.manifest["kind"]]


def decoded(bundle: Bundle, *, stages: int | None = None) -> Any:
    """What a bundle of any kind holds, in bundle coordinates; its first ``stages``.

    Raises :class:`DataError` where it is not sound.
    """
    return kind_of(bundle).decode(bundle, stages=stages)


def decoded_splats(bundle: Bundle, *, stages: int | None = None) -> SplatCloud:
    """The Gaussians of a bundle, in bundle coordinates; of its first ``stages``.

    Raises :class:`DataError` where it is not sound or of a kind without Gaussians.
    """
    kind = kind_of(bundle)
    if not kind.made_of_splats:
        raise DataError(
            f"is of kind {kind.name!r}, which is not made of splats",
            where=bundle.path,
            fix=f"play it as it is: scene4d view {bundle.path}",
        )
    cloud: SplatCloud = kind.decode(bundle, stages=stages)
    return cloud


def splats_line(manifest: Mapping[str, Any]) -> str:
    """What a bundle that is made of splats holds, for people."""
    return f"{manifest['count']:,} splats of SH degree {manifest['sh_degree']}"
