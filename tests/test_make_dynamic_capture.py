"""The generator of dynamic captures against closed forms: a model of one square, made here."""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmark_scripts import benchmark
from PIL import Image

from scene4d.cameras.rays import project, unproject
from scene4d.data.images import ImageCache
from scene4d.data.load import read_scene
from scene4d.evaluation.point_tracks import read_point_tracks

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from dynamic_capture.animated_gltf import load_model
from dynamic_capture.raster import Pinhole, rasterise
from dynamic_capture.recipe import Fixed, Moving, Recipe, read_recipe
from dynamic_capture.scene import Circle, Room, Thing, _pose, build
from make_dynamic_capture import make

ROOT = Path(__file__).resolve().parents[1]


class Writer:
    """A .gltf with one buffer."""

    def __init__(self):
        self.data, self.views, self.accessors = b"", [], []

    def add(self, values, kind, component=5126):
        values = np.asarray(values, dtype={5126: "<f4", 5123: "<u2", 5121: "u1"}[component])
        self.data += b"\0" * (-len(self.data) % 4)
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": values.nbytes})
        self.data += values.tobytes()
        self.accessors.append({"bufferView": len(self.views) - 1, "componentType": component,
                               "count": len(values), "type": kind})  # fmt: skip
        return len(self.accessors) - 1

    def write(self, path, **rest):
        uri = "data:application/octet-stream;base64," + base64.b64encode(self.data).decode()
        path.write_text(json.dumps({
            "asset": {"version": "2.0"}, "accessors": self.accessors, "bufferViews": self.views,
            "buffers": [{"uri": uri, "byteLength": len(self.data)}], **rest,
        }))  # fmt: skip


SQUARE = np.array([(-0.5, 0, 0), (0.5, 0, 0), (0.5, 1, 0), (-0.5, 1, 0)])


