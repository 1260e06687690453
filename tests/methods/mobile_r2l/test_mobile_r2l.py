"""MobileR2L: the published sizes, and what a light field on crops must keep."""

import json
import math
from dataclasses import replace

import pytest
import torch

from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import Rays, camera_rays
from scene4d.errors import UsageError
from scene4d.methods.mobile_r2l.method import MobileR2lMethod
from scene4d.methods.mobile_r2l.mobile_r2l import MobileR2l, encoded, encoded_width
from scene4d.methods.mobile_r2l.network import Network, NetworkShape
from scene4d.methods.mobile_r2l.ray_points import REACH, RayPoints, place_points
from scene4d.representations.content import Content
from scene4d.representations.method import PhotometricOptions, TeacherOptions
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.train import start


def a_camera(*, x=0.0, width=48, height=40, focal=50.0):
    """At distance 3 from the origin, looking at it."""
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([x, 0.0, 3.0])
    K = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(c2w=c2w, K=K, width=width, height=height)


def ball(*, near=2.0, far=4.0, scale=1.0):
    return RayPoints(
        kind="ball", centre=torch.zeros(3), rotation=torch.eye(3), near=near, far=far, scale=scale
    )


def small(*, outputs=4, upsampling=8, points=2, frequencies=2, seed=0, blocks=2):
    shape = NetworkShape(
        inputs=encoded_width(points, frequencies),
        width=12,
        blocks=blocks,
        upsampling=upsampling,
        outputs=outputs,
    )
    generator = torch.Generator().manual_seed(seed)
    network = MobileR2l(shape, ball(), points=points, frequencies=frequencies, generator=generator)
    # Running statistics as after some training; at their start they would normalise nothing.
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer += 0.3 * torch.rand(buffer.shape, generator=generator)
    return network


def test_the_default_is_the_published_network():
    """arXiv 2212.08057 and its code: 312 channels, 4.31 M parameters, 50.6 GMAC at 800x800 and
    26.6 at 1008x756 with 12 pixels a ray."""
    method = MobileR2lMethod()
    assert encoded_width(method.points, method.frequencies) == 312 == NetworkShape().inputs
    assert NetworkShape().parameters() == 4_305_539
    assert round(NetworkShape().macs(800, 800) / 1e9, 1) == 50.6
    assert NetworkShape(upsampling=12).bundle(1008, 756) == (84, 63)
    assert round(NetworkShape(upsampling=12).macs(1008, 756) / 1e9, 1) == 26.6


@pytest.mark.parametrize("upsampling", [8, 12])
@pytest.mark.parametrize("outputs", [3, 4])
def test_closed_forms_count_what_is_there(upsampling, outputs):
    shape = NetworkShape(inputs=30, width=12, blocks=2, upsampling=upsampling, outputs=outputs)
    network = Network(shape)
    assert shape.parameters() == sum(p.numel() for p in network.parameters())
    counted = []

    def count(layer, inputs, out):
        weight = layer.weight.numel()
        transposed = isinstance(layer, torch.nn.ConvTranspose2d)
        samples = (inputs[0] if transposed else out)[0, 0].numel()
        counted.append((samples, weight, out[0, 0].numel()))

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    out = network(torch.zeros(1, 30, 5 + 2, 3 + 2))
    assert out.shape == (1, outputs, 5 * upsampling, 3 * upsampling)
    total = sum(samples * weight for samples, weight, _ in counted)
    # The hooks count the halo: one ring at the bundle (7 x 5 for 5 x 3) and at each resolution.
    assert shape.macs(3 * upsampling, 5 * upsampling) < total
    assert total < shape.macs(5 * upsampling, 7 * upsampling)


def test_encoding_is_the_value_and_its_octaves():
    values = torch.tensor([[0.3, -1.2]])
    found = encoded(values, 2)
    expected = [0.3, -1.2]
    expected += [math.sin(f * v) for v in (0.3, -1.2) for f in (1, 2)]
    expected += [math.cos(f * v) for v in (0.3, -1.2) for f in (1, 2)]
    torch.testing.assert_close(found, torch.tensor([expected]))  # float32


