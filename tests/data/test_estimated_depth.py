"""Depth by a network: its fit to the points of structure from motion, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moving_planes import CARD, HEIGHT, WALL, WIDTH, Planes, planes
from optional_packages import import_or_skip
from PIL import Image
from process_cases import (
    MOTIONS,
    PINHOLE,
    frame_poses,
    model_seen_from,
    moving,
    picture,
    result_with,
)
from room import room_cameras, room_depth, room_picture

from scene4d.data.images import ImageCache
from scene4d.data.load import load_scene
from scene4d.data.moving import moving_masks
from scene4d.data.options import SceneOptions
from scene4d.data.process import DepthModelOptions, pipeline, process_images
from scene4d.data.process.depth_fit import fitted_depth, held_out_errors
from scene4d.data.process.depth_model import DepthOutput
from scene4d.data.process.diagnosis import diagnose
from scene4d.data.process.estimated_depth import EstimatedDepths, estimated_depths
from scene4d.data.process.sfm import SfmResult
from scene4d.data.scene import Scene
from scene4d.errors import DataError
from scene4d.files import read_json
from scene4d.methods.deformable.depths import depths_of
from scene4d.training.objectives.depth import shape_difference

pytestmark = pytest.mark.unchecked_shapes

SCALE, SHIFT = 0.37, 0.2
"""Of a network's values m: z or 1/z is SCALE m + SHIFT."""
OUTPUTS: tuple[DepthOutput, ...] = ("depth", "disparity")


def said_of(depth: np.ndarray, output: DepthOutput) -> np.ndarray:
    """What a network says that is right up to its scale and shift."""
    return ((depth if output == "depth" else 1 / depth) - SHIFT) / SCALE


