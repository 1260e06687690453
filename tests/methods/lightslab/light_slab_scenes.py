"""Cameras, contents, splats and slabs that the tests of light slabs share."""

import math
from pathlib import Path

import torch
from torch.nn.functional import normalize

from scene4d.cameras.camera import Camera
from scene4d.data.scene import Frame, Scene
from scene4d.methods.lightslab.decoder import DecoderShape
from scene4d.methods.lightslab.light_slabs import LightSlabs, LightSlabsSettings
from scene4d.methods.lightslab.planes import FeaturePlanesShape
from scene4d.methods.lightslab.slabs import Slabs
from scene4d.representations.content import Content
from scene4d.representations.gaussians import GaussianSplats

FRONT = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
"""A slab's frame whose axis is the world's -z, as an unturned camera's."""


def directions(count, seed=0):
    """Evenly on the sphere."""
    g = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, 3, generator=g), dim=1)


def camera(size=40, position=(0.0, 0.0, 0.0), turn=0.0, focal=1.0):
    """Turned about the world's y axis; ``focal`` in widths of the picture."""
    c2w = torch.eye(4)
    c2w[0, 0] = c2w[2, 2] = math.cos(turn)
    c2w[0, 2], c2w[2, 0] = math.sin(turn), -math.sin(turn)
    c2w[:3, 3] = torch.tensor(position)
    f = focal * size
    intrinsics = torch.tensor([[f, 0, size / 2], [0, f, size / 2], [0, 0, 1.0]])
    return Camera(c2w=c2w, K=intrinsics, width=size, height=size)


def facing_cameras():
    """Beside each other, looking along the world's -z."""
    return [camera(position=(x, y, 0.1 * x)) for x in (-1.0, 0.0, 1.0) for y in (-0.5, 0.5)]


def cameras_around(count=12, distance=4.0):
    """On a circle, looking at the origin."""
    found = []
    for i in range(count):
        turn = 2 * math.pi * i / count
        found.append(camera(position=(distance * math.sin(turn), 0.3, distance * math.cos(turn)),
                            turn=turn))  # fmt: skip
    return found


BALL = Content(points=directions(500, seed=3) * 0.8, bounded=True)
UNIT = torch.rand(500, 3, generator=torch.Generator().manual_seed(1))
WALL = Content(points=UNIT * 4 + torch.tensor([-2.0, -2, -9]), bounded=False)


def splats_at(centre, *, count=300, radius=0.7, size=0.135):
    """Gaussians of any colour, nearly opaque, on a sphere."""
    g = torch.Generator().manual_seed(0)
    means = directions(count, seed=4) * radius + torch.tensor(centre)
    values = {
        "means": means, "quats": torch.randn(count, 4, generator=g),
        "scales": torch.full((count, 3), math.log(size)), "opacities": torch.full((count,), 4.0),
        "sh0": torch.rand(count, 1, 3, generator=g), "shN": torch.zeros(count, 0, 3),
    }  # fmt: skip
    return GaussianSplats(values)


def scene_of(cameras):
    """A capture of which only the cameras are known."""
    nowhere = Path("nowhere")
    frames = [Frame(name=f"{i}", camera=c, image_path=nowhere) for i, c in enumerate(cameras)]
    return Scene(
        root=nowhere, dataparser="test", frames=frames, train_indices=range(len(frames)),
        test_indices=[], split_rule="none",
    )  # fmt: skip


def front_slabs(depths, *, half=0.6, position=(0.0, 0.0, 0.0)):
    """One slab along the world's -z; tangents up to ``half`` on every plane, far to near."""
    planes = len(depths)
    return Slabs(
        rotations=FRONT[None],
        viewpoints=torch.tensor([position]),
        disparities=1 / torch.tensor([depths]),
        low=torch.full((1, planes, 2), -half),
        high=torch.full((1, planes, 2), half),
    )


def untrained(slabs, *, channels=(8, 8), samples=2, seed=0, mpi=None, **settings):
    """A small light field as training starts from."""
    planes = FeaturePlanesShape(
        slabs=slabs.num_slabs, depths=slabs.num_planes, features=2, resolutions=(4, 9),
        crossed_resolutions=(5,),
    )  # fmt: skip
    inputs = planes.feature_planes().width
    return LightSlabs(
        slabs=slabs,
        planes=planes,
        decoder=DecoderShape(
            inputs=inputs, samples=samples, encoded=6, width=16, blocks=2, channels=channels
        ),
        settings=LightSlabsSettings(**settings),
        content_centre=torch.zeros(3),
        mpi=mpi,
        generator=torch.Generator().manual_seed(seed),
    )
