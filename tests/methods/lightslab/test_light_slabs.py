"""Light slabs without MPIs: placement, the decoder, the crop invariant, and a training."""

import json
import math

import pytest
import torch
from methods.lightslab.light_slab_scenes import (
    BALL,
    WALL,
    camera,
    cameras_around,
    facing_cameras,
    scene_of,
    splats_at,
    untrained,
)
from torch.nn.functional import normalize

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.errors import UsageError
from scene4d.methods.lightslab.decoder import Decoder, DecoderShape
from scene4d.methods.lightslab.first_slabs import MPI_SHARE, sizes
from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.methods.lightslab.method import LightSlabMethod
from scene4d.methods.lightslab.placement import place_slabs
from scene4d.methods.lightslab.planes import FeaturePlanesShape, plane_codes, rounded
from scene4d.rendering.render import DEPTH
from scene4d.representations.content import find_content
from scene4d.representations.method import PhotometricOptions, TeacherOptions
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.train import start

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


def test_one_camera_and_cameras_in_one_place_are_placed():
    for cameras in ([camera()], [camera(), camera(turn=0.2), camera(turn=-0.2)]):
        slabs = place_slabs(cameras, WALL)
        rays = camera_rays(cameras[0])
        found = slabs(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
        assert torch.isfinite(found.coordinates).all() and found.coverage.min() > 1 - 1e-6


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
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("mpi", [True, False])
def test_sizes_keep_to_the_budget(count, megabytes, mpi):
    slabs = place_slabs(cameras_around(), BALL, kind="cameras", num_planes=8, count=count)
    planes, decoder = sizes(LightSlabMethod(max_mb=megabytes, mpi=mpi), slabs)
    assert (planes.slabs, planes.depths) == (count, 8)
    assert decoder.macs(800, 800) <= 4e9
    assert decoder.values == sum(p.numel() for p in Decoder(decoder).parameters())
    budget = megabytes * 1e6 * (1 - MPI_SHARE if mpi else 1)
    assert planes.values + decoder.values <= budget
    roomy, _ = sizes(LightSlabMethod(max_mb=100.0, mpi=mpi), slabs)
    if planes != roomy:  # what did not fit was not shrunk more than it had to be
        assert planes.values + decoder.values > 0.9 * budget


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
    whole = scene.render(whole_camera, want=DEPTH)
    crop = scene.render(whole_camera.cropped(16, 40, 37, 21), want=DEPTH)
    parts = [(whole.rgb, crop.rgb), (whole.alpha, crop.alpha), (whole.depth, crop.depth),
             (whole.features, crop.features)]  # fmt: skip
    assert whole.rgb.std() > 0.01  # not a flat picture
    for large, small in parts:
        # float32: rays of a shifted principal point, then some layers.
        assert torch.allclose(large[40:61, 16:53], small, atol=2e-4)


def test_a_batch_renders_as_its_cameras_do():
    scene = untrained(place_slabs(cameras_around(), BALL))
    cameras = [camera(size=33, position=(x, 0.0, 4.0)) for x in (-0.2, 0.3)]
    together = scene.render(Camera.stack(cameras), want=DEPTH)
    for i, one in enumerate(cameras):
        alone = scene.render(one, want=DEPTH)
        assert together.rgb[i].shape == alone.rgb.shape == (33, 33, 3)
        assert torch.allclose(together.rgb[i], alone.rgb, atol=1e-5)  # float32, other tiling
        assert torch.allclose(together.depth[i], alone.depth, rtol=1e-4, atol=1e-4)


def test_where_nothing_is_covered_the_background_shows():
    scene = untrained(place_slabs(facing_cameras(), WALL))
    away = camera(turn=math.pi)
    background = torch.tensor([0.2, 0.4, 0.6])
    render = scene.render(away, background=background, want=DEPTH)
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
    render = scene.render(one.with_pose(c2w), want=DEPTH)
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
    scene.focal.copy_(one.K[0, 0])
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
    planes = FeaturePlanesShape(slabs=2, features=2, resolutions=(4, 9)).feature_planes()
    g = torch.Generator().manual_seed(0)
    table = torch.randn(planes.texels, 2, generator=g, requires_grad=True)
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
