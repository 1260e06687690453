"""``scene4d make``: what stands is reused, what is wrong is told, nothing is lost."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optional_packages import import_or_skip
from PIL import Image

from scene4d.bundle.container import open_bundle
from scene4d.cli.main import main
from scene4d.errors import DataError, Scene4dError, UsageError
from scene4d.files import read_json
from scene4d.pipeline.inputs import SceneInput, find_input, fingerprint
from scene4d.pipeline.make import make_scene
from scene4d.pipeline.options import MakeOptions
from scene4d.pipeline.plan import allowance, plan_of
from scene4d.pipeline.stage import Done, Stage, Work, keys_of, make, read_done

pytestmark = pytest.mark.unchecked_shapes

SHORT = 0.02
QUICK = MakeOptions(minutes=SHORT, device="cpu")


def state(folder: Path) -> dict[str, int]:
    """When each file was written."""
    return {
        p.relative_to(folder).as_posix(): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and p.name != ".lock"
    }


def new_stages(source: Path, out: Path, options: MakeOptions) -> tuple[str, ...]:
    return make_scene(source, out, options).new


# What is made


def test_a_capture_becomes_a_bundle_its_player_and_a_page(made_once):
    bundle = open_bundle(made_once.bundle)
    assert bundle.manifest["count"] > 0
    assert (made_once.bundle.parent / "poster.webp").stat().st_size > 0
    run = made_once.out / "train" / str(made_once.done["train"].results["run"])
    figures = read_json(run / "eval.json")["results"]
    assert made_once.done["train"].results["psnr"] == pytest.approx(figures["psnr"])
    page = made_once.report.read_text()
    assert f"{made_once.done['bundle'].results['psnr']:.2f} dB" in page
    assert "data:image/webp" in page and "photograph, render and error" in page
    assert "http" not in page.split("<svg")[0]  # nothing is fetched
    if "player" in made_once.done:  # where the player is built
        assert (made_once.out / "player" / "site" / "index.html").is_file()
    assert [p for p in made_once.out.iterdir() if p.name.startswith(".")] == [
        made_once.out / ".lock"
    ]


def test_a_second_call_does_nothing_and_says_so(made, capture, capfd):
    before = state(made)
    start = time.monotonic()
    status = main(["make", str(capture), str(made), "--minutes", str(SHORT), "--device", "cpu"])
    assert status == 0 and time.monotonic() - start < 5.0
    assert state(made) == before
    out, err = capfd.readouterr()
    assert "nothing was to be done" in err
    assert out.strip() == str(made / "bundle" / "scene.s4d")


def test_another_option_makes_again_only_what_depends_on_it(made, capture):
    before = state(made / "train")
    target = 0.9 * (made / "bundle" / "scene.s4d").stat().st_size
    options = MakeOptions(minutes=SHORT, device="cpu", target_mb=target / 1e6)
    made_again = make_scene(capture, made, options)
    assert made_again.new[0] == "bundle"
    assert state(made / "train") == before
    assert made_again.bundle.stat().st_size == pytest.approx(target, rel=0.02)


def keys_for(source: Path, **options: Any) -> dict[str, str]:
    return keys_of(plan_of(find_input(source), MakeOptions(**options)).stages, "content")


def test_a_key_is_of_what_the_result_depends_on_and_of_nothing_else(
    made_once, capture, tmp_path, monkeypatch
):
    bundle = tmp_path / "copied.s4d"
    shutil.copyfile(made_once.bundle, bundle)
    assert keys_for(bundle, device="cpu") == keys_for(bundle, quality="best")  # copied as it is
    fixed = {"resolution": 64, "minutes": 1.0}
    assert keys_for(capture, quality="draft", **fixed) == keys_for(capture, **fixed)
    builds = []
    for text in ("one build", "another"):
        build = tmp_path / text
        build.mkdir()
        (build / "index.html").write_text(text)
        monkeypatch.setattr("scene4d.pipeline.plan.player_folder", lambda build=build: build)
        builds.append(keys_for(capture))
    differing = {name for name, key in builds[0].items() if builds[1][name] != key}
    assert differing == {"player"}


def test_the_next_command_names_the_run_that_is_there_though_the_input_was_renamed(
    made, capture, tmp_path
):
    renamed = Path(shutil.copytree(capture, tmp_path / "renamed"))
    again = make_scene(renamed, made, QUICK)
    assert "train" not in again.new
    (rendering,) = (shlex.split(c) for c in again.commands if " render " in c)
    assert list(Path(rendering[2]).rglob("config.toml"))


def test_moved_and_copied_inputs_are_the_same_and_changed_ones_are_not(capture, tmp_path):
    copy = Path(shutil.copytree(capture, tmp_path / "elsewhere"))
    known = fingerprint(find_input(capture)).content
    assert fingerprint(find_input(copy)).content == known
    picture = next(copy.glob("images/*.png"))
    pixels = np.array(Image.open(picture))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    assert fingerprint(find_input(copy)).content != known


def test_an_input_that_was_not_touched_is_not_read_again(capture, monkeypatch):
    found = find_input(capture)
    known = fingerprint(found)
    marker = {"fingerprint": "as it was", "state": known.state}
    assert fingerprint(found, marker=marker).content == "as it was"
    assert fingerprint(found, marker={**marker, "state": "other"}).content == known.content
    monkeypatch.setattr("scene4d.pipeline.inputs.HASHED_BYTES", 10)  # as large ones are
    large = fingerprint(found).content
    picture_of = next(capture.glob("images/*.png"))
    os.utime(picture_of, ns=(0, picture_of.stat().st_mtime_ns + 1))
    assert fingerprint(found).content != large


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(made, capture):
    """As a process leaves it that is killed before the stage's folder takes its place."""
    record = read_json(made / "train" / "stage.json")
    run = record["results"]["run"]
    (made / "train" / "stage.json").unlink()
    (made / "train").rename(made / f".train-{record['key']}")
    assert new_stages(capture, made, QUICK) == ("train",)
    assert read_json(made / "train" / "stage.json")["results"]["run"] == run


