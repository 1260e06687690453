"""process-data of pictures from one place: rotations, a guessed depth, and what is said of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from moving_room import card_at, moving_room_picture
from optional_packages import import_or_skip
from PIL import Image
from process_cases import PINHOLE, facts, frame_poses, picture, result_with, write_video
from room import FOCAL, HEIGHT, WIDTH, looking_at, room_cameras, room_depth, room_picture

from scene4d.data.frame import EXTENT, in_working_frame
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.data.options import SceneOptions
from scene4d.data.process import (
    DepthModelOptions,
    Diagnosis,
    ReliefOptions,
    VideoOptions,
    process_images,
    process_video,
)
from scene4d.data.process.depth_files import write_depths
from scene4d.data.process.depth_model import DepthModel, depths_of
from scene4d.data.process.diagnosis import diagnose
from scene4d.data.process.relief import network_depths
from scene4d.data.process.sfm import SfmCamera, SfmImage, SfmModel
from scene4d.data.process.turning import averaged_rotations, fitted_rotation
from scene4d.errors import DataError
from scene4d.files import read_json

pytestmark = pytest.mark.unchecked_shapes

import_or_skip("pycolmap")

FEW_FEATURES = replace(PINHOLE, max_num_features=500)
RELIEF = ReliefOptions(relief=True)
PLACE = np.array([2.6, 2.2, 1.6])


def turned(degrees: float) -> np.ndarray:
    """Camera-to-world at one place, turned sideways by so much."""
    angle = np.radians(225 + degrees)
    ahead = np.array([np.cos(angle), np.sin(angle), -0.2])
    return looking_at(PLACE, PLACE + ahead)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    """Between two rotations; by the chord, which has digits for small ones."""
    return math.degrees(2 * math.asin(min(1.0, float(np.linalg.norm(a - b)) / math.sqrt(8))))


# Rotations


def test_the_rotation_of_most_rays_is_found_among_wrong_matches() -> None:
    rng = np.random.default_rng(1)
    true = random_rotation(rng)
    a = rng.normal(size=(300, 3))
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b = a @ true.T
    b[:120] = np.roll(b[:120], 7, axis=0)  # what moves, in the same picture
    found, off = fitted_rotation(a, b, near=0.003)
    assert angle_deg(found, true) < 1e-4  # weights of wrong ones are 1e-9 of those of exact ones
    assert off < 1e-6
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)


def test_averaged_rotations_are_those_that_pairs_agree_on() -> None:
    rng = np.random.default_rng(2)
    true = {i: random_rotation(rng) for i in range(6)}
    pairs = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 0), (1, 3), (7, 8)]
    true |= {7: np.eye(3), 8: np.eye(3)}  # a group of their own
    relative = {(a, b): true[b] @ true[a].T for a, b in pairs}
    weights = dict.fromkeys(relative, 50.0)
    found = averaged_rotations(relative, weights)
    assert sorted(found) == [0, 1, 2, 3, 4]
    for a in found:
        for b in found:
            assert angle_deg(found[b] @ found[a].T, true[b] @ true[a].T) < 1e-5


def test_an_error_of_one_pair_is_shared_out_around_the_circle() -> None:
    """Three pictures, exact but for 3 degrees about one axis: each pair takes a third of it."""
    c, s = np.cos(np.radians(3)), np.sin(np.radians(3))
    off = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    relative = {(0, 1): np.eye(3), (1, 2): np.eye(3), (0, 2): off}
    found = averaged_rotations(relative, dict.fromkeys(relative, 1.0))
    for (a, b), measured in relative.items():
        # chordal and angular means differ by the third power of the angle, 1e-4
        assert angle_deg(found[b] @ found[a].T, measured) == pytest.approx(1.0, abs=0.01)


# From pictures


@pytest.fixture(scope="module")
def on_a_stand(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Diagnosis, list[np.ndarray]]:
    """A card that moves before a camera on a stand; with the truth: where the card is."""
    import_or_skip("cv2")
    folder = tmp_path_factory.mktemp("stand")
    made = [moving_room_picture(room_cameras(3)[1], card_at(i / 40)) for i in range(6)]
    write_video(folder / "still.mp4", [p for p, _ in made])
    diagnosis = process_video(
        folder / "still.mp4", folder / "out", video=VideoOptions(moving=True),
        sfm=FEW_FEATURES, relief=RELIEF,
    )  # fmt: skip
    return folder / "out", diagnosis, [card for _, card in made]


def test_a_camera_on_a_stand_gives_a_flat_relief(on_a_stand) -> None:
    output, _, cards = on_a_stand
    names = {p.name for p in output.iterdir()}
    assert names == {
        "images", "dynamic", "depth", "transforms.json", "sparse_pc.ply", "diagnosis.json"
    }  # fmt: skip
    _, poses = frame_poses(output)
    assert np.ptp(poses, axis=0).max() == 0
    scene = read_scene(output, SceneOptions(test_every=0))
    images = ImageCache(scene)
    for index, frame in enumerate(scene.frames):
        view = images.view(index)
        card = cards[round(10 * float(frame.camera.time))]
        near = (view.depth - 0.9).abs() < 1e-6  # float32 of 16-bit steps
        assert bool((near | ((view.depth - 1).abs() < 1e-6)).all())
        assert float(near[torch.from_numpy(card)].float().mean()) > 0.9
        assert float(near[torch.from_numpy(~card)].float().mean()) < 0.1  # masks are grown
    camera = scene.frames[0].camera
    depth = -(scene.points.xyz.double() - camera.position) @ camera.c2w[:3, 2].double()
    torch.testing.assert_close(depth, torch.ones_like(depth), rtol=0, atol=1e-6)


def test_what_can_be_had_is_said(on_a_stand) -> None:
    output, diagnosis, _ = on_a_stand
    assert diagnosis.verdict == "poor" and diagnosis.num_registered == 6
    text = diagnosis.text()
    assert "stands still" in diagnosis.reason and "a relief" in diagnosis.reason
    assert "depth is a plane" in text and "--depth-model" in text
    assert "a guess" in text and "lengths are arbitrary" in text
    assert "train: scene4d train deformable" in text
    assert "walking around" not in text and "inconsistent" not in text
    assert read_json(output / "diagnosis.json")["relief"]["turn_deg"] == 0


def test_a_relief_has_the_usual_size_in_training(on_a_stand) -> None:
    """Rates and the near plane are shares of the extent, which the camera's travel does not say."""
    scene = in_working_frame(read_scene(on_a_stand[0], SceneOptions(test_every=0)))
    assert scene.extent == pytest.approx(EXTENT, rel=1e-5)


