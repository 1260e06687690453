"""Light slabs with MPIs: what is rendered, kept and learned, and what may be asked for."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_tiny_capture
from methods.lightslab.light_slab_scenes import (
    BALL,
    camera,
    cameras_around,
    facing_cameras,
    front_slabs,
    scene_of,
    splats_at,
    untrained,
)

from scene4d.bundle.limits import CODES
from scene4d.cameras.between import Spread
from scene4d.cameras.camera import Camera
from scene4d.cameras.rays import camera_rays
from scene4d.errors import DataError, UsageError
from scene4d.evaluation.psnr import psnr
from scene4d.formats.ply import write_ply
from scene4d.methods.lightslab.block_transform import steps_for
from scene4d.methods.lightslab.bundle_mpi import MAX_BLOCKS
from scene4d.methods.lightslab.first_mpi import MpiLimits, first_mpi
from scene4d.methods.lightslab.first_slabs import MPI_SHARE, believed_blocks, sizes
from scene4d.methods.lightslab.light_slabs import LightSlabs
from scene4d.methods.lightslab.method import LightSlabMethod
from scene4d.methods.lightslab.mpi import BLOCK, MultiplaneImages
from scene4d.methods.lightslab.placement import place_slabs
from scene4d.methods.lightslab.stored_mpi import (
    FINEST,
    FREQUENCIES,
    RoundedTexels,
    as_stored,
    estimated_bytes,
)
from scene4d.rendering.render import DEPTH
from scene4d.representations.gaussians import GaussianSplats
from scene4d.representations.method import PhotometricOptions, TeacherOptions
from scene4d.training.options import TrainOptions
from scene4d.training.run import load_run
from scene4d.training.teachers import load_teacher
from scene4d.training.train import start

pytestmark = pytest.mark.unchecked_shapes

SMALL = {
    "features": 2, "resolutions": (8, 24), "crossed_resolutions": (8,), "width": 24, "blocks": 1,
    "encoded": 8, "channels": (12, 8), "depths": 8,
}  # fmt: skip
SPLATS = splats_at((0.0, 0.0, 0.0))


def random_mpi(slabs, *, down=4, across=5, share=0.7, seed=0):
    g = torch.Generator().manual_seed(seed)
    stored = torch.rand(slabs.num_slabs, slabs.num_planes, down, across, generator=g) < share
    texels = torch.rand(int(stored.sum()), BLOCK, BLOCK, 4, generator=g)
    texels[..., 3] *= 0.4
    texels[..., :3] *= texels[..., 3:]
    return MultiplaneImages(stored=stored, texels=texels)


@pytest.fixture(params=[1, 3], ids=["one slab", "three slabs"])
def slabs(request):
    cameras = cameras_around() if request.param > 1 else [camera(position=(0.0, 0.0, 4.0))]
    return place_slabs(cameras, BALL, kind="cameras", num_planes=4, count=request.param)


def field(slabs, *, decoding=True, **settings):
    """With random MPIs, and a decoder that adds to them or not yet."""
    settings = {"mpi_steps": steps_for(2.0).tolist(), "opaque": False, **settings}
    made = untrained(slabs, mpi=random_mpi(slabs), **settings)
    if decoding:
        with torch.no_grad():
            last = made.decoder.sharpen[-1]
            last.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
    return made


VIEW = camera(size=56, position=(0.1, 0.3, 3.9))


def test_the_start_shows_the_mpis_alone(slabs):
    scene = field(slabs, decoding=False)
    with torch.no_grad():
        render = scene.render(VIEW, want=DEPTH)
    rays = camera_rays(VIEW)
    origins, dirs = rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3)
    found = slabs(origins, dirs)
    values = scene.mpi(found.coordinates, found.slab, 1 / slabs.disparities).detach()
    shown = torch.zeros(len(dirs), 4).index_add(0, found.ray, values[:, :4] * found.weight[:, None])
    shown = shown.clamp(0, 1) * found.coverage[:, None]
    assert render.rgb.std() > 0.01  # not a flat picture
    # float32: the decoder's zero is exact, rays of a batch are computed in another order.
    assert torch.allclose(render.rgb, shown[:, :3].view(56, 56, 3), atol=1e-4)
    assert torch.allclose(render.alpha, shown[:, 3].view(56, 56), atol=1e-4)
    assert torch.allclose(render.features[..., 0], found.coverage.view(56, 56), atol=1e-4)


def test_the_decoder_adds_to_the_mpis():
    slabs = front_slabs([5.0, 4.0, 3.0])
    with torch.no_grad():
        at_first, later = field(slabs, decoding=False), field(slabs)
        one = camera()
        raw, _ = later._decoded(Camera.stack([one]))
        added = at_first.render(one).rgb + raw[0, :3].permute(1, 2, 0)
        assert raw[:, :3].std() > 0.01
        assert torch.allclose(later.render(one).rgb, added.clamp(0, 1), atol=1e-5)  # float32


def test_a_plane_of_one_depth_has_that_depth_wherever_one_stands():
    slabs = front_slabs([6.0, 4.0, 3.0], half=1.0)
    texels = torch.full((4, BLOCK, BLOCK, 4), 0.5)
    stored = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
    stored[:, 1] = True
    scene = untrained(slabs, mpi=MultiplaneImages(stored=stored, texels=texels), opaque=False)
    for z, turn in ((0.0, 0.0), (1.5, 0.0), (-0.7, 0.0), (0.0, 0.2)):
        one = camera(size=24, position=(0.1, -0.2, z), turn=turn)
        with torch.no_grad():
            render = scene.render(one, want=DEPTH)
        rays = camera_rays(one)
        # Where rays meet the plane z = -4 of the world, along the camera's axis.
        along = (-4 - rays.origins[..., 2]) / rays.directions[..., 2]
        expected = along * -(rays.directions @ one.c2w[:3, 2])
        inside = render.features[..., 0] == 1
        assert inside.sum() > 100
        assert torch.allclose(render.depth[inside], expected[inside], rtol=1e-4)  # float32


def test_a_crop_renders_as_the_part_of_the_picture(slabs):
    scene = field(slabs)
    whole = scene.render(VIEW, want=DEPTH)
    crop = scene.render(VIEW.cropped(16, 8, 37, 21), want=DEPTH)
    assert whole.rgb.std() > 0.01
    solid = whole.alpha[8:29, 16:53] > 0.05
    parts = [(whole.rgb, crop.rgb), (whole.alpha, crop.alpha), (whole.features, crop.features)]
    for large, small in parts:
        # float32: rays of a shifted principal point, times some 20 texels a unit.
        assert torch.allclose(large[8:29, 16:53], small, atol=5e-4)
    # Divided by alpha.
    assert torch.allclose(whole.depth[8:29, 16:53][solid], crop.depth[solid], rtol=1e-2)


def test_a_batch_renders_as_its_cameras_do(slabs):
    scene = field(slabs)
    cameras = [camera(size=33, position=(x, 0.0, 4.0)) for x in (-0.2, 0.3)]
    together = scene.render(Camera.stack(cameras))
    for i, one in enumerate(cameras):
        assert torch.allclose(together.rgb[i], scene.render(one).rgb, atol=1e-4)  # as crops


def test_where_no_slab_covers_the_background_shows():
    scene = field(front_slabs([5.0, 4.0, 3.0]))
    background = torch.tensor([0.2, 0.4, 0.6])
    render = scene.render(camera(turn=math.pi), background=background)
    assert (render.features == 0).all() and (render.alpha == 0).all()
    assert torch.equal(render.rgb, background.expand_as(render.rgb))


def test_pictures_are_within_range_and_what_is_beyond_still_has_a_gradient():
    scene = field(front_slabs([5.0, 4.0, 3.0]))
    with torch.no_grad():
        scene.mpi.texels.add_(0.8)
    shown = scene.render(camera())
    assert shown.rgb.max() == 1 and shown.rgb.min() >= 0 and shown.alpha.max() <= 1
    beyond = shown.rgb == 1
    (slope,) = torch.autograd.grad(shown.rgb[beyond].sum(), scene.mpi.texels)
    assert int(beyond.sum()) > 100 and slope.abs().max() > 0.1
    scene.on_progress(0.1)
    assert scene.mpi.texels.max() == 1 and scene.mpi.texels.min() >= 0


def test_gradients_reach_every_parameter_and_the_pose(slabs):
    scene = field(slabs)
    c2w = VIEW.c2w.clone().requires_grad_(True)
    render = scene.render(VIEW.with_pose(c2w), want=DEPTH)
    (render.rgb.sum() + render.alpha.sum() + render.depth.sum()).backward()
    assert torch.isfinite(c2w.grad).all() and (c2w.grad[:3] != 0).any()
    groups = scene.parameter_groups()
    assert [g.name for g in groups] == ["mpi", "planes", "decoder"]
    parameters = [p for g in groups for p in g.parameters]
    assert {id(p) for p in parameters} == {id(p) for p in scene.parameters()}
    assert all(torch.isfinite(p.grad).all() for p in parameters)
    assert all((p.grad != 0).any() for g in groups[:2] for p in g.parameters)


def test_the_pictures_gradient_in_the_pose_is_that_of_its_values():
    slabs = front_slabs([5.0, 4.0, 3.0], half=1.0)
    # A slow wave on every MPI plane: between texels its slope changes by a few per cent only.
    along = torch.arange(64).float() * (2 * math.pi / 64)
    mpi_plane = (0.3 + 0.2 * torch.sin(along + along[:, None]))[..., None].expand(64, 64, 4)
    blocks = mpi_plane.reshape(8, BLOCK, 8, BLOCK, 4).transpose(1, 2).reshape(64, BLOCK, BLOCK, 4)
    stored = torch.ones(1, 3, 8, 8, dtype=torch.bool)
    mpi = MultiplaneImages(stored=stored, texels=blocks.repeat(3, 1, 1, 1))
    scene = untrained(slabs, mpi=mpi, opaque=False)
    one, step = camera(size=37, focal=3.0), 0.02  # sees the wave rise only

    def value(x):
        c2w = one.c2w.clone()
        c2w[0, 3] = c2w[0, 3] + x
        return scene.render(one.with_pose(c2w)).rgb[..., 0].mean()

    x = torch.zeros((), requires_grad=True)
    (slope,) = torch.autograd.grad(value(x), x)
    with torch.no_grad():
        numeric = float(value(torch.tensor(step)) - value(torch.tensor(-step))) / (2 * step)
    assert abs(numeric) > 0.01
    assert float(slope) == pytest.approx(numeric, rel=0.05)


def test_saved_and_built_again(slabs):
    scene = field(slabs, quantise_at=0.5)
    scene.on_progress(0.7)
    plain = json.loads(json.dumps(dict(scene.plain_data())))
    again = LightSlabs.from_saved({k: v.clone() for k, v in scene.state_dict().items()}, plain)
    assert again.mpi is not None and again.slabs.overlap == scene.slabs.overlap
    assert torch.equal(again.mpi.place, scene.mpi.place)
    with torch.no_grad():
        one, two = scene.render(VIEW, want=DEPTH), again.render(VIEW, want=DEPTH)
    assert torch.equal(one.rgb, two.rgb) and torch.equal(one.depth, two.depth)
    without = untrained(slabs)
    saved = LightSlabs.from_saved(without.state_dict(), without.plain_data())
    assert saved.mpi is None


def test_late_in_training_mpis_are_as_stored():
    steps = steps_for(2.0)
    scene = field(
        front_slabs([5.0, 4.0, 3.0]), decoding=False, quantise_at=0.5, mpi_steps=steps.tolist()
    )
    texels = scene.mpi.texels
    with torch.no_grad():
        early = scene.render(camera()).rgb
        scene.on_progress(0.6)
        late = scene.render(camera()).rgb
        kept = texels.clone()
        stored = as_stored(texels, scene.mpi.levels, steps)
        texels.copy_(stored)
        scene.on_progress(0.4)
        exact = scene.render(camera()).rgb
    assert not torch.equal(early, late)
    assert torch.allclose(late, exact, atol=1e-5)  # float32
    # Of the error of each of three MPI planes, in colour and in what is in front of it.
    assert (late - early).abs().max() < 6 * (stored - kept).abs().max()
    assert not torch.equal(kept, texels)  # rounding is in the rendering, not in what is trained


def test_rounding_is_exact_when_shown_and_follows_in_training():
    mpi, steps, rounded = random_mpi(front_slabs([5.0, 4.0])), steps_for(8.0), RoundedTexels()

    def stored():
        return as_stored(mpi.texels, mpi.levels, steps)

    def shown(*, exactly=False):
        rounded.refresh(mpi, steps, exactly=exactly)
        return rounded.of(mpi)

    first = shown()
    assert torch.allclose(first, stored(), atol=1e-6)  # float32
    (slope,) = torch.autograd.grad(first.sum(), mpi.texels)
    assert torch.equal(slope, torch.ones_like(slope))  # straight through
    for _ in range(40):
        with torch.no_grad():
            mpi.texels.add_(0.002)
    late = shown()
    assert torch.allclose(late, stored(), atol=1e-6)
    with torch.no_grad():
        mpi.texels.add_(0.002)
    lagging = shown()
    assert torch.allclose(lagging, late + 0.002, atol=1e-6)  # the error is as it was
    assert torch.allclose(shown(exactly=True), stored(), atol=1e-6)


def test_when_rounding_starts_the_steps_are_such_that_what_was_learned_fits():
    scene = field(front_slabs([5.0, 4.0, 3.0]), quantise_at=0.5, mpi_bytes=1000.0)
    first = np.array(scene.settings.mpi_steps)
    scene.on_progress(0.4)
    assert (np.array(scene.settings.mpi_steps) == first).all()
    assert estimated_bytes(scene.mpi, first) > 1500
    scene.on_progress(0.5)
    late = np.array(scene.settings.mpi_steps)
    assert 800 < estimated_bytes(scene.mpi, late) <= 1000
    with torch.no_grad():
        scene.mpi.texels.mul_(0.5)
    scene.on_progress(0.6)
    assert (np.array(scene.settings.mpi_steps) == late).all()  # once


# From a scene


def test_from_a_scene_the_mpis_are_those_of_the_teacher():
    cameras = cameras_around()
    method = LightSlabMethod(max_slabs=2, **SMALL)
    made = LightSlabs.from_scene(
        scene_of(cameras), method, generator=torch.Generator().manual_seed(0), teacher=SPLATS
    )
    assert made.planes.slabs == made.slabs.num_slabs <= 2
    taught = method.teaching
    spread = Spread(between=taught.between, jitter=taught.jitter, turn=taught.turn)
    limits = MpiLimits(bytes=1e9, blocks=10**6, scale=method.mpi_scale, spread=spread)
    blocks = first_mpi(SPLATS, made.slabs, cameras, limits)
    assert torch.equal(made.mpi.texels, blocks.texels)
    assert torch.equal(made.mpi.levels, blocks.levels)
    assert not made.settings.opaque
    assert made.settings.mpi_steps == steps_for(FINEST, FREQUENCIES).tolist()  # there is room
    assert made.describe()["mpi_blocks"] == made.mpi.num_blocks > 0


def test_without_a_teacher_a_forward_facing_capture_has_one_slab_and_no_mpi_planes():
    made = LightSlabs.from_scene(
        scene_of(facing_cameras()), LightSlabMethod(**SMALL),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert made.mpi is None and made.slabs.num_slabs == 1


def test_one_slab_or_no_mpi_planes_as_the_method_says():
    def made(**options):
        method = LightSlabMethod(**{**SMALL, **options})
        generator = torch.Generator().manual_seed(0)
        scene = scene_of([camera(position=(x, 0.0, 4.0)) for x in (-0.2, 0.2)])
        return LightSlabs.from_scene(scene, method, generator=generator, teacher=SPLATS)

    assert made(mpi=False).mpi is None
    fine = made(max_slabs=1)
    coarse = made(placement="forward", max_slabs=2, mpi_scale=0.5)
    assert fine.slabs.num_slabs == coarse.slabs.num_slabs == 1
    assert coarse.mpi.columns < fine.mpi.columns
    tiny = {"width": 4, "encoded": 2, "blocks": 0, "resolutions": (4,), "features": 1}
    few = made(max_slabs=1, max_mb=0.006, samples=1, channels=(2, 2), **tiny)
    steps = np.array(few.settings.mpi_steps)
    assert estimated_bytes(few.mpi, steps) <= 0.006e6 * MPI_SHARE
    assert 0 < made(max_slabs=1, max_blocks=30).mpi.num_blocks <= 30


@pytest.mark.parametrize("room", [1e4, 1e6, 1e7])
def test_no_more_blocks_are_kept_than_readers_believe(room):
    """Where a fifth of the room stays unused; a room in the tiny tier could not be exported."""
    codes = believed_blocks(room) * 64 * 4  # of a block of 8 x 8 texels of four channels
    CODES.check(codes, int(0.8 * room))
    with pytest.raises(DataError, match="are believed"):
        CODES.check(codes + 64 * 4, int(0.8 * room))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("depths", (1, 65)), ("max_blocks", (0, MAX_BLOCKS + 1)), ("bits", (1, 9)),
        ("samples", (3, 0)), ("max_slabs", (0, -1, 65)), ("featured", (0,)), ("features", (0,)),
        ("blocks", (-1,)), ("width", (0,)), ("encoded", (0,)),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(name, values):
    for value in values:
        with pytest.raises(UsageError, match=f"{name} is {value}"):
            LightSlabMethod(**{name: value})


def test_a_size_that_the_decoder_alone_exceeds_is_refused():
    with pytest.raises(UsageError, match="--max-mb 0.1 leaves nothing beside the decoder"):
        sizes(LightSlabMethod(max_mb=0.1), front_slabs((4.0, 2.0)))


def test_sizes_at_their_limits_are_accepted():
    for options in (
        {"depths": 64, "max_blocks": MAX_BLOCKS, "max_slabs": 64},
        {"depths": 2, "max_blocks": 1, "blocks": 0},
    ):
        assert LightSlabMethod(**options).depths == options["depths"]


# Training


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The Gaussians that tests/conftest.py renders the tiny capture of, as a file."""
    g, count = torch.Generator().manual_seed(7), 64
    means = torch.randn(count, 3, generator=g) * 0.5
    colours = torch.rand(count, 3, generator=g)
    quats = torch.randn(count, 4, generator=g)
    stds = 0.05 + 0.1 * torch.rand(count, 3, generator=g)
    opacities = 0.5 + 0.45 * torch.rand(count, generator=g)
    splats = GaussianSplats({
        "means": means, "quats": quats, "scales": stds.log(), "opacities": opacities.logit(),
        "sh0": ((colours - 0.5) / 0.28209479177387814)[:, None], "shN": torch.zeros(count, 0, 3),
    })  # fmt: skip
    path = tmp_path_factory.mktemp("teacher") / "scene.ply"
    write_ply(path, splats.splats())
    return splats, path


