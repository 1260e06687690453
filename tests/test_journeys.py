"""What a new user does in the first hour, from each kind of input, with the commands themselves.

Photographs, a video, RGB-D frames and somebody's splat file become a scene, a flight through it,
files for other tools and a player, with what the commands choose by themselves; the trainings are
short.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from formats.splat_files import random_cloud
from optional_packages import import_or_skip
from PIL import Image
from room import FOCAL, HEIGHT, WIDTH, room_cameras, room_depth, room_picture

from scene4d.bundle.container import open_bundle
from scene4d.cli.main import main
from scene4d.data.load import load_scene
from scene4d.files import read_json
from scene4d.formats import registry as formats

pytestmark = pytest.mark.unchecked_shapes

SHORT = ["--steps", "60", "--max-num-gaussians", "3000", "--device", "cpu"]
NUM_PHOTOS = 10


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs one command in an empty folder; what it printed last is its result."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0, words
        lines = capsys.readouterr().out.strip().splitlines()
        return lines[-1] if lines else ""

    return call


def pictures_of_the_room(count: int = NUM_PHOTOS) -> list[Image.Image]:
    return [room_picture(c2w) for c2w in room_cameras(count)]


def from_capture_to_player(run, capture: Path, *, psnr: float) -> Path:
    """Training, and everything that is done with a run; returns the run."""
    trained = Path(run("train", "splat", "--data", capture, *SHORT))
    run("eval", trained)
    assert read_json(trained / "eval.json")["results"]["psnr"] > psnr
    assert (trained / "report.html").is_file()
    run("info", trained)

    run("render", trained, "--output-path", "flight", "--num-frames", 3)
    flight = [np.asarray(Image.open(p)) for p in sorted(Path("flight").glob("*.png"))]
    assert len(flight) == 3
    for picture in flight:  # something is in the middle of each, and it has an edge
        height, width = picture.shape[:2]
        middle = picture[height // 4 : -height // 4, width // 4 : -width // 4].astype(float)
        assert middle.mean() > 20 and middle.std() > 5
    assert np.abs(flight[0].astype(float) - flight[1]).mean() > 1  # and it moves

    run("export", trained, "ply", "--output-path", "scene.ply")
    run("export", trained, "bundle", "--output-path", "scene.s4d")
    run("validate", "scene.s4d")
    assert open_bundle(Path("scene.s4d")).manifest["count"] == len(
        formats.read_splats(Path("scene.ply"))
    )
    return trained


def test_from_photographs(run) -> None:
    import_or_skip("pycolmap")
    Path("photos").mkdir()
    for number, picture in enumerate(pictures_of_the_room()):
        picture.save(f"photos/IMG_{number:04d}.JPG", quality=95)
    run("process-data", "images", "--data", "photos", "--output-dir", "room")
    assert read_json(Path("room/diagnosis.json"))["num_registered"] == NUM_PHOTOS
    from_capture_to_player(run, Path("room"), psnr=15)


def test_from_a_video(run) -> None:
    import_or_skip("pycolmap")
    import_or_skip("av")
    from scene4d.exporters.video import write_video

    write_video([np.asarray(p) for p in pictures_of_the_room(24)], Path("walk.mp4"), fps=8.0)
    run("process-data", "video", "--data", "walk.mp4", "--output-dir", "walk",
        "--num-frames-target", 12)  # fmt: skip
    scene = load_scene(Path("walk"))
    assert len(scene.frames) >= 10
    from_capture_to_player(run, Path("walk"), psnr=15)


def test_from_rgb_d(run) -> None:
    """Depth starts the Gaussians at the walls, and the mesh lies there."""
    capture = Path("rgbd")
    capture.mkdir()
    frames = []
    for number, c2w in enumerate(room_cameras(NUM_PHOTOS)):
        room_picture(c2w).save(capture / f"{number}.png")
        millimetres = np.clip(1000 * room_depth(c2w), 0, 65535).astype(np.uint16)
        Image.fromarray(millimetres).save(capture / f"{number}_depth.png")
        frames.append({"file_path": f"{number}.png", "depth_file_path": f"{number}_depth.png",
                       "transform_matrix": c2w.tolist()})  # fmt: skip
    meta = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2,
            "w": WIDTH, "h": HEIGHT}  # fmt: skip
    (capture / "transforms.json").write_text(json.dumps({**meta, "frames": frames}))
    trained = from_capture_to_player(run, capture, psnr=17)

    trimesh = import_or_skip("trimesh")
    run("export", trained, "mesh", "--output-path", "room.ply")
    vertices = np.asarray(trimesh.load("room.ply", process=False).vertices)
    assert len(vertices) > 1000
    to_walls = np.abs(vertices).min(axis=1)  # the walls are the planes x = 0, y = 0, z = 0
    assert np.median(to_walls) < 0.05  # of a room of 4 units


def test_from_a_splat_file(run) -> None:
    cloud = random_cloud(800, degree=2)
    formats.write_splats(Path("somebodys.ply"), cloud)
    run("info", "somebodys.ply")
    run("convert", "somebodys.ply", "somebodys.spz")
    run("convert", "somebodys.spz", "back.ply")
    assert len(formats.read_splats(Path("back.ply"))) == len(cloud)
    run("export", "somebodys.ply", "bundle", "--output-path", "scene.s4d")
    run("validate", "scene.s4d")
    run("info", "scene.s4d")
    run("compress", "somebodys.ply", "small.s4d", "--target-mb", "0.03", "--steps", "3",
        "--hidden", "8", "--device", "cpu")  # fmt: skip
    assert Path("small.s4d").stat().st_size <= 30_600  # a size is met within 2%
