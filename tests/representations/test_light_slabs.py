"""Light slabs: coordinates as geometry, weights, coverage, the crop invariant, and a training."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.data.scene import Frame, Scene
from scene4d.errors import UsageError
from scene4d.representations.light_slabs.decoder import Decoder, DecoderShape
from scene4d.representations.light_slabs.light_slabs import (
    LightSlabs,
    LightSlabsSettings,
    sizes,
)
from scene4d.representations.light_slabs.method import LightSlabMethod
from scene4d.representations.light_slabs.placement import Content, find_content, place_slabs
from scene4d.representations.light_slabs.planes import PlanesShape, plane_codes, rounded
from scene4d.representations.light_slabs.slabs import (
    FADE,
    MAX_SLABS,
    MIN_COSINE,
    Slabs,
    plane_points,
    slab_weights,
)
from scene4d.representations.method import PhotometricOptions, TeacherOptions
from scene4d.representations.splats.gaussians import GaussianSplats
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.train import start

OVERLAP = math.radians(12.0)
FRONT = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
"""A slab's frame whose axis is the world's -z, as an unturned camera's."""


def rotation(seed):
    q, _ = torch.linalg.qr(
        torch.randn(3, 3, generator=torch.Generator().manual_seed(seed)).double()
    )
    return q * torch.linalg.det(q)


def directions(count, seed=0):
    g = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(count, 3, generator=g), dim=1)


def met(origins, dirs, *, turn, viewpoint, disparities):
    n = len(origins)
    return plane_points(
        origins,
        dirs,
        rotations=turn.expand(n, 3, 3),
        viewpoints=viewpoint.expand(n, 3),
        disparities=disparities.expand(n, -1),
    )


def camera(size=40, position=(0.0, 0.0, 0.0), turn=0.0, focal=1.0):
    c2w = torch.eye(4)
    c2w[0, 0] = c2w[2, 2] = math.cos(turn)
    c2w[0, 2], c2w[2, 0] = math.sin(turn), -math.sin(turn)
    c2w[:3, 3] = torch.tensor(position)
    f = focal * size
    intrinsics = torch.tensor([[f, 0, size / 2], [0, f, size / 2], [0, 0, 1.0]])
    return Camera(c2w=c2w, K=intrinsics, width=size, height=size)


def facing_cameras():
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


def untrained(slabs, *, channels=(8, 8), samples=2, seed=0, **settings):
    planes = PlanesShape(
        slabs=slabs.num_slabs, depths=slabs.num_planes, features=2, resolutions=(4, 9),
        crossed_resolutions=(5,),
    )  # fmt: skip
    inputs = planes.plane_set().width
    return LightSlabs(
        slabs=slabs,
        planes=planes,
        decoder=DecoderShape(
            inputs=inputs, samples=samples, encoded=6, width=16, blocks=2, channels=channels
        ),
        settings=LightSlabsSettings(**settings),
        content_centre=torch.zeros(3),
        generator=torch.Generator().manual_seed(seed),
    )


# Coordinates


def test_rays_through_the_same_two_points_have_the_same_coordinates():
    turn, viewpoint = (
        rotation(1),
        torch.randn(3, generator=torch.Generator().manual_seed(2)).double(),
    )
    disparities = torch.tensor([0.2, 0.35, 0.5], dtype=torch.float64)
    local = torch.tensor([[0.3, -0.4, 5.0], [-0.1, 0.2, 2.0]], dtype=torch.float64)
    far, near = local @ turn + viewpoint  # on the planes z = 5 and z = 2
    origins = torch.stack([near + t * (far - near) for t in (-3.0, 0.0, 0.4, 1.0, 7.0)])
    dirs = normalize(far - near, dim=0).expand(5, 3)
    q, parallel = met(origins, dirs, turn=turn, viewpoint=viewpoint, disparities=disparities)
    assert not parallel.any()
    expected = torch.stack([local[0, :2] / 5, local[1, :2] / 2])
    # Rounding of float64, over the few divisions.
    assert torch.allclose(q[:, [0, 2]], expected.expand(5, 2, 2), atol=1e-12)


def test_the_plane_at_infinity_gives_tangents_wherever_the_camera_stands():
    dirs = normalize(torch.tensor([[0.3, -0.2, 1.0], [0.0, 0.7, 2.0]], dtype=torch.float64), dim=1)
    origins = torch.tensor([[5.0, -3.0, 2.0], [0.0, 1.0, -7.0]], dtype=torch.float64)
    identity, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    s = torch.tensor([0.0, 1.0], dtype=torch.float64)
    q, _ = met(origins, dirs, turn=identity, viewpoint=zero, disparities=s)
    assert torch.allclose(q[:, 0], dirs[:, :2] / dirs[:, 2:], atol=1e-12)