def test_a_run_and_a_bundle_are_inputs(made_once, tmp_path):
    run = made_once.out / "train" / str(made_once.done["train"].results["run"])
    assert find_input(run).kind == "run"
    assert find_input(made_once.bundle).kind == "bundle"
    copied = make_scene(made_once.bundle, tmp_path / "copied", QUICK)
    assert copied.bundle.read_bytes() == made_once.bundle.read_bytes()
    assert copied.plan.stages[0].name == "bundle"
    fresh = make_scene(run, tmp_path / "of_run", QUICK)
    assert fresh.done["bundle"].results["against"] == "photographs"


def test_splats_of_a_file_are_compressed(made_once, tmp_path, monkeypatch):
    monkeypatch.setattr("scene4d.training.rendered_capture.NUM_CAMERAS", 9)
    monkeypatch.setattr("scene4d.training.rendered_capture.IMAGE_SIZE", 48)
    run = made_once.out / "train" / str(made_once.done["train"].results["run"])
    file = tmp_path / "splats.ply"
    assert main(["export", str(run), "ply", "--output-path", str(file)]) == 0
    made = make_scene(file, tmp_path / "out", QUICK)
    assert made.done["bundle"].results["kind"] == "lpgs"
    assert "PSNR of the bundle, the original&#x27;s renders" in made.report.read_text()


# What fails


def picture(path: Path) -> None:
    Image.new("RGB", (64, 48), (90, 120, 60)).save(path)


def empty_folder(root: Path) -> Path:
    (root / "in").mkdir()
    return root / "in"


def text_file(root: Path) -> Path:
    (root / "in.txt").write_text("no scene")
    return root / "in.txt"


def folder_of_texts(root: Path) -> Path:
    text_file(empty_folder(root))
    return root / "in"


def one_picture(root: Path) -> Path:
    picture(root / "a.jpg")
    return root / "a.jpg"


def archive(root: Path) -> Path:
    shutil.make_archive(str(root / "photos"), "zip", empty_folder(root))
    return root / "photos.zip"