def test_a_camera_that_only_turns_is_found_with_its_lens(tmp_path: Path) -> None:
    """Photos, which have no time: their rotations, and the focal length that these tell."""
    photos = tmp_path / "photos"
    photos.mkdir()
    true = [turned(d) for d in np.linspace(-18, 18, 7)]
    for i, c2w in enumerate(true):
        room_picture(c2w).save(photos / f"{i}.png")
    found = process_images(photos, tmp_path / "out", sfm=FEW_FEATURES, relief=RELIEF)
    assert found.num_registered == 7 and "only turns" in found.reason
    assert found.relief.focal_from == "turning"
    # steps of the search are 5 %; COLMAP's guess is 384 px, off by 28 %
    assert found.relief.focal_px == pytest.approx(FOCAL, rel=0.05)
    assert found.relief.turn_deg == pytest.approx(
        angle_deg(true[0][:3, :3], true[-1][:3, :3]), rel=0.08
    )
    _, poses = frame_poses(tmp_path / "out")
    assert np.ptp(poses[:, :3, 3], axis=0).max() == 0
    for i in range(1, 7):
        turn = poses[0, :3, :3].T @ poses[i, :3, :3]
        # of up to 36 degrees, with a focal length that is 5 % off at most
        assert angle_deg(turn, true[0][:3, :3].T @ true[i][:3, :3]) < 2.5
    assert not (tmp_path / "out" / "dynamic").exists()