def test_planes_between_are_linear_in_the_outer_two():
    dirs, origins = directions(50).double(), directions(50, seed=1).double()
    dirs[:, 2] = dirs[:, 2].abs() + 0.3
    identity, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    s = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    q, _ = met(origins, dirs, turn=identity, viewpoint=zero, disparities=s)
    for k in range(5):
        mix = q[:, 0] * (1 - k / 4) + q[:, 4] * (k / 4)
        assert torch.allclose(q[:, k], mix, atol=1e-12)  # rounding of float64


def test_moving_rays_and_slab_together_changes_nothing():
    dirs, origins = directions(40).double(), directions(40, seed=1).double() * 3
    turn, viewpoint = rotation(4), directions(1, seed=5)[0].double()
    s = torch.tensor([0.0, 0.4], dtype=torch.float64)
    before, _ = met(origins, dirs, turn=turn, viewpoint=viewpoint, disparities=s)
    move, shift = rotation(6), torch.tensor([4.0, -2.0, 1.0], dtype=torch.float64)
    after, _ = met(
        origins @ move.T + shift, dirs @ move.T,
        turn=turn @ move.T, viewpoint=move @ viewpoint + shift, disparities=s,
    )  # fmt: skip
    # Rounding of float64, times 1 / MIN_COSINE and the shift's length.
    assert torch.allclose(before, after, atol=1e-11)


def test_gradients_of_coordinates():
    g = torch.Generator().manual_seed(0)
    origins = torch.randn(4, 3, generator=g, dtype=torch.float64, requires_grad=True)
    dirs = torch.randn(4, 3, generator=g, dtype=torch.float64)
    dirs[:, 2] = 1.0
    dirs.requires_grad_(True)
    turn, viewpoint = torch.eye(3).double(), torch.zeros(3).double()
    s = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda o, d: met(o, d, turn=turn, viewpoint=viewpoint, disparities=s)[0], (origins, dirs)
    )


def test_parallel_and_opposed_rays_are_finite_also_in_their_gradients():
    dirs = torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0.6, 0, 0.8]], requires_grad=True)
    origins = torch.ones(3, 3, requires_grad=True)
    s = torch.tensor([0.0, 0.5])
    q, parallel = met(origins, dirs, turn=torch.eye(3), viewpoint=torch.zeros(3), disparities=s)
    assert parallel.tolist() == [True, True, False]
    q.sum().backward()
    for value in (q, dirs.grad, origins.grad):
        assert torch.isfinite(value).all()
    assert (dirs.grad[:2] == 0).all() and (dirs.grad[2] != 0).any()


# Which slabs


def cube_axes():
    return torch.cat([torch.eye(3), -torch.eye(3)])


def test_weights_sum_to_one_and_few_are_above_zero():
    weights = slab_weights(directions(5000) @ cube_axes().T, OVERLAP)
    assert torch.allclose(weights.sum(dim=1), torch.ones(5000), atol=1e-6)  # float32
    assert int((weights > 0).sum(dim=1).max()) <= MAX_SLABS
    assert (weights > 0).sum(dim=1).eq(1).float().mean() > 0.5  # most rays have one slab


def test_weights_of_many_slabs_that_are_alike():
    cosines = torch.full((1, 6), 0.5)
    weights = slab_weights(cosines, OVERLAP)
    assert weights.tolist() == [[1, 0, 0, 0, 0, 0]]


def test_weights_are_continuous_along_any_turn():
    g = torch.Generator().manual_seed(2)
    axes = normalize(torch.randn(9, 3, generator=g), dim=1).double()
    axes = torch.cat([axes, axes[:1] + 0.1])  # two that nearly agree
    axes = normalize(axes, dim=1)
    a, b = directions(1, seed=8)[0].double(), directions(1, seed=9)[0].double()
    b = normalize(b - (a @ b) * a, dim=0)
    steps = 200_000
    t = torch.linspace(0, 2 * math.pi, steps, dtype=torch.float64)[:, None]
    weights = slab_weights((t.cos() * a + t.sin() * b) @ axes.T, OVERLAP)
    # smoothstep rises by at most 1.5 / overlap a radian; two angles change at once, and scaling to
    # a sum of 1 at most multiplies by 4: well below this, and a jump would be about 0.1 to 1.
    bound = 1.5 / OVERLAP * 2 * 4 * (2 * math.pi / steps)
    assert (weights[1:] - weights[:-1]).abs().max() < max(bound, 1e-9) * 2