def square(path):
    """Slides 1 along x in the clip 'slide'; bends at two joints in 'bend'; grows in 'grow'."""
    w = Writer()
    mesh = {"attributes": {"POSITION": w.add(SQUARE, "VEC3"),
                           "JOINTS_0": w.add([[0, 1, 0, 0]] * 4, "VEC4", 5121),
                           "WEIGHTS_0": w.add([[1, 0, 0, 0]] * 2 + [[0.25, 0.75, 0, 0]] * 2,
                                              "VEC4")},
            "indices": w.add([[0], [1], [2], [0], [2], [3]], "SCALAR", 5123),
            "material": 0,
            "targets": [{"POSITION": w.add(SQUARE * [0, 1, 0], "VEC3")}]}  # fmt: skip
    skin = {"joints": [1, 2], "inverseBindMatrices": w.add([np.eye(4).ravel()] * 2, "MAT4")}
    times = w.add([[0], [2]], "SCALAR")
    half_turn = [[0, 0, 0, 1], [0, 0, 1, 0]]

    def clip(name, node, way, values, kind):
        sampler = {"input": times, "output": w.add(values, kind)}
        return {"name": name, "samplers": [sampler],
                "channels": [{"sampler": 0, "target": {"node": node, "path": way}}]}  # fmt: skip

    w.write(
        path,
        nodes=[{"mesh": 0, "skin": 0, "name": "square"}, {"children": [2], "name": "root"},
               {"name": "tip"}],
        meshes=[{"primitives": [mesh], "weights": [0.0]}],
        skins=[skin],
        materials=[{"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}}],
        animations=[clip("slide", 1, "translation", [[0, 0, 0], [1, 0, 0]], "VEC3"),
                    clip("bend", 2, "rotation", half_turn, "VEC4"),
                    clip("grow", 0, "weights", [[0], [1]], "SCALAR")],
    )  # fmt: skip


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    square(folder / "square.gltf")
    return folder


def test_nodes_skins_and_morphs_move_as_they_say(models):
    model = load_model(models / "square.gltf")
    assert model.duration("slide") == 2.0
    still = model.at(None, 0.0)[0][0]
    assert np.allclose(still, SQUARE)
    assert np.allclose(model.at("slide", 0.5)[0][0], SQUARE + np.array([0.25, 0, 0]))
    assert np.allclose(
        model.at("slide", 9.0)[0][0], SQUARE + np.array([1, 0, 0])
    )  # the last value holds
    # after 1 of 2 s the tip is turned by 90 degrees: (x, y) to (-y, x), and counts 3/4 above
    turned = SQUARE @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    expected = np.where([[True], [True], [False], [False]], SQUARE, 0.25 * SQUARE + 0.75 * turned)
    assert np.allclose(model.at("bend", 1.0)[0][0], expected, atol=1e-6)
    assert np.allclose(model.at("grow", 1.0)[0][0], SQUARE * [1, 1.5, 1])
    assert np.allclose(model.parts[0].color, [1, 0, 0])


def test_what_cannot_be_read_is_refused(models):
    path = models / "square.gltf"
    with pytest.raises(SystemExit, match="no clip 'fly'"):
        load_model(path).at("fly", 0.0)
    with pytest.raises(SystemExit, match="no node 'hat'"):
        load_model(path, leave_out=["hat"])
    table = json.loads(path.read_text())
    table["animations"][0]["samplers"][0]["interpolation"] = "CUBICSPLINE"
    (models / "cubic.gltf").write_text(json.dumps(table))
    with pytest.raises(SystemExit, match="CUBICSPLINE"):
        load_model(models / "cubic.gltf")
    (models / "bad.toml").write_text("frames = 3\nthing = 1\n")
    with pytest.raises(SystemExit, match="no 'thing'"):
        read_recipe(models / "bad.toml")


def test_a_plane_is_drawn_perspective_correct_also_across_the_camera():
    camera = Pinhole(world_to_camera=np.eye(4), focal=40.0, width=64, height=48)
    # the floor y = 1 from behind the camera to far away, whose depth at row v is 40 / (v - 24)
    floor = np.array([(-99, 1, -9), (99, 1, -9), (99, 1, 900), (-99, 1, 900.0)])
    seen = rasterise(floor, np.array([[0, 1, 2], [0, 2, 3]]), camera)
    rows = np.arange(48) + 0.5 - 24
    with np.errstate(divide="ignore"):
        depth = np.where(rows > 0, 40 / rows, np.inf)
    assert (seen.face[:24] == -1).all() and np.isinf(seen.depth[:24]).all()
    known = seen.face >= 0
    assert known[26:].all()
    assert np.allclose(seen.depth[known], np.broadcast_to(depth[:, None], known.shape)[known])
    # barycentric coordinates give the very point of the plane
    corners = floor[np.array([[0, 1, 2], [0, 2, 3]])][seen.face[known]]
    points = np.einsum("nk,nkd->nd", seen.weights[known].astype(np.float64), corners)
    # of 900 units in float32
    assert np.allclose(points[:, 1], 1.0) and np.allclose(
        points[:, 2], seen.depth[known], atol=2e-3
    )


def test_a_model_on_a_circle_looks_where_it_goes():
    thing = Thing(file="", circle=Circle(radius=2.0, seconds=4.0, centre=(1.0, 0.0)))
    for time in (0.0, 0.7, 3.1):
        step = 1e-5
        speed = (_pose(thing, time + step) - _pose(thing, time))[:3, 3] / step
        ahead = _pose(thing, time)[:3, :3] @ [0, 0, 1]
        assert np.allclose(speed / np.linalg.norm(speed), ahead, atol=1e-4)
    assert np.allclose(_pose(thing, 1.0)[:3, 3], [3, 0, 0])


def recipe(**more):
    sliding = Thing(file="square.gltf", clip="slide", loop=False, at=(-0.6, 0.2, 0.0))
    return Recipe(
        things=(sliding,), room=Room(width=4, height=2.5, depth=3, texels=48), frames=8, fps=4,
        width=48, height=36, focal=45.0, samples=3, tracks=20,
        moving=Moving(target=(0, 0.8, 0), radius=2.6, height=1.2),
        fixed_test=(Fixed(eye=(-0.9, 1.4, 2.4)), Fixed(eye=(1.0, 1.0, 2.5))), **more,
    )  # fmt: skip


def test_a_capture_agrees_with_itself(models, tmp_path):
    make(recipe(), models, tmp_path / "out")
    scene = read_scene(tmp_path / "out")
    assert len(scene.train_indices) == len(scene.test_indices) == 8
    images = ImageCache(scene)
    view = images.view(scene.train_indices[3])
    # the square stands in the plane z = 0; millimetres are rounded, float32 poses have 1e-6
    shown = unproject(view.camera.float32(), view.depth)
    moving = np.asarray(Image.open(scene.frames[scene.train_indices[3]].moving_path))
    assert 0.02 < moving.mean() < 0.3
    assert np.abs(shown[..., 2].numpy()[moving]).max() < 1e-3
    assert (np.abs(shown[..., 2].numpy()[~moving]) > 0.02).mean() > 0.98  # no wall is there
    # at this time it has slid to its place
    slid = 3 / 4 / 2
    left, right = -0.6 + slid - 0.5, -0.6 + slid + 0.5
    xs = shown[..., 0].numpy()[moving]
    assert left - 1e-3 <= xs.min() and xs.max() <= right + 1e-3
    red = view.rgb.numpy()[moving]
    assert (red[:, 0] > 3 * red[:, 1]).mean() > 0.8  # less at its edges, which are mixed


def test_tracks_stick_to_what_moves(models, tmp_path):
    make(recipe(), models, tmp_path / "out")
    scene = read_scene(tmp_path / "out")
    tracks = read_point_tracks(scene)
    assert tracks.points.shape == (8, 20, 3)
    steps = tracks.points.diff(dim=0).numpy()
    assert np.allclose(steps, [1 / 8, 0, 0], atol=1e-5)  # 1 in 2 s at 4 a second
    assert tracks.visible.float().mean() > 0.9
    stored = np.load(tmp_path / "out" / "tracks.npz")
    camera = scene.frames[tracks.frames[5]].camera
    pixels, _ = project(camera.float32(), tracks.points[5])
    assert np.allclose(pixels.numpy(), stored["pixels"][5], atol=1e-3)


def test_covisible_masks_follow_material_points(models, tmp_path):
    # all cameras in one place: everything is covisible but what the square hides at its time and
    # shows in too few others; with training cameras that look elsewhere nothing is
    same = Fixed(eye=(0.0, 1.0, 2.6), target=(0, 0.8, 0))
    made = recipe()
    alone = Recipe(**{**vars(made), "moving": None, "fixed_train": (same,), "fixed_test": (same,)})
    make(alone, models, tmp_path / "same")
    masks = [np.asarray(Image.open(p)) for p in sorted((tmp_path / "same/covisible").glob("*"))]
    assert len(masks) == 8 and np.mean(masks) > 0.8
    # the square itself is seen at all times, wherever it is; the rest are pixels at its edges,
    # whose nearest pixel elsewhere shows the wall behind: a tenth of a square this small
    for path, mask in zip(sorted((tmp_path / "same/dynamic").glob("test*")), masks, strict=True):
        assert mask[np.asarray(Image.open(path))].mean() > 0.88
    away = Fixed(eye=(0.0, 1.0, 2.6), target=(0, 0.8, 9.0))
    make(Recipe(**{**vars(alone), "fixed_train": (away,)}), models, tmp_path / "away")
    assert not any(np.asarray(Image.open(p)).any() for p in (tmp_path / "away/covisible").glob("*"))


def test_several_cameras_train_at_all_times(models, tmp_path):
    made = recipe()
    cameras = (Fixed(eye=(-0.9, 1.4, 2.4)), Fixed(eye=(1.0, 1.0, 2.5)))
    rig = Recipe(**{**vars(made), "moving": None, "fixed_train": cameras, "fixed_test": ()})
    make(rig, models, tmp_path / "rig")
    table = json.loads((tmp_path / "rig/transforms.json").read_text())
    assert len(table["frames"]) == 16
    assert {f["camera"] for f in table["frames"]} == {0, 1}
    assert sorted(f["time"] for f in table["frames"])[::2] == pytest.approx(np.linspace(0, 1, 8))
    assert not (tmp_path / "rig/tracks.npz").exists()


def test_what_the_moving_camera_alone_shows_can_tell_what_is_covisible(models, tmp_path):
    alone = recipe()
    # a camera beside it that sees the wall from where the moving one looks past it
    beside = {**vars(alone), "fixed_train": (Fixed(eye=(0.4, 0.9, 2.0), target=(0.4, 0.5, 0.0)),)}
    make(alone, models, tmp_path / "alone")
    for name in ("all", "moving"):
        make(Recipe(**{**beside, "covisible": name}), models, tmp_path / name)
    names = [p.name for p in (tmp_path / "alone/covisible").glob("*")]
    masks = {
        folder: [(tmp_path / folder / "covisible" / name).read_bytes() for name in names]
        for folder in ("alone", "moving", "all")
    }
    assert names and masks["moving"] == masks["alone"] != masks["all"]
    # the benchmark's other capture: the held-out pictures are the same, the moving camera trains
    path = benchmark("dynamic_cameras").moving_alone(tmp_path / "moving")
    both, one = read_scene(tmp_path / "moving"), read_scene(path)
    shown = [[scene.frames[i].name for i in scene.test_indices] for scene in (both, one)]
    assert shown[0] == shown[1]
    assert len(both.train_indices) == 2 * len(one.train_indices)


def test_a_recipe_may_tell_its_differences_from_another(tmp_path):
    (tmp_path / "first.toml").write_text('frames = 9\nwidth = 64\n[[things]]\nfile = "a.glb"\n')
    (tmp_path / "second.toml").write_text('like = "first.toml"\nwidth = 32\n')
    first, second = (read_recipe(tmp_path / f"{name}.toml") for name in ("first", "second"))
    assert (second.frames, second.width) == (9, 32)
    assert second.things == first.things


def test_the_recipes_that_are_kept_can_be_read():
    for path in (ROOT / "scripts/captures").glob("*.toml"):
        assert read_recipe(path).frames > 1


def test_a_room_is_drawn_the_same_each_time():
    first, again = (build((), Room(seed=3, texels=32), Path()) for _ in range(2))
    assert np.array_equal(first.surfaces.textures[0], again.surfaces.textures[0])
