"""What light slabs begin as: how many they are, where they stand, and how large their parts are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from scene4d.bundle.limits import CODES
from scene4d.cameras.between import Spread
from scene4d.cameras.camera import Camera
from scene4d.errors import UsageError
from scene4d.methods.lightslab.block_transform import FREQUENCIES
from scene4d.methods.lightslab.decoder import DecoderShape
from scene4d.methods.lightslab.first_mpi import (
    FirstMpi,
    MpiLimits,
    fewest_slabs_near_best,
    training_and_nearby_cameras,
)
from scene4d.methods.lightslab.mpi import CHANNELS
from scene4d.methods.lightslab.placement import numbers_of_slabs, place_slabs
from scene4d.methods.lightslab.planes import FeaturePlanesShape
from scene4d.methods.lightslab.slabs import Slabs
from scene4d.representations.base import Representation
from scene4d.representations.content import Content

if TYPE_CHECKING:
    from scene4d.methods.lightslab.method import LightSlabMethod

MPI_SHARE = 0.8
"""Of ``max_mb`` for MPIs, where there are any; the rest is for planes of features."""


def placed(
    cameras: Sequence[Camera],
    content: Content,
    options: LightSlabMethod,
    teacher: Representation | None,
) -> tuple[Slabs, FirstMpi | None]:
    """Slabs, and their first MPIs where there is a teacher to make them of."""
    make = partial(place_slabs, cameras, content, num_planes=options.depths)
    if teacher is None or not options.mpi:
        return make(kind=options.placement, count=options.max_slabs), None
    taught = options.teaching
    room = options.max_mb * 1e6 * MPI_SHARE
    limits = MpiLimits(
        bytes=room,
        blocks=min(options.max_blocks, believed_blocks(room)),
        scale=options.mpi_scale,
        spread=Spread(between=taught.between, jitter=taught.jitter, turn=taught.turn),
    )
    kind = "cameras" if options.placement == "auto" else options.placement
    numbers = numbers_of_slabs(cameras, options.max_slabs) if kind == "cameras" else [1]
    sizes(options, make(kind=kind))  # refuses what cannot be, before the search takes its time
    around = training_and_nearby_cameras(cameras, limits.spread)
    choices = (make(kind=kind, count=count, around=around) for count in numbers)
    found = fewest_slabs_near_best(teacher, cameras, limits, choices)
    return found.slabs, found


def believed_blocks(room: float) -> int:
    """Blocks that readers believe of so many bytes (:data:`CODES`), where a fifth stays unused."""
    return CODES.of(int(0.8 * room)) // (FREQUENCIES * CHANNELS)


def sizes(options: LightSlabMethod, slabs: Slabs) -> tuple[FeaturePlanesShape, DecoderShape]:
    """Of planes and decoder, within the method's ``max_mb``."""
    planes = FeaturePlanesShape(
        slabs=slabs.num_slabs,
        depths=slabs.num_planes,
        featured=options.featured,
        crossed=options.crossed,
        features=options.features,
        resolutions=options.resolutions,
        crossed_resolutions=options.crossed_resolutions,
    )
    decoder = DecoderShape(
        inputs=planes.feature_planes().width,
        samples=options.samples,
        encoded=options.encoded,
        width=options.width,
        blocks=options.blocks,
        channels=options.channels,
    )
    share = 1 - MPI_SHARE if options.mpi else 1.0
    left = int(share * options.max_mb * 1e6) - decoder.values
    if left <= 0:
        raise UsageError(
            f"--max-mb {options.max_mb} leaves nothing beside the decoder's"
            f" {decoder.values / 1e6:.2f} MB",
            fix="give more, or make the decoder smaller (--width, --blocks)",
        )
    return planes.fitting(left), decoder