@pytest.mark.parametrize(("width", "height"), [(48, 40), (50, 37), (8, 8), (1, 1), (7, 19)])
@pytest.mark.parametrize("outputs", [3, 4])
def test_pictures_have_the_camera_s_size(width, height, outputs):
    network = small(outputs=outputs)
    camera = a_camera(width=width, height=height)
    with torch.no_grad():
        one = network.render(camera, background=torch.ones(3))
        two = network.render(Camera.stack([camera, camera]), background=torch.ones(3))
    assert one.rgb.shape == (height, width, 3)
    assert one.alpha.shape == (height, width)
    assert one.depth is None
    assert two.rgb.shape == (2, height, width, 3)
    # float32 rounding of sums in another order
    torch.testing.assert_close(two.rgb[1], one.rgb, rtol=0, atol=1e-5)
    assert (one.alpha == 1).all() == (outputs == 3)


@pytest.mark.parametrize("upsampling", [8, 12])
def test_a_crop_is_rendered_as_the_crop_of_the_picture(upsampling):
    """Aligned to ``upsampling``, with running statistics: equal to float32 rounding."""
    network = small(upsampling=upsampling)
    camera = a_camera(width=6 * upsampling, height=5 * upsampling)
    x, y, width, height = 2 * upsampling, upsampling, 2 * upsampling + 3, 3 * upsampling
    crop = replace(
        camera,
        K=camera.K - torch.tensor([[0, 0, x], [0, 0, y], [0, 0, 0.0]]),
        width=width,
        height=height,
    )
    with torch.no_grad():
        whole, part = network.render(camera), network.render(crop)
    torch.testing.assert_close(
        part.rgb, whole.rgb[y : y + height, x : x + width], rtol=0, atol=2e-6
    )
    assert whole.rgb.std() > 1e-3


def test_alpha_composites_on_the_background():
    network, camera = small(), a_camera()
    with torch.no_grad():
        black = network.render(camera)
        grey = network.render(camera, background=torch.full((3,), 0.5))
    torch.testing.assert_close(grey.rgb, black.rgb + 0.5 * (1 - black.alpha)[..., None])


def test_gradients_are_those_of_finite_differences():
    """float64, in the weights of each kind of layer and in the camera's pose; once with running
    statistics and once with the batch's own."""
    network = small(blocks=1).double()
    camera = a_camera(width=8, height=8)
    camera = replace(camera, K=camera.K.double(), c2w=camera.c2w.double())
    names = ["head.weight", "body.0.norm_into.weight", "ups.0.bias", "ups.2.weight", "last.bias"]
    parameters = dict(network.network.named_parameters())
    weights = torch.rand(8, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for training in (False, True):
        network.train(training)

        def loss(c2w, *values):
            new = dict(zip((f"network.{n}" for n in names), values, strict=True))
            render = torch.func.functional_call(
                _Rendering(network), {f"network.{k}": v for k, v in new.items()},
                (replace(camera, c2w=c2w),),
            )  # fmt: skip
            return (render * weights).sum()

        inputs = [camera.c2w, *(parameters[n] for n in names)]
        inputs = [v.detach().clone().requires_grad_() for v in inputs]
        assert torch.autograd.gradcheck(loss, inputs, fast_mode=True)


class _Rendering(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, camera):
        return self.network.render(camera).rgb


def test_looking_on_during_training_changes_nothing():
    network, camera = small(), a_camera()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.on_progress(0.1)
    with torch.no_grad():
        network.render(camera)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    network.render(camera)
    assert any(not torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_points_of_a_ball_go_from_near_to_far():
    rays = Rays(origins=torch.tensor([[0.0, 0.0, 3.0]]), directions=torch.tensor([[0, 0, -1.0]]))
    found = ball(near=2.0, far=4.0)(rays, 5)
    z = torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0]) * REACH
    torch.testing.assert_close(found[0, :, 2], z)
    assert not found[0, :, :2].any()