def test_cube_faces_cover_the_sphere():
    slabs = place_slabs(cameras_around(), BALL, kind="cube")
    cosines = directions(2000) @ cube_axes().T
    weights = slab_weights(cosines, OVERLAP)
    # The farthest ray of a face, with its overlap, is far from parallel to it.
    assert cosines[weights > 0].min() > MIN_COSINE
    assert slabs.num_slabs == 4  # a circle of cameras looks through the sides of a cube
    assert torch.allclose(
        slabs.rotations @ slabs.rotations.mT, torch.eye(3).expand(4, 3, 3), atol=1e-5
    )


# Placement and coverage


@pytest.mark.parametrize("content", [BALL, WALL], ids=["bounded", "unbounded"])
@pytest.mark.parametrize("kind", ["auto", "cube", "kmeans", "forward"])
def test_every_ray_of_the_cameras_that_meets_the_content_is_covered(content, kind):
    cameras = cameras_around() if content is BALL and kind != "forward" else facing_cameras()
    if content is BALL and kind == "forward":
        cameras = [camera(position=(x, 0.0, 4.0)) for x in (-0.5, 0.5)]
    slabs = place_slabs(cameras, content, kind=kind)
    for one in cameras:
        rays = camera_rays(one)
        found = slabs(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
        assert torch.isfinite(found.coordinates).all()
        if content is WALL:
            assert found.coverage.min() > 1 - 1e-6
            assert found.coordinates.abs().max() <= 1
        else:  # the content's middle is in the middle of the picture
            middle = found.coverage.view(one.height, one.width)[15:25, 15:25]
            assert middle.min() > 1 - 1e-6


def test_rays_that_no_camera_saw_are_not_covered():
    slabs = place_slabs(facing_cameras(), WALL)
    assert slabs.num_slabs == 1
    origins = torch.zeros(3, 3)
    dirs = normalize(torch.tensor([[0.0, 0, 1], [1, 0, 0], [0.8, 0, -0.5]]), dim=1)
    assert slabs(origins, dirs).coverage.tolist() == [0, 0, 0]
    aside = torch.tensor([[9.0, 0, 0]])
    assert slabs(aside, torch.tensor([[0.0, 0, -1]])).coverage.tolist() == [0]


def test_coverage_falls_smoothly():
    slabs = Slabs(
        rotations=FRONT[None], viewpoints=torch.zeros(1, 3), disparities=torch.tensor([[0.0, 1.0]]),
        low=-torch.ones(1, 2, 2), high=torch.ones(1, 2, 2),
    )  # fmt: skip
    x = torch.linspace(0, 1.3, 1001)
    dirs = normalize(torch.stack([x, 0 * x, -torch.ones_like(x)], dim=1), dim=1)
    coverage = slabs(torch.zeros(1001, 3), dirs).coverage
    expected = (1 - (x - 1) / FADE).clamp(0, 1)
    assert torch.allclose(coverage, expected, atol=1e-5)  # float32, times 1 / FADE


def test_one_camera_and_cameras_in_one_place_are_placed():
    for cameras in ([camera()], [camera(), camera(turn=0.2), camera(turn=-0.2)]):
        slabs = place_slabs(cameras, WALL)
        rays = camera_rays(cameras[0])
        found = slabs(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
        assert torch.isfinite(found.coordinates).all() and found.coverage.min() > 1 - 1e-6


def splats_at(centre, *, count=300, radius=0.7):
    g = torch.Generator().manual_seed(0)
    means = directions(count, seed=4) * radius + torch.tensor(centre)
    values = {
        "means": means, "quats": torch.randn(count, 4, generator=g),
        "scales": torch.full((count, 3), -2.0), "opacities": torch.full((count,), 4.0),
        "sh0": torch.rand(count, 1, 3, generator=g), "shN": torch.zeros(count, 0, 3),
    }  # fmt: skip
    return GaussianSplats(values)


def scene_of(cameras):
    nowhere = Path("nowhere")
    frames = [Frame(name=f"{i}", camera=c, image_path=nowhere) for i, c in enumerate(cameras)]
    return Scene(
        root=nowhere, dataparser="test", frames=frames, train_indices=range(len(frames)),
        test_indices=[], split_rule="none",
    )  # fmt: skip


def test_content_lies_where_the_teacher_shows_it():
    content = find_content(scene_of(cameras_around()), splats_at((0.0, 0.0, 0.0)))
    assert content.bounded  # the pictures' corners are empty
    distance = content.points.norm(dim=1)
    # A shell of radius 0.7 of Gaussians of size 0.14, whose blended depths lie within it.
    assert 0.3 < float(distance.median()) < 0.9


def test_a_teacher_that_shows_nothing_to_the_cameras_is_refused():
    with pytest.raises(UsageError, match="shows nothing"):
        find_content(scene_of(cameras_around()), splats_at((0.0, 500.0, 0.0)))


# The decoder


def test_multiply_accumulates_are_those_of_the_layers():
    shape = DecoderShape(inputs=24, samples=2, encoded=5, width=16, blocks=2, channels=(8, 6))
    decoder, total = Decoder(shape), 0

    def count(layer, inputs, output):
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    for layer in decoder.modules():
        if hasattr(layer, "weight"):
            layer.register_forward_hook(count)
    decoder(
        torch.zeros(1, 2 * (5 + 2), 2 * (4 + 2), 24)
    )  # 40 x 32 pixels at 8 a ray, with the halo
    assert total == shape.macs(32, 40)


@pytest.mark.parametrize("megabytes", [4.0, 1.0])
@pytest.mark.parametrize("slabs", [1, 5])
def test_sizes_keep_to_the_budget(slabs, megabytes):
    planes, decoder = sizes(LightSlabMethod(max_mb=megabytes), slabs)
    assert decoder.macs(800, 800) <= 4e9
    assert decoder.values == sum(p.numel() for p in Decoder(decoder).parameters())
    assert planes.values + decoder.values <= megabytes * 1e6
    roomy, _ = sizes(LightSlabMethod(max_mb=100.0), slabs)
    if planes != roomy:  # what did not fit was not shrunk more than it had to be
        assert planes.values + decoder.values > 0.9 * megabytes * 1e6


def test_impossible_sizes_are_refused():
    for wrong in ({"depths": 1}, {"samples": 3}, {"samples": 4, "channels": (8,)}, {"bits": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            LightSlabMethod(**wrong)


@pytest.mark.parametrize("channels", [(8, 8), (8,)], ids=["8 times", "4 times"])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_crop_renders_as_the_part_of_the_picture(channels, samples):
    slabs = place_slabs(cameras_around(), BALL)
    scene = untrained(slabs, channels=channels, samples=samples)
    whole_camera = camera(size=72, position=(0.2, 0.1, 4.0))
    whole = scene.render(whole_camera, depth=True)
    crop = scene.render(whole_camera.cropped(16, 40, 37, 21), depth=True)
    parts = [(whole.rgb, crop.rgb), (whole.alpha, crop.alpha), (whole.depth, crop.depth),
             (whole.features, crop.features)]  # fmt: skip
    assert whole.rgb.std() > 0.01  # not a flat picture
    for large, small in parts:
        # float32: rays of a shifted principal point, then some layers.
        assert torch.allclose(large[40:61, 16:53], small, atol=2e-4)


def test_a_batch_renders_as_its_cameras_do():
    scene = untrained(place_slabs(cameras_around(), BALL))
    cameras = [camera(size=33, position=(x, 0.0, 4.0)) for x in (-0.2, 0.3)]
    together = scene.render(Camera.stack(cameras), depth=True)
    for i, one in enumerate(cameras):
        alone = scene.render(one, depth=True)
        assert together.rgb[i].shape == alone.rgb.shape == (33, 33, 3)
        assert torch.allclose(together.rgb[i], alone.rgb, atol=1e-5)  # float32, other tiling
        assert torch.allclose(together.depth[i], alone.depth, rtol=1e-4, atol=1e-4)


def test_where_nothing_is_covered_the_background_shows():
    scene = untrained(place_slabs(facing_cameras(), WALL))
    away = camera(turn=math.pi)
    background = torch.tensor([0.2, 0.4, 0.6])
    render = scene.render(away, background=background, depth=True)
    assert (render.features == 0).all() and (render.alpha == 0).all() and (render.depth == 0).all()
    assert torch.allclose(render.rgb, background.expand_as(render.rgb))


def test_depth_does_not_depend_on_where_along_a_ray_the_camera_stands():
    """A dolly of the camera shortens the depth of the middle pixel's ray by as much."""
    scene = untrained(place_slabs(cameras_around(), BALL))
    near = scene._depth(
        Camera.stack([camera(1, position=(0.0, 0.0, 3.0))]),
        torch.full((1, 1, 1), 0.3),
        torch.ones(1, 1, 1),
    )
    far = scene._depth(
        Camera.stack([camera(1, position=(0.0, 0.0, 5.0))]),
        torch.full((1, 1, 1), 0.3),
        torch.ones(1, 1, 1),
    )
    assert float(near) == pytest.approx(3 + math.sinh(0.3), rel=1e-5)
    assert float(far - near) == pytest.approx(2, rel=1e-5)


def test_gradients_reach_every_parameter_and_the_pose():
    scene = untrained(place_slabs(cameras_around(), BALL))
    one = camera(size=24, position=(0.0, 0.0, 4.0))
    c2w = one.c2w.clone().requires_grad_(True)
    render = scene.render(one.with_pose(c2w), depth=True)
    (render.rgb.sum() + render.alpha.sum() + render.depth.sum()).backward()
    assert torch.isfinite(c2w.grad).all() and (c2w.grad[:3] != 0).any()
    groups = [p for group in scene.parameter_groups() for p in group.parameters]
    assert {id(p) for p in groups} == {id(p) for p in scene.parameters()}
    for parameter in groups:
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any()


def test_saved_and_built_again():
    scene = untrained(place_slabs(cameras_around(), BALL), quantise_at=0.5)
    scene.on_progress(0.7)
    plain = json.loads(json.dumps(dict(scene.plain_data())))
    again = LightSlabs.from_saved({k: v.clone() for k, v in scene.state_dict().items()}, plain)
    one = camera(size=24, position=(0.0, 0.0, 4.0))
    assert torch.equal(scene.render(one).rgb, again.render(one).rgb)


def test_pictures_are_decoded_at_the_scale_of_training():
    scene = untrained(place_slabs(cameras_around(), BALL))
    one = camera(size=64, position=(0.0, 0.0, 4.0))
    trained = scene.render(one)
    with torch.no_grad():
        small, large = scene.render(one.resized(32, 32)), scene.render(one.resized(128, 128))
    shrink = torch.nn.functional.interpolate(
        trained.rgb.permute(2, 0, 1)[None], size=(32, 32), mode="bilinear", antialias=True
    )
    assert torch.allclose(small.rgb, shrink[0].permute(1, 2, 0), atol=1e-5)  # float32
    middle = large.rgb.view(64, 2, 64, 2, 3).mean(dim=(1, 3))[2:-2, 2:-2]
    # Bilinear enlarging keeps what varies slowly, and softens the rest.
    assert (middle - trained.rgb[2:-2, 2:-2]).abs().mean() < 0.2 * trained.rgb.std()


# Quantisation


@pytest.mark.parametrize("bits", [8, 4])
def test_rounded_values_are_few_near_and_keep_their_gradient(bits):
    planes = PlanesShape(slabs=2, features=3, resolutions=(4, 9)).plane_set()
    g = torch.Generator().manual_seed(0)
    table = torch.randn(planes.texels, 3, generator=g, requires_grad=True)
    near = rounded(table, planes, bits)
    near.sum().backward()
    assert torch.equal(table.grad, torch.ones_like(table))
    for index in range(len(planes.planes)):
        grid = planes.grid(table.detach(), index)
        codes, step = plane_codes(grid, bits)
        assert codes.abs().max() == 2 ** (bits - 1) - 1 and torch.equal(codes, codes.round())
        # Half a step, and float32.
        assert ((codes * step - grid).abs() <= step * 0.5001).all()
        assert torch.allclose(planes.grid(near.detach(), index), codes * step, atol=1e-6)


# Training


def test_trains_on_photographs(tiny_capture, tmp_path):
    method = LightSlabMethod(
        steps=300, features=2, resolutions=(8, 24), crossed_resolutions=(8,), width=32, blocks=2,
        teaching=TeacherOptions(weight=0.0), photometric=PhotometricOptions(),
    )  # fmt: skip
    run = start(
        method, TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False)
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    psnrs = [row["psnr"] for row in rows if "psnr" in row]
    # The outline and rough colours come within 300 steps.
    assert sum(psnrs[-4:]) / 4 > psnrs[0] + 4.0
    loaded = load_run(run)
    assert isinstance(loaded.representation, LightSlabs)
    assert loaded.representation.render(loaded.cameras.test[0]).rgb.shape == (48, 48, 3)
