"""Teachers: whose capture is used, in whose frame, and what is said where they are missing."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scene4d.bundle.splats import write_splats_bundle
from scene4d.cameras.camera import Camera
from scene4d.cameras.path_files import in_frame
from scene4d.data.scene import Frame, Scene
from scene4d.errors import DataError, UsageError
from scene4d.formats.ply import write_ply
from scene4d.formats.splat_cloud import SplatCloud, inverse_similarity
from scene4d.methods.lpgs.method import LpgsMethod
from scene4d.methods.splat.method import SplatMethod
from scene4d.rendering.render import RGB
from scene4d.representations.base import Representation
from scene4d.representations.gaussians import GaussianSplats
from scene4d.representations.task import Task, World
from scene4d.training.opened import OpenedScene, SceneCameras
from scene4d.training.options import TrainOptions
from scene4d.training.rendered_capture import NUM_CAMERAS, TEST_EVERY, rendered_capture
from scene4d.training.run import load_run
from scene4d.training.teachers import load_teacher
from scene4d.training.train import load_capture, resume, start

QUICK = LpgsMethod(steps=4, sh_degree=1)


def random_cloud(count=60, *, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return SplatCloud(
        means=spread * normal(count, 3), quats=normal(count, 4),
        log_scales=0.4 * normal(count, 3) - 1.8, logit_opacities=normal(count) + 1,
        sh=0.4 * normal(count, 4, 3),
    )  # fmt: skip


@pytest.fixture
def ply(tmp_path):
    write_ply(tmp_path / "scene.ply", random_cloud())
    return tmp_path / "scene.ply"


def options(output_dir, **changes):
    settings = {"output_dir": output_dir, "device": "cpu", "evaluate": False}
    return TrainOptions(**{**settings, **changes})


@pytest.fixture(scope="module")
def taught_run(tiny_capture, tmp_path_factory):
    """A run of splats that held out every fourth picture, of a capture of its own."""
    folder = tmp_path_factory.mktemp("taught")
    capture = shutil.copytree(tiny_capture, folder / "capture")
    method = SplatMethod(steps=8, num_random_points=100, coarsest_downscale=1, sh_degree=1)
    return start(method, options(folder / "outputs", data=capture, test_every=4))


# Whose capture


def test_a_run_teaches_on_its_own_capture_with_its_own_split(taught_run, tmp_path):
    student = load_run(start(QUICK, options(tmp_path, teacher=taught_run)))
    teacher = load_run(taught_run)
    assert student.options.data.resolve() == teacher.options.data.resolve()
    assert student.cameras.test_names == teacher.cameras.test_names
    assert len(student.cameras.test_names) == 4
    assert student.cameras.train_names == teacher.cameras.train_names
    assert student.experiment_name == "capture"
    # A teacher's Gaussians are the parents; a few steps prune some.
    assert 50 < student.representation.num_gaussians <= 100


def test_a_capture_that_is_named_goes_before_the_teachers(taught_run, tiny_capture, tmp_path):
    made = start(QUICK, options(tmp_path, teacher=taught_run, data=tiny_capture))
    student = load_run(made)
    assert student.options.data.resolve() == tiny_capture.resolve()
    assert len(student.cameras.test_names) == 2  # every eighth, as nothing else was asked for


def test_a_run_whose_capture_is_gone_teaches_by_renders_at_its_training_cameras(
    taught_run, tmp_path
):
    moved = tmp_path / "moved"
    shutil.copytree(taught_run, moved)
    config = moved / "config.toml"
    config.write_text(config.read_text().replace("capture", "no-such-capture"))
    teacher = load_teacher(moved)
    run = start(QUICK, options(tmp_path / "out", teacher=moved))
    student = load_run(run)
    assert student.options.data is None
    poses = [c.c2w for c in (*student.cameras.train, *student.cameras.test)]
    assert len(poses) == len(teacher.cameras.train) == 12
    for camera in teacher.cameras.train:  # never the held-out ones of the teacher
        assert any(torch.equal(camera.c2w, pose) for pose in poses)
    assert student.cameras.test_names == ["render-000", "render-008"]


# Renders of a file


def test_a_files_renders_are_the_same_every_time_and_some_are_held_out(ply):
    scene, images = rendered_capture(load_teacher(ply))
    again, _ = rendered_capture(load_teacher(ply))
    assert len(scene.frames) == NUM_CAMERAS
    for one, other in zip(scene.frames, again.frames, strict=True):
        assert torch.equal(one.camera.c2w, other.camera.c2w)
    assert list(scene.test_indices) == list(range(0, NUM_CAMERAS, TEST_EVERY))
    assert not set(scene.test_indices) & set(scene.train_indices)
    assert len(scene.test_indices) + len(scene.train_indices) == NUM_CAMERAS
    assert not scene.photographed
    there = inverse_similarity(scene.source_from_scene.numpy())  # a frame around the content
    splats = GaussianSplats.of(random_cloud().transformed(there))
    for index in (1, 2, 4):
        view = images.view(index)
        behind = torch.tensor([0.2, 0.5, 0.9])
        with torch.no_grad():
            want = splats.render(view.camera, background=behind).rgb
        got = view.rgb * view.alpha[..., None] + behind * (1 - view.alpha[..., None])
        # Bytes of colour and of alpha; colours beyond 0..1 are cut where they are straight.
        inside = ((want >= 0) & (want <= 1)).all(dim=-1) & (view.rgb < 1).all(dim=-1)
        assert inside.float().mean() > 0.2
        assert (got - want)[inside].abs().max() <= 1.5 / 255
        assert view.alpha.max() > 0.5


def test_renders_at_other_sizes(ply):
    scene, images = rendered_capture(load_teacher(ply))
    view = images.view(5, 2)
    assert view.rgb.shape == (200, 200, 3)
    assert images.camera(5, 2).width == view.camera.width == 200
    assert images.view(5).rgb.shape == (400, 400, 3)
    assert view.index == 5
    assert scene.frames[5].camera.width == 400


def test_a_training_from_a_file_resumes_and_names_a_teacher_that_has_moved(ply, tmp_path):
    run = start(QUICK, options(tmp_path / "out", teacher=ply))
    assert load_run(run).options.teacher.resolve() == ply.resolve()
    config = run / "config.toml"
    config.write_text(config.read_text().replace("steps = 4", "steps = 6"))
    resume(run)
    assert load_run(run).step == 6
    ply.rename(tmp_path / "elsewhere.ply")
    with pytest.raises(DataError, match=r"teacher was not found") as error:
        resume(run)
    assert "scene.ply" in str(error.value)


# Frames


def similarity():
    generator = torch.Generator().manual_seed(3)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    rotation = rotation * torch.linalg.det(rotation)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = 2.3 * rotation
    matrix[:3, 3] = torch.tensor([4.0, -1.0, 0.7])
    return matrix.float()


def camera_at(position, size=48):
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor(position)
    intrinsics = torch.tensor([[1.2 * size, 0, size / 2], [0, 1.2 * size, size / 2], [0, 0, 1.0]])
    return Camera(c2w=c2w, K=intrinsics, width=size, height=size)


def scene_with(cameras, source_from_scene):
    return Scene(
        root=Path("capture"),
        dataparser="made",
        frames=[
            Frame(name=str(i), camera=c, image_path=Path("none")) for i, c in enumerate(cameras)
        ],
        train_indices=list(range(len(cameras))),
        test_indices=[],
        split_rule="none",
        source_from_scene=source_from_scene,
    )


def teacher_of(splats, source_from_scene=None, path=Path("teacher")):
    home = torch.eye(4) if source_from_scene is None else source_from_scene
    return OpenedScene(
        path=path, representation=splats, cameras=SceneCameras(source_from_scene=home)
    )


def assert_lines_up(teacher, scene, camera):
    """The teacher, moved into the scene, looks from ``camera`` (of the scene) as it does itself
    from where that camera stands in its own coordinates."""
    there = torch.linalg.inv(teacher.source_from_scene.double()) @ scene.source_from_scene.double()
    (own,) = (moved.float32() for moved in in_frame([camera], there))
    with torch.no_grad():
        got = teacher.in_frame(scene.source_from_scene).render(camera).rgb
        want = teacher.representation.render(own).rgb
    assert want.max() > 0.2
    with torch.no_grad():  # it does matter where the teacher is
        assert (teacher.representation.render(camera).rgb - want).abs().max() > 0.1
    # float32 positions, matrices and harmonics turned: a thousandth of white.
    torch.testing.assert_close(got, want, rtol=0, atol=2e-3)


@pytest.mark.parametrize("antialiased", [False, True])
def test_a_file_lines_up_with_a_capture_in_a_frame_of_its_own(antialiased):
    inside = GaussianSplats.of(random_cloud(spread=0.8)).splats()
    # In the source frame, so that the scene's camera sees it around the scene's origin.
    cloud = inside.transformed(similarity().double().numpy())
    if antialiased:  # thin, so that the filter matters
        cloud = replace(cloud, log_scales=cloud.log_scales - 1.5, antialiased=True)
    splats = GaussianSplats.of(cloud)
    camera = camera_at([0.3, -0.2, 5.0])
    scene = scene_with([camera], similarity())
    assert_lines_up(teacher_of(splats), scene, camera)


def test_a_run_in_one_frame_lines_up_with_a_capture_in_another():
    camera = camera_at([0.0, 0.1, 5.0])
    own = torch.diag(torch.tensor([0.5, 0.5, 0.5, 1.0]))
    own[:3, 3] = torch.tensor([0.1, 0.2, -0.3])
    teacher = teacher_of(GaussianSplats.of(random_cloud(spread=4.0)), own)
    other = torch.eye(4)
    other[:3, 3] = torch.tensor([0.0, 0.0, 0.2])
    assert_lines_up(teacher, scene_with([camera], other), camera)


def test_a_teacher_in_the_captures_own_frame_is_left_as_it_is():
    splats = GaussianSplats.of(random_cloud())
    camera = camera_at([0.0, 0.0, 5.0])
    scene = scene_with([camera], similarity())
    assert teacher_of(splats, similarity()).in_frame(scene.source_from_scene) is splats


class Fog(Representation):
    """A scene that is not made of splats."""

    def render(self, camera, *, background=None, want=RGB):
        raise AssertionError("is not rendered")

    def parameter_groups(self):
        return []

    def plain_data(self):
        return {}

    @classmethod
    def from_saved(cls, tensors, plain):
        return cls()


def test_what_is_not_made_of_splats_cannot_move_nor_be_looked_around():
    fog = teacher_of(Fog(), path=Path("fog"))
    with pytest.raises(UsageError, match=r"fog: .*only splats can be moved"):
        fog.in_frame(similarity())
    with pytest.raises(DataError, match="fog: has no cameras"):
        rendered_capture(fog)


# What is no teacher


def test_a_missing_teacher_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.ply: the teacher was not found"):
        load_teacher(tmp_path / "nowhere.ply")


def test_a_file_or_folder_that_is_neither_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path / "notes.txt", tmp_path):
        with pytest.raises(DataError, match="nor a run folder|not a run folder"):
            load_teacher(path)


def test_splat_files_that_only_their_name_tells_teach_too(tmp_path):
    """.splat files have no first bytes that tell them."""
    from scene4d.formats.registry import write_splats

    write_splats(tmp_path / "scene.splat", random_cloud())
    assert load_teacher(tmp_path / "scene.splat").representation.num_gaussians == 60


@pytest.mark.parametrize("antialiased", [False, True])
def test_a_bundle_teaches_with_or_without_antialiasing_as_it_says(antialiased, tmp_path):
    cloud = replace(random_cloud(), antialiased=antialiased)
    write_splats_bundle(tmp_path / "scene.s4d", cloud)
    assert load_teacher(tmp_path / "scene.s4d").representation.antialiased is antialiased


def test_a_file_without_splats_is_refused_before_training(tmp_path):
    write_ply(tmp_path / "empty.ply", random_cloud(0))
    with pytest.raises(DataError, match="no splats"):
        start(QUICK, options(tmp_path / "out", teacher=tmp_path / "empty.ply"))
    assert not list((tmp_path / "out").glob("**/config.toml"))


def test_one_splat_is_seen_from_all_sides(tmp_path):
    write_ply(tmp_path / "one.ply", random_cloud(1))
    _, images = rendered_capture(load_teacher(tmp_path / "one.ply"))
    outside = [images.view(i) for i in range(1, 24, 5)]
    for view in outside:
        assert view.alpha.max() > 0.1
        assert view.alpha[:3].max() < 0.5 * view.alpha.max()  # it does not fill the picture
    run = start(QUICK, options(tmp_path / "out", teacher=tmp_path / "one.ply"))
    assert load_run(run).representation.num_gaussians == 1


def test_load_capture_without_photographs_gives_the_renders(ply):
    scene, images = load_capture(TrainOptions(teacher=ply))
    assert not scene.photographed
    assert images.view(0).alpha is not None


def test_a_teachers_gaussians_are_where_splats_start(ply):
    scene, _ = load_capture(TrainOptions(teacher=ply))
    placed = load_teacher(ply).in_frame(scene.source_from_scene)
    task = Task(world=World.of(scene), capture=scene, teacher=placed)
    found = SplatMethod(sh_degree=1).build(task, generator=torch.Generator())
    assert isinstance(found, GaussianSplats)
    home = found.splats().transformed(scene.source_from_scene.numpy())
    # there and back: two roundings of float32 in a scene of a few units
    np.testing.assert_allclose(home.means, random_cloud().means, rtol=0, atol=1e-5)
