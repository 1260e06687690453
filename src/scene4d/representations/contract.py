"""What holds for every representation, as one check that its tests can call."""

from __future__ import annotations

import json
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from scene4d.cameras.camera import Camera
from scene4d.rendering.render import Render
from scene4d.representations.base import Representation

_STEP = 1e-3
"""Of the finite difference that the pose's gradient is compared with, as a share of the distance
from the camera to what it looks at."""


def check_representation(
    representation: Representation,
    camera: Camera,
    *,
    distance: float,
    align: int = 1,
    atol: float = 1e-5,
    pose_rtol: float = 0.1,
) -> None:
    """Raises AssertionError, naming the first property of these that does not hold, in evaluation
    mode (``nn.Module.eval``: a network normalises by its running statistics):

    - rendering is a function: with gradients the same as without, after another camera as before,
      and it writes nothing;
    - a batch of cameras is rendered as each of them;
    - a crop's picture is that part of the whole picture;
    - what is saved and built again renders the same;
    - the gradient of the pose is the slope of the picture.

    ``camera``: one, that sees something in every quarter of its picture; ``distance``: from there
    to the content, scene units. ``align``: crops start at multiples of so many pixels. ``atol``: of
    colours; float32 and another order of sums. ``pose_rtol``: of the slopes along moves of the
    camera.
    """
    representation.eval()
    whole = _render(representation, camera)
    assert bool(whole.rgb.std() > 1e-3), "the camera sees nothing: choose another"
    _check_pure(representation, camera, whole, distance)
    moved = camera.with_pose(_moved(camera.c2w, 0.02 * distance))
    batch = _render(representation, Camera.stack([camera, moved]))
    for number, each in enumerate((whole, _render(representation, moved))):
        for name, got, expected in _outputs(batch, each):
            assert _close(got[number], expected, atol), f"{name} of a batch is not that of each"
    _check_crop(representation, camera, whole, align, atol)
    _check_saved(representation, camera, whole)
    _check_pose(representation, camera, distance, pose_rtol)


def _render(representation: Representation, camera: Camera) -> Render:
    with torch.no_grad():
        return representation.render(camera)


def _outputs(*renders: Render) -> list[tuple[str, Tensor, Tensor]]:
    return [(n, *(getattr(render, n) for render in renders)) for n in ("rgb", "alpha")]


def _close(got: Tensor, expected: Tensor, atol: float) -> bool:
    return got.shape == expected.shape and bool(torch.allclose(got, expected, rtol=0, atol=atol))


def _state(representation: Representation) -> tuple[dict[str, Tensor], str]:
    tensors = {name: value.clone() for name, value in representation.state_dict().items()}
    return tensors, json.dumps(dict(representation.plain_data()), sort_keys=True, default=list)


def _check_pure(
    representation: Representation, camera: Camera, whole: Render, distance: float
) -> None:
    tensors, plain = _state(representation)
    taught = representation.render(camera)  # with gradients
    for name, got, expected in _outputs(taught, whole):
        assert torch.equal(got, expected), f"{name} with gradients is not that without"
    taught.rgb.square().mean().backward()
    for parameter in representation.parameters():
        parameter.grad = None
    small = camera.with_pose(_moved(camera.c2w, 0.1 * distance)).resized(
        max(1, camera.width // 3), max(1, camera.height // 3)
    )
    representation.render(small, background=torch.ones(3))
    for name, got, expected in _outputs(_render(representation, camera), whole):
        assert torch.equal(got, expected), f"{name} changes by rendering something else"
    now, plain_now = _state(representation)
    assert plain_now == plain, "rendering changes the plain data"
    changed = [name for name, value in now.items() if not torch.equal(value, tensors[name])]
    assert not changed, f"rendering writes {', '.join(changed)}"


def _check_crop(
    representation: Representation, camera: Camera, whole: Render, align: int, atol: float
) -> None:
    x, y = (align * max(1, side // 3 // align) for side in (camera.width, camera.height))
    width, height = (camera.width - x) // 2, (camera.height - y) // 2
    crop = _render(representation, camera.cropped(x, y, width, height))
    for name, got, expected in _outputs(crop, whole):
        part = expected[y : y + height, x : x + width]
        assert _close(got, part, atol), f"{name} of a crop is not that part of the whole"


def _check_saved(representation: Representation, camera: Camera, whole: Render) -> None:
    tensors, plain = _state(representation)
    again = type(representation).from_saved(tensors, json.loads(plain))
    assert isinstance(again, Representation)
    for name, got, expected in _outputs(_render(again, camera), whole):
        assert torch.equal(got, expected), f"{name} differs after saving and building again"
    state: Mapping[str, Tensor] = again.state_dict()
    assert set(state) == set(tensors), "the tensors have other names after building again"


def _check_pose(
    representation: Representation, camera: Camera, distance: float, rtol: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, 4, 4, generator=generator)
    size = (camera.height, camera.width)
    weights = interpolate(coarse, size, mode="bicubic", align_corners=False)[0].permute(1, 2, 0)

    def score(move: Tensor) -> Tensor:
        moved = torch.cat([camera.c2w[:3, :3], camera.c2w[:3, 3:] + distance * move[:, None]], 1)
        at = camera.with_pose(torch.cat([moved, camera.c2w[3:]]))
        return (representation.render(at).rgb * weights).mean()

    zero = torch.zeros(3, requires_grad=True)
    (slope,) = torch.autograd.grad(score(zero), zero, allow_unused=True)
    assert slope is not None, "the picture has no gradient in the camera's pose"
    with torch.no_grad():
        steps = _STEP * torch.eye(3)
        expected = torch.stack([score(step) - score(-step) for step in steps]) / (2 * _STEP)
    assert bool((slope - expected).norm() <= rtol * expected.norm()), (
        f"the pose's gradient is {slope.tolist()}, the picture's slope {expected.tolist()}"
    )


def _moved(c2w: Tensor, sideways: float) -> Tensor:
    """The pose, moved along the picture's rows."""
    moved = c2w.clone()
    moved[..., :3, 3] += sideways * c2w[..., :3, 0]
    return moved