def test_pictures_that_no_rotation_explains_are_not_put_in_one_place(tmp_path: Path) -> None:
    """A camera that goes around the room, though a relief would do, too."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, c2w in enumerate(room_cameras(12)[2:9]):
        room_picture(c2w).save(photos / f"{i}.png")
    found = process_images(photos, tmp_path / "out", sfm=FEW_FEATURES, relief=RELIEF)
    assert found.relief is None and found.spread.travel_over_depth > 0.2
    assert not (tmp_path / "out" / "depth").exists()


@pytest.mark.parametrize("source", ["photos", "video", "moving video"])
def test_who_stayed_in_one_place_is_told_of_the_option(
    source: Literal["photos", "video", "moving video"],
) -> None:
    pictures = [picture(name) for name in "abc"]
    for pair in (facts(500, displacement=0.001), facts(500, turned_only=True)):
        result = replace(result_with(None), pairs={("a", "b"): pair})
        text = diagnose(pictures, result, source=source).text()
        assert "a relief" in text and "--relief" in text
    apart = replace(result_with(None), pairs={("a", "b"): facts(500)})
    assert "--relief" not in diagnose(pictures, apart, source=source).text()


# Depth by a network


@dataclass
class TrueDepth:
    """Says the room's depth, each time times another factor, and what a card adds to it."""

    poses: dict[str, np.ndarray]
    output: Literal["depth"] = "depth"

    def __call__(self, name: str) -> np.ndarray:
        factor = 0.5 + 0.25 * (int(name[0]) % 4)
        return (factor * room_depth(self.poses[name])[1::2, 1::2]).astype(np.float32)


def turned_model(poses: dict[str, np.ndarray]) -> SfmModel:
    flip = np.diag([1.0, -1, -1])
    images = []
    for name, c2w in poses.items():
        viewmat = np.eye(4)
        viewmat[:3, :3] = flip @ c2w[:3, :3].T
        empty = np.empty(0, dtype=np.int64)
        images.append(
            SfmImage(
                name=name, camera_id=1, viewmat=viewmat, point_indices=empty, xy=np.empty((0, 2))
            )
        )
    params = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2}
    camera = SfmCamera(model="PINHOLE", width=WIDTH, height=HEIGHT, params=params)
    none = np.empty(0)
    return SfmModel(
        cameras={1: camera}, images=images, xyz=np.empty((0, 3)), rgb=np.empty((0, 3), np.uint8),
        errors_px=none, track_lengths=none,
    )  # fmt: skip


def test_maps_of_a_network_are_brought_to_one_scale() -> None:
    """Of a room in which nothing moves, whatever factor each picture's map has."""
    poses = {f"{i}.png": turned(6.0 * i - 12) for i in range(5)}
    model = turned_model(poses)
    found = network_depths(model, {}, TrueDepth(poses), lambda name: name)  # type: ignore[arg-type]
    true = {name: room_depth(c2w) for name, c2w in poses.items()}
    middle = np.median(np.concatenate([d[::4, ::4].ravel() for d in true.values()]))
    for name, depth in found.items():
        assert depth.shape == (HEIGHT, WIDTH)
        off = np.abs(depth * middle / true[name] - 1)
        # maps of half the size, and nearest pixels of other pictures
        assert np.median(off) < 0.01 and np.quantile(off, 0.95) < 0.04