def test_points_of_a_forward_facing_capture_are_those_of_device_coordinates():
    """NeRF, appendix C: (x', y', z') = (tangents of the point, 1 - 2 near / depth), up to sign."""
    points = RayPoints(
        kind="forward", centre=torch.tensor([0.1, 0.0, 0.0]), rotation=torch.eye(3),
        near=2.0, far=10.0, scale=0.8,
    )  # fmt: skip
    origin = torch.tensor([0.5, -0.2, 0.3])
    direction = torch.nn.functional.normalize(torch.tensor([0.1, 0.3, 1.0]), dim=0)
    found = points(Rays(origins=origin[None], directions=direction[None]), 5)[0] / REACH
    for k, disparity in enumerate([0.5, 0.375, 0.25, 0.125]):
        depth = 1 / disparity
        at = origin + direction * (depth - origin[2]) / direction[2] - torch.tensor([0.1, 0, 0])
        expected = [at[0] / depth / 0.8, at[1] / depth / 0.8, 4 / depth - 1]
        torch.testing.assert_close(found[k], torch.stack([torch.as_tensor(v) for v in expected]))
    torch.testing.assert_close(found[4], torch.tensor([0.1 / 0.8, 0.3 / 0.8, -1.0]))


def test_rays_that_miss_the_axis_are_finite_and_so_are_their_gradients():
    points = RayPoints(
        kind="forward", centre=torch.zeros(3), rotation=torch.eye(3), near=1.0, far=9.0, scale=1.0
    )
    directions = torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0, 0, 1.0]]).requires_grad_()
    found = points(Rays(origins=torch.zeros(3, 3), directions=directions), 4)
    found.square().sum().backward()
    assert found.isfinite().all()
    assert directions.grad.isfinite().all()


def test_points_are_placed_by_what_the_cameras_see():
    cameras = [a_camera(x=x) for x in (-0.5, 0.0, 0.5)]
    cloud = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    bounded = place_points(cameras, Content(points=cloud, bounded=True), None)
    assert bounded.kind == "ball"
    # The nearest camera is 3 away; all but one per cent of the cloud lies within 0.2 * 3.37.
    assert bounded.near == pytest.approx(3 - 0.2 * 3.37, abs=0.05)
    forward = place_points(cameras, Content(points=cloud, bounded=False), (1.5, 20.0))
    assert (forward.kind, forward.near, forward.far) == ("forward", 1.5, 20.0)
    corners = torch.cat([camera_rays(c).directions.reshape(-1, 3) for c in cameras])
    local = corners @ forward.rotation.T
    # Pixel centres lie within the pictures' edges, by half of 48 pixels' 24th.
    assert (local[:, :2] / local[:, 2:]).abs().max() == pytest.approx(forward.scale, rel=0.03)
    back = replace(a_camera(), c2w=torch.diag(torch.tensor([-1.0, 1, -1, 1])) @ a_camera().c2w)
    around = place_points([*cameras, back], Content(points=cloud, bounded=False), None)
    assert around.kind == "around"
    assert 2.0 < around.near < 3.0 < around.far
    one = place_points(cameras[:1], Content(points=cloud[:1].expand(200, 3), bounded=True), None)
    rays = camera_rays(cameras[0])
    assert one(rays, 8).isfinite().all()


def test_wrong_sizes_are_refused():
    with pytest.raises(UsageError, match="blocks is 0"):
        MobileR2lMethod(blocks=0)
    with pytest.raises(ValueError, match="inputs"):
        MobileR2l(NetworkShape(), ball(), points=4, frequencies=6)


def test_it_trains_saves_and_loads(tiny_capture, tmp_path):
    """On photographs alone, and small: 100 steps learn outline and mean colours."""
    method = MobileR2lMethod(
        steps=100,
        width=64,
        blocks=2,
        network_lr=3e-3,
        teaching=TeacherOptions(weight=0.0),
        photometric=PhotometricOptions(ssim_weight=0.0),
    )
    run = start(
        method, TrainOptions(data=tiny_capture, output_dir=tmp_path, device="cpu", evaluate=False)
    )
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    psnrs = [row["psnr"] for row in rows if "psnr" in row]
    assert sum(psnrs[-4:]) / 4 > psnrs[0] + 4.0
    loaded = load_run(run)
    again = MobileR2l.from_saved(
        loaded.representation.state_dict(), loaded.representation.plain_data()
    )
    with torch.no_grad():
        first = loaded.representation.render(loaded.cameras.test[0])
        second = again.render(loaded.cameras.test[0])
    assert first.rgb.shape == (48, 48, 3)
    assert torch.equal(first.rgb, second.rgb)
    # The scene is seen, not only its background: running statistics have followed the batches'.
    assert first.alpha.max() > 0.6
    assert first.alpha.min() < 0.4