def some_depths(count: int, *, wrong: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """True depths, and those of points of which a share is anywhere."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(1.0, 4.0, count)
    points = true.copy()
    points[: round(wrong * count)] = rng.uniform(1.0, 12.0, round(wrong * count))
    return true, points


# The fit


@pytest.mark.parametrize("output", OUTPUTS)
def test_scale_and_shift_are_found_among_wrong_points(output: DepthOutput) -> None:
    true, points = some_depths(200, wrong=0.3)
    fit = fitted_depth(said_of(true, output), points, output)
    assert fit is not None
    # Cauchy's weights of wrong points are the square of rounding over their error
    assert fit.scale == pytest.approx(SCALE, rel=1e-7)
    assert fit.shift == pytest.approx(SHIFT, rel=1e-6)
    within = np.linspace(fit.nearest * 1.01, fit.farthest * 0.99, 50)
    np.testing.assert_allclose(fit(said_of(within, output)), within, rtol=1e-5)
    beyond = np.array([fit.nearest / 1.1, fit.farthest * 1.1])
    assert (fit(said_of(beyond, output)) == 0).all()
    error, flat = held_out_errors(said_of(true, output), points, output)
    assert error < 1e-6 and flat > 0.2


@pytest.mark.parametrize("output", OUTPUTS)
def test_noise_is_averaged_and_its_size_is_said(output: DepthOutput) -> None:
    true, points = some_depths(400, wrong=0.3)
    noisy = true * (1 + 0.05 * np.random.default_rng(1).normal(size=400))
    said = said_of(noisy, output)
    fit = fitted_depth(said, points, output)
    assert fit is not None
    # two numbers of 280 points that are off by 5 % each: 0.3 %, twice that at the ends; and the
    # network's own noise flattens the slope, by its variance over that of the depths: 2 %
    np.testing.assert_allclose(fit(said_of(np.array([1.2, 2.0, 3.8]), output)), [1.2, 2, 3.8],
                               rtol=0.03)  # fmt: skip
    # the median over all, of which 30 % are anywhere: the 5/7 quantile of |N(0, 5 %)| is 1.07
    # deviations, 5.3 %; 400 points know it to a tenth of that, and some wrong ones are near
    assert held_out_errors(said, points, output)[0] == pytest.approx(0.053, abs=0.015)


def test_a_map_that_says_nothing_is_no_better_than_one_depth() -> None:
    _, points = some_depths(300, wrong=0.0)
    noise = np.random.default_rng(3).normal(size=300)
    error, flat = held_out_errors(noise, points, "depth")
    assert error > 0.9 * flat


# Of pictures


class Network:
    """Says the same map of every picture; or fails."""

    path = Path("net.onnx")

    def __init__(self, said: np.ndarray | str, output: DepthOutput = "depth") -> None:
        self.said, self.output = said, output

    def __call__(self, picture: object) -> np.ndarray:
        if isinstance(self.said, str):
            raise DataError(self.said, where=self.path)
        return self.said.astype(np.float32)


def seen_by_one() -> tuple[SfmResult, np.ndarray]:
    """A picture of 80 points whose depths rise from left to right, and the true map."""
    model = model_seen_from(moving(MOTIONS["around"])[:1])
    rng = np.random.default_rng(0)
    camera = model.cameras[1]
    xy = rng.uniform(0.5, 1, (80, 2)) * (camera.width - 1, camera.height - 1)
    z = 2 + 2 * xy[:, 0] / camera.width
    image = replace(model.images[0], viewmat=np.eye(4), xy=xy, point_indices=np.arange(80))
    xyz = np.column_stack([np.zeros((80, 2)), z])
    model = replace(model, images=[image], xyz=xyz)
    columns = (np.arange(64) + 0.5) / 64
    return result_with(model), np.tile(2 + 2 * columns, (48, 1))


def estimated(result: SfmResult, network: Any, masks: Any = None) -> EstimatedDepths:
    return estimated_depths(result, masks or {}, network, lambda name: name, lambda line: None)  # type: ignore[arg-type, return-value]


def test_a_map_is_brought_to_the_points_and_to_the_size_of_the_file() -> None:
    result, true = seen_by_one()
    found = estimated(result, Network(said_of(true, "disparity"), "disparity"))
    camera = result.model.cameras[1]
    (depth,) = found.depths.values()
    assert depth.shape == (camera.height, camera.width)
    expected = 2 + 2 * (np.arange(camera.width) + 0.5) / camera.width
    # the network's 64 columns are interpolated, in disparity, and its outermost ones repeated
    np.testing.assert_allclose(depth[10, 4:-4], expected[4:-4], rtol=1e-3)
    (facts,) = found.facts.pictures
    assert facts.points == 80 and facts.lacks is None and facts.relative_error < 1e-3


def test_points_on_what_moves_are_left_out() -> None:
    """Most of the points are, and they are all wrong."""
    result, true = seen_by_one()
    model, image = result.model, result.model.images[0]
    wrong = image.xy[:, 1] < np.quantile(image.xy[:, 1], 0.6)
    xyz = model.xyz.copy()
    xyz[wrong, 2] *= 0.5
    result = result_with(replace(model, xyz=xyz))
    mask = np.zeros((model.cameras[1].height, model.cameras[1].width), dtype=bool)
    rows = np.floor(image.xy[wrong, 1]).astype(int)
    mask[: rows.max() + 1] = True
    network = Network(said_of(true, "depth"))
    right = estimated(result, network, {image.name: mask})
    middle = right.depths[image.name][10, 160]
    assert middle == pytest.approx(true[10, 32], rel=1e-2)
    assert right.facts.pictures[0].points <= 0.4 * 80
    without = estimated(result, network)
    assert without.depths[image.name][10, 160] == pytest.approx(0.5 * middle, rel=1e-2)


@pytest.mark.parametrize(
    ("change", "said", "lacks", "words"),
    [
        (lambda r, t: (few(r, 19), said_of(t, "depth")), None, "few points", "fewer than 20"),
        (lambda r, t: (few(r, 0), said_of(t, "depth")), None, "few points", "fewer than 20"),
        (lambda r, t: (r, np.full_like(t, 3.0)), None, "one value", "one value"),
        (lambda r, t: (r, 1 / t), None, "reversed", "--depth-output disparity"),
        (lambda r, t: (r, np.random.default_rng(0).normal(size=t.shape)), None, "bad fit",
         "no better than one depth"),
        (lambda r, t: (r, "gives numbers that are not finite"), None, "no map", "not finite"),
    ],
)  # fmt: skip
def test_pictures_without_depth_say_why(
    change: Callable[[SfmResult, np.ndarray], tuple[SfmResult, Any]], said: None, lacks: str,
    words: str,
) -> None:  # fmt: skip
    result, network = change(*seen_by_one())
    found = estimated(result, Network(network))
    assert found.depths == {}
    assert found.facts.pictures[0].lacks == lacks
    told = found.facts.added_to(diagnose([picture("0.png")], seen_by_one()[0]))
    assert words in told.text() and told.depth is not None
    assert json.loads(json.dumps(told.as_json()))["depth"]["pictures"][0]["lacks"] == lacks


def few(result: SfmResult, count: int) -> SfmResult:
    image = result.model.images[0]
    image = replace(image, xy=image.xy[:count], point_indices=image.point_indices[:count])
    return replace(result, model=replace(result.model, images=[image]))


def test_a_network_of_numbers_that_are_not_finite_is_told(tmp_path: Path) -> None:
    onnx = import_or_skip("onnx")
    import_or_skip("onnxruntime")
    from scene4d.data.process.depth_model import DepthModel

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("Sub", ["grey", "grey"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["depth"]),
    ]
    graph = helper.make_graph(
        nodes, "nan", [helper.make_tensor_value_info("image", kind, (1, 3, 8, 12))],
        [helper.make_tensor_value_info("depth", kind, None)],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "nan.onnx")
    with pytest.raises(DataError, match="not finite"):
        DepthModel(tmp_path / "nan.onnx")(Image.new("RGB", (12, 8)))


# Through process-data


def test_estimated_depth_agrees_with_the_poses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_or_skip("pycolmap")
    photos = tmp_path / "photos"
    photos.mkdir()
    cameras = room_cameras(12)[2:9]
    for i, c2w in enumerate(cameras):
        room_picture(c2w).save(photos / f"{i}.png")
    order = iter(range(len(cameras)))  # pictures are asked for in the order of their names

    class Right(Network):
        def __call__(self, picture: object) -> np.ndarray:
            i = next(order)
            return (said_of(room_depth(cameras[i]), "depth") * (1 + i)).astype(np.float32)

    network = Right(np.zeros(0))
    monkeypatch.setattr(pipeline, "DepthModel", lambda path, output, threads: network)
    found = process_images(
        photos, tmp_path / "out", sfm=replace(PINHOLE, max_num_features=500),
        depth=DepthModelOptions(depth_model=tmp_path / "net.onnx"),
    )  # fmt: skip
    assert found.num_registered == 7
    assert "depth of 7 of 7 pictures by net.onnx" in found.text()
    meta = read_json(tmp_path / "out" / "transforms.json")
    assert meta["depth_kind"] == "estimated"
    scene = load_scene(tmp_path / "out", SceneOptions(test_every=0))
    assert not scene.measures_depth and all(f.depth_estimated for f in scene.frames)
    _, poses = frame_poses(tmp_path / "out")
    true = np.array(cameras)[:, :3, 3]
    size = [np.linalg.norm(p - p.mean(0), axis=1).mean() for p in (true, poses[:, :3, 3])]
    unit = scene.frames[0].depth_unit_m / meta["depth_unit_scale_factor"]
    for i in range(7):
        depth = ImageCache(scene).view(i).depth.numpy() / unit * size[0] / size[1]
        off = np.abs(depth / room_depth(cameras[i]) - 1)[depth > 0]
        assert (depth > 0).mean() > 0.95
        # the poses' scale is right to 1 %, points to 1 %
        assert np.median(off) < 0.02 and np.quantile(off, 0.95) < 0.04


# What becomes of it


def guessed(made: Planes) -> Scene:
    """The scene, its depth an estimate."""
    frames = [replace(frame, depth_estimated=True) for frame in made.scene.frames]
    return replace(made.scene, frames=frames)


def test_a_capture_says_that_its_depth_is_estimated(tmp_path: Path) -> None:
    frame = {"transform_matrix": np.eye(4).tolist(), "depth_file_path": "d.png"}
    Image.new("I;16", (8, 8), 1000).save(tmp_path / "d.png")
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    frames = [{**frame, "file_path": "a.png"}, {**frame, "file_path": "b.png"}]
    meta: dict[str, Any] = {"fl_x": 8, "w": 8, "h": 8, "frames": frames}

    def kinds() -> list[bool]:
        (tmp_path / "transforms.json").write_text(json.dumps(meta))
        scene = load_scene(tmp_path, SceneOptions(test_every=0))
        views = [ImageCache(scene).view(i) for i in range(2)]
        assert all(v.depth is not None for v in views)
        estimated = [v.measured_depth is None for v in views]
        assert estimated == [not f.has_measured_depth for f in scene.frames]
        assert scene.measures_depth == (not all(estimated))
        return estimated

    assert kinds() == [False, False]
    meta["depth_kind"] = "estimated"
    assert kinds() == [True, True]
    frames[1]["depth_kind"] = "measured"
    assert kinds() == [True, False]
    meta["depth_kind"] = "guessed"
    with pytest.raises(DataError, match=r"'measured' or 'estimated', not 'guessed'"):
        kinds()


def test_masks_of_what_moves_take_no_word_of_a_guess(tmp_path: Path) -> None:
    """Depth that is wrong at the left, which would make that move if it were measured."""
    import_or_skip("cv2")
    cameras = [(0.08 * i, 0.0) for i in range(6)]
    made = planes(tmp_path, cameras, [(0.1, 0.0)] * 6, depth=True)
    for i in range(6):
        depth = np.where(np.arange(WIDTH) < WIDTH // 4, 2.0, WALL) * np.ones((HEIGHT, 1))
        np.save(tmp_path / f"depth_{i:03d}.npy", depth.astype(np.float32))

    def share(scene: Scene) -> float:
        masks = moving_masks(scene, ImageCache(scene))
        return float(np.mean([float(mask.float().mean()) for mask in masks.values()]))

    assert share(made.scene) > 0.1
    assert share(guessed(made)) < 0.01


def test_what_moves_is_placed_by_a_guess_only_where_that_is_asked_for(tmp_path: Path) -> None:
    made = planes(tmp_path, [(0.0, 0.0)] * 3, [(0.1 * i, 0.0) for i in range(3)], depth=True)
    scene = guessed(made)
    images = ImageCache(scene)
    masks = {i: torch.from_numpy(card) for i, card in enumerate(made.cards)}
    usual = depths_of(scene, images, masks)
    asked = depths_of(scene, images, masks, by_network=True)
    for i, mask in masks.items():
        assert not bool((usual[i][mask] == CARD).any())
        assert bool((asked[i][mask] == CARD).all())
        assert not bool(asked[i][~mask].any())  # of what stands still nothing is taken to be known
    measured = depths_of(made.scene, images_of(made), masks)
    assert bool((measured[0][~masks[0]] == WALL).all())


def images_of(made: Planes) -> ImageCache:
    return ImageCache(made.scene)


# The term


def test_the_shape_of_a_guess_has_no_scale_and_no_shift() -> None:
    generator = torch.Generator().manual_seed(0)
    shape = torch.rand(200, generator=generator, dtype=torch.float64)
    other = torch.rand(200, generator=generator, dtype=torch.float64)
    assert float(shape_difference(3 * shape + 0.5, shape + 1)) < 1e-12
    usual = shape_difference(other, shape + 1)
    torch.testing.assert_close(shape_difference(5 * other + 2, shape + 1), usual)
    # the larger values, all apart, changed places: each is off by its distance from the median
    # twice, in mean deviations, which are given back as a share of the mean
    turned = shape_difference(-shape, shape + 1)
    off = (shape - shape.median()).abs().mean()
    assert float(turned) == pytest.approx(float(2 * off / (shape + 1).mean()))
    scaled = shape_difference(other, 7 * (shape + 1))
    torch.testing.assert_close(scaled, usual)  # the unit of measured depth's term has no unit


def test_a_flat_surface_gets_a_finite_pull_to_the_shape() -> None:
    flat = torch.full((50,), 0.5, dtype=torch.float64, requires_grad=True)
    loss = shape_difference(flat, torch.linspace(0.2, 0.8, 50, dtype=torch.float64))
    loss.backward()
    assert flat.grad is not None and bool(torch.isfinite(flat.grad).all())
    slope = float((-flat.grad * torch.linspace(-1, 1, 50, dtype=torch.float64)).sum())
    assert slope > 0  # downhill is towards the shape