@pytest.fixture(scope="module")
def arc(tmp_path_factory):
    """An eighth of a circle of the tiny capture's views: one or two slabs see all of it."""
    folder = make_tiny_capture(tmp_path_factory.mktemp("arc"), num_views=56)
    document = json.loads((folder / "transforms.json").read_text())
    document["frames"] = document["frames"][:8]
    (folder / "transforms.json").write_text(json.dumps(document))
    return folder


METHOD = LightSlabMethod(
    steps=30, max_slabs=2, mpi_scale=0.5, quantise_at=2.0, **{**SMALL, "depths": 3},
    photometric=PhotometricOptions(weight=0.0),
    teaching=TeacherOptions(crop_size=48, crops=4, first_views=8),
)  # fmt: skip
"""The teacher alone."""


def trained(capture, path, folder, method=METHOD):
    """A run's light field and its cameras, in its working frame."""
    options = TrainOptions(
        data=capture, teacher=path, output_dir=folder, device="cpu", evaluate=False
    )
    run = load_run(start(method, options))
    return run.representation, run.cameras


@torch.no_grad()
def likeness(made, splats, cameras):
    """Mean PSNR against the teacher's pictures on black, dB."""
    found = [psnr(made.render(c).rgb, splats.render(c).rgb.clamp(0, 1)) for c in cameras]
    return float(torch.tensor([float(f) for f in found]).mean())


def test_a_short_training_brings_it_nearer_to_its_teacher(arc, teacher, tmp_path):
    _, path = teacher
    later, placed = trained(arc, path, tmp_path)
    cameras, generator = placed.train, torch.Generator().manual_seed(0)
    scene = replace(scene_of(cameras), source_from_scene=placed.source_from_scene)
    splats = load_teacher(path).in_frame(scene.source_from_scene)
    first = LightSlabs.from_scene(scene, METHOD, generator=generator, teacher=splats)
    assert isinstance(later, LightSlabs) and later.mpi.num_blocks == first.mpi.num_blocks
    assert not torch.equal(later.mpi.texels, first.mpi.texels)
    before, after = likeness(first, splats, cameras), likeness(later, splats, cameras)
    # Three MPI planes at half the pictures' size leave something to add.
    assert after > before + 1.0


def test_the_same_seed_gives_the_same_field(arc, teacher, tmp_path):
    method = replace(METHOD, steps=3)
    one, _ = trained(arc, teacher[1], tmp_path / "one", method)
    two, _ = trained(arc, teacher[1], tmp_path / "two", method)
    assert one.state_dict().keys() == two.state_dict().keys()
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name