def test_what_moves_has_its_own_depth_and_is_never_behind_what_stands_still() -> None:
    poses = {f"{i}.png": turned(0) for i in range(5)}
    model, network = turned_model(poses), TrueDepth(poses)
    masks = {name: np.zeros((HEIGHT, WIDTH), dtype=bool) for name in poses}
    near, far = np.s_[40:80, 40:80], np.s_[40:80, 200:240]
    masks["2.png"][near] = masks["2.png"][far] = True
    true = room_depth(turned(0))

    def seen(name: str) -> np.ndarray:
        depth = network(name)
        if name == "2.png":
            depth[20:40, 20:40] *= 0.5
            depth[20:40, 100:120] *= 2
        return depth

    seen.output = "depth"  # type: ignore[attr-defined]
    found = network_depths(model, masks, seen, lambda name: name)  # type: ignore[arg-type]
    ratio = found["2.png"] / true
    ratio /= np.median(ratio)
    # away from the edges, over which maps of half the size are interpolated
    assert ratio[46:74, 46:74] == pytest.approx(0.5, rel=0.03)
    assert ratio[46:74, 206:234] == pytest.approx(1.0, rel=0.03)
    still = found["0.png"] / true
    np.testing.assert_allclose(still / np.median(still), 1, rtol=0.04)


def test_disparities_become_depths_that_are_ten_times_as_far_at_most() -> None:
    disparity = np.linspace(3, 7, 600, dtype=np.float32).reshape(20, 30)
    (depth,) = depths_of([disparity], "disparity")
    assert (np.diff(depth.ravel()) <= 0).all()
    low, high = np.percentile(depth, (2, 98))
    assert high / low == pytest.approx(10, rel=0.02)
    (plane,) = depths_of([np.full((4, 4), 2.0, np.float32)], "disparity")
    assert np.ptp(plane) == 0 and plane.min() > 0


def test_files_hold_depths_to_half_a_step(tmp_path: Path) -> None:
    depth = np.linspace(0.2, 9.0, 64, dtype=np.float32).reshape(8, 8)
    depth[0, 0] = 0  # not known
    files = write_depths(tmp_path / "depth", {"a.jpg": depth}, unit=1e-4)
    assert files.names == {"a.jpg": "depth/a.png"}
    stored = np.asarray(Image.open(tmp_path / files.names["a.jpg"])).astype(float) * 1e-4
    assert stored[0, 0] == 0
    assert np.abs(stored - np.minimum(depth, 6.5535)).max() <= 0.5001e-4 + 1e-6  # float32


def grey_network(path: Path, shape: tuple[int | str, ...] = (1, 3, 8, 12)) -> Path:
    """A network that says the mean over the channels."""
    onnx = import_or_skip("onnx")
    import_or_skip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node = helper.make_node("ReduceMean", ["image"], ["depth"], axes=[1], keepdims=1)
    graph = helper.make_graph(
        [node], "grey", [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("depth", kind, None)],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_a_network_is_given_the_normalised_picture(tmp_path: Path) -> None:
    grey_network(tmp_path / "grey.onnx")
    network = DepthModel(tmp_path)  # the one file of the folder
    found = network(Image.new("RGB", (120, 80), (255, 0, 128)))
    expected = np.mean([(1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225])
    assert found.shape == (8, 12)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    free = DepthModel(grey_network(tmp_path / "free.onnx", (1, 3, "h", "w")))
    assert free(Image.new("RGB", (640, 480))).shape == (392, 518)  # multiples of 14


def test_what_is_no_network_for_depth_is_told_before_any_work(tmp_path: Path) -> None:
    import_or_skip("onnxruntime")
    (tmp_path / "bad.onnx").write_bytes(b"no network")
    (tmp_path / "empty").mkdir()
    wrong = grey_network(tmp_path / "wrong.onnx", (1, 5, 8, 12))
    for path, told in (
        (tmp_path / "none.onnx", "not found"),
        (tmp_path / "empty", "0 ONNX files"),
        (tmp_path / "bad.onnx", "cannot be loaded"),
        (wrong, "not one picture"),
    ):
        with pytest.raises(DataError, match=told):
            DepthModel(path)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match="not found"):
        process_video(
            tmp_path / "a.mp4", tmp_path / "out",
            depth=DepthModelOptions(depth_model=tmp_path / "none.onnx"),
        )  # fmt: skip