def two_videos(root: Path) -> Path:
    for name in ("a.mp4", "b.mov"):
        (empty_folder(root) if name == "a.mp4" else root / "in").joinpath(name).write_bytes(b"0")
    return root / "in"


def made_before(root: Path) -> Path:
    (empty_folder(root) / "make.json").write_text("{}")
    return root / "in"


@pytest.mark.parametrize(
    ("make_input", "told"),
    [
        (lambda root: root / "nowhere", "there is no such file"),
        (empty_folder, "an empty folder"),
        (text_file, "a file of 8 bytes ending in '.txt'"),
        (folder_of_texts, "a folder of 1 entry, e.g. in.txt"),
        (one_picture, "is one picture"),
        (archive, "unpack it"),
        (two_videos, "holds 2 videos (a.mp4, b.mov)"),
        (made_before, "was made by scene4d make"),
    ],
)
def test_an_input_of_no_kind_is_told_with_what_was_found(tmp_path, capfd, make_input, told):
    source = make_input(tmp_path)
    assert main(["make", str(source), str(tmp_path / "out")]) == 1
    err = capfd.readouterr().err
    assert told in err and "->" in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_the_one_video_of_a_folder_is_taken(tmp_path):
    (empty_folder(tmp_path) / "walk.mp4").write_bytes(b"0")
    assert find_input(tmp_path / "in").path.name == "walk.mp4"


def test_outputs_that_hold_something_else_are_refused(made, capture, tmp_path):
    with pytest.raises(DataError, match="inside of each other"):
        make_scene(capture, capture / "out", QUICK)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="was not made by this command"):
        make_scene(capture, foreign, QUICK)
    other = Path(shutil.copytree(capture, tmp_path / "other"))
    picture(other / "images" / "more.png")
    before = state(made)
    with pytest.raises(UsageError, match="holds the scene of another input"):
        make_scene(other, made, QUICK)
    assert state(made) == before


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (MakeOptions(method="nonsense"), "there is no method 'nonsense'"),
        (MakeOptions(method="splat"), "--method means nothing to a bundle"),
        (MakeOptions(resolution=100), "--resolution means nothing"),
        (MakeOptions(moving="yes"), "--moving means nothing"),
    ],
)
def test_options_that_mean_nothing_are_told_first(made_once, tmp_path, options, told):
    with pytest.raises(UsageError, match=told):
        make_scene(made_once.bundle, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_poses_that_cannot_be_found_are_the_report(tmp_path, capfd):
    import_or_skip("pycolmap")
    photos = empty_folder(tmp_path)
    for i in range(3):
        Image.new("RGB", (64, 48), (i * 50, 120, 60)).save(photos / f"{i}.png")
    assert main(["make", str(photos), str(tmp_path / "out"), "--minutes", "1"]) == 1
    err = capfd.readouterr().err
    page = (tmp_path / "out" / "report.html").read_text()
    assert "no camera poses could be found" in err and "report.html" in err
    assert "No camera poses could be found" in page and "0.png" in page
    assert not (tmp_path / "out" / "poses").exists()


def test_a_video_from_a_stand_becomes_a_relief_and_says_so(tmp_path, capfd):
    import_or_skip("pycolmap")
    import_or_skip("av")
    from process_cases import write_video
    from room import room_cameras, room_picture

    write_video(tmp_path / "stand.mp4", [room_picture(room_cameras(3)[1])] * 4)
    arguments = ["--minutes", str(SHORT), "--moving", "no", "--device", "cpu"]
    assert main(["make", str(tmp_path / "stand.mp4"), str(tmp_path / "out"), *arguments]) == 0
    told = capfd.readouterr().err
    page = (tmp_path / "out" / "report.html").read_text()
    for text in (told, page):
        assert "This is not all around: the camera stands still, so this is a relief" in text
    manifest = open_bundle(tmp_path / "out" / "bundle" / "scene.s4d").manifest
    cameras = manifest["limits"]["cameras"]
    assert (np.ptp(cameras, axis=0) > 0).all()  # players may leave the one place a little


def full(work: Work) -> dict[str, Any]:
    (work.folder / "half").write_text("half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(work.folder / "half"))


def small(work: Work) -> dict[str, Any]:
    (work.folder / "whole").write_text(str(work.options))
    return {"figure": 1.5}


SOURCE = SceneInput(kind="photos", path=Path("photos"), name="photos", facts="")


def step(run: Any, **more: Any) -> Stage:
    return Stage(name="step", run=f"{__name__}:{run.__name__}", what="", outputs=("whole",), **more)


def test_a_full_disk_leaves_what_stood_and_says_how_to_go_on(tmp_path):
    work = Work(folder=tmp_path, source=SOURCE, options={}, done={}, seconds=1.0)
    good = step(small)
    done = make(good, "first", tmp_path, work)
    assert read_done(done.folder, good, "first") is not None
    with pytest.raises(Scene4dError, match="disk is full at the stage 'step'") as error:
        make(step(full), "second", tmp_path, work)
    assert "same command again" in str(error.value)
    assert read_done(done.folder, good, "first") is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step"]


def test_what_is_damaged_or_gone_is_made_again(tmp_path):
    work = Work(folder=tmp_path, source=SOURCE, options={}, done={}, seconds=1.0)
    stage = step(small)
    folder = make(stage, "key", tmp_path, work).folder
    assert read_done(folder, stage, "other key") is None
    (folder / "whole").unlink()
    assert read_done(folder, stage, "key") is None
    make(stage, "key", tmp_path, work)
    (folder / "stage.json").write_text("{")
    assert read_done(folder, stage, "key") is None


# The plan


def test_a_key_changes_with_all_that_the_result_depends_on():
    first = Stage(name="a", run="m:f", what="", reads_input=True, options={"x": 1})
    second = Stage(name="b", run="m:g", what="", needs=("a",))
    keys = keys_of((first, second), "input")
    assert keys == keys_of((first, second), "input")
    other_input = keys_of((first, second), "changed")
    assert other_input["a"] != keys["a"] and other_input["b"] != keys["b"]
    told_otherwise = Stage(name="a", run="m:f", what="in other words", reads_input=True,
                           options={"x": 1}, seconds=9.0)  # fmt: skip
    assert keys_of((told_otherwise, second), "input") == keys


@pytest.mark.parametrize("minutes", [1.0, 10.0, 60.0])
def test_the_stages_keep_within_the_time_for_all(minutes):
    source = SceneInput(kind="photos", path=Path("in"), name="in", facts="", pictures=25)
    plan = plan_of(source, MakeOptions(minutes=minutes))
    done: dict[str, Done] = {}
    for stage in plan.stages:
        seconds = allowance(stage, plan, done)
        done[stage.name] = Done(folder=Path(), key="", seconds=seconds, results={})
    total = sum(d.seconds for d in done.values())
    assert total <= 60 * minutes * 1.01 or minutes == 1.0  # poses alone may want a minute
    assert done["train"].seconds > 0.1 * 60 * minutes


def test_a_slow_start_shortens_what_follows_and_never_to_nothing():
    source = SceneInput(kind="photos", path=Path("in"), name="in", facts="", pictures=25)
    plan = plan_of(source, MakeOptions(minutes=10))
    train = next(stage for stage in plan.stages if stage.name == "train")

    def after(seconds: float) -> float:
        poses = Done(folder=Path(), key="", seconds=seconds, results={})
        return allowance(train, plan, {"poses": poses})

    assert after(30) > after(200) > 60
    assert after(2000) == pytest.approx(0.6 * 0.25 * 600)


def test_what_moves_is_trained_longer_as_its_bundle_is_not_trained():
    source = SceneInput(kind="video", path=Path("in.mp4"), name="in", facts="")
    plan = plan_of(source, MakeOptions(minutes=10))
    train = next(stage for stage in plan.stages if stage.name == "train")

    def seconds(moves: bool) -> float:
        poses = Done(folder=Path(), key="", seconds=60, results={"moves": moves})
        return allowance(train, plan, {"poses": poses})

    assert seconds(True) > 1.4 * seconds(False)
