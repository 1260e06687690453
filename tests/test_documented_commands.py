"""Every command that README, docs/ and methods/ print runs, on inputs of a few kilobytes.

A command that no rule here knows fails: whoever writes a new one adds how it is made small.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from benchmark_scripts import benchmark
from conftest import make_tiny_capture
from documented import ROOT, Command, commands_in, documented_commands, spelled_out
from optional_packages import import_or_skip
from training.test_every_capture import SMALL, WANTED

from scene4d.cli.main import VERBS, main
from scene4d.training.evaluate import evaluate_run
from scene4d.training.methods import load_method, method_names
from scene4d.training.options import TrainOptions
from scene4d.training.train import start

pytestmark = pytest.mark.unchecked_shapes

COMMANDS = documented_commands()
FLAT = {name: [f"--{key.replace('_', '-')}={value}" for key, value in options.items()
               if not isinstance(value, tuple)] for name, options in SMALL.items()}  # fmt: skip
"""What makes a training small, on the command line."""

LEFT_OUT = {
    r"scene4d batch": "starts a cluster: tests/pipeline/test_cluster.py",
    r"ray (start|stop)": "of a cluster's machines",
    r"python benchmarks/batch.py": "starts a cluster, and minutes",
    r"scene4d make (kitchen|teddy.mp4|02_cups.mp4)": "minutes; photos/ is made small instead",
    r"pip install": "installs",
    r"python -m http.server": "serves until it is stopped",
    r"scene4d process-data video --moving": "wants a video of motion: test_process_moving.py",
    r"scene4d train deformable --data data/dance": "of its result: tests/methods/deformable",
    r"scene4d export RUN ply(-sequence| --at-time)": "of scenes that move: test_sequence.py",
    r"scene4d export RUN (4dgs|splatv)": "of scenes that move: test_moving_files.py",
    r"scene4d train splat .*--prior ffdnet": "wants FFDNet's weights: objectives/test_guidance.py",
    r"scene4d (train|render) .*--fixer (FIXER|CUSTOM)": "wants a fixer: objectives/test_fixing.py",
    r"scene4d prior (check|sample)": "wants weights: tests/training/test_prior_check.py",
    r"(scene4d prior compress|python benchmarks/prior_size.py)": "priors/test_compression.py",
    r"scene4d prior train unet .*knight_room": "minutes: tests/methods/picture_prior",
    r"scene4d prior train frames": "wants a video: tests/methods/picture_prior",
    r"scene4d prior train fixer": "wants pairs: tests/methods/repair",
    r"python benchmarks/guidance.py mnist": "wants a model of digits, and minutes",
    r"python benchmarks/guidance_evidence.py .*(ffdnet|patches:)": "wants weights, or a room",
    r"python scripts/make_fixer_pairs.py": "wants models, and minutes: tests/methods/repair",
    r"python scripts/make_rgbd_captures.py": "wants models, and minutes: methods/unet",
    r"python benchmarks/guided_student.py": "wants networks: tests/priors/test_guided_student.py",
    r"python benchmarks/few_views.py": "wants a fixer, and minutes",
    r"scene4d train deformable": "wants pictures of several times: tests/methods/deformable",
    r"scene4d train (four-real|dpdy)": "wants times: deformable/test_four_real.py, test_dpdy.py",
    r"scene4d process-data images --depth-model": "wants a network: test_estimated_depth.py",
    r"scene4d process-data video --data freeze": "wants a video: tests/data/test_process_video.py",
    r"python scripts/make_grid.py": "wants two videos: tests/test_make_grid.py",
    r"python benchmarks/four_real.py": "of knight_room's models; minutes",
    r"scene4d train splat .*regenerate": "wants a model: objectives/test_regenerating.py",
    r"scene4d prior train unet .*(rgbd_livingroom|PICTURES|CAPTURES)": "methods/picture_prior",
    r"scene4d prior customise": "wants a fixer or a model: test_customise.py, low_rank",
    r"cp outputs/my_scene/custom-diffusion": "of the command before it",
    r"scene4d train splat .*--prior (MODEL|unet:)": "wants a model: objectives/test_guidance.py",
    r"scene4d train dynamic-field": "wants pictures of several times: tests/methods/dynamic_field",
    r"python benchmarks/cpu_time.py train (dynamic-field|METHOD)": "as above, by processor time",
    r"python benchmarks/cpu_time.py train lightslab .*--teacher": "minutes: methods/lightslab",
    r"python benchmarks/equal_bytes.py RUN SLAB.s4d": "of the bundles of the commands before it",
    r"python benchmarks/cpu_time.py (compress|train (lpgs|splat .*50000))": "test_rate_curves.py",
    r"scene4d export RUN bundle --target-mb": "of a run of that size: exporters/test_bundle.py",
    r"scene4d view FILE.glb": "of a mesh: tests/cli/test_view.py",
    r"python scripts/make_dynamic_capture.py": "minutes: tests/test_make_dynamic_capture.py",
    r"python scripts/covisible_agreement.py": "of captures with exact masks; minutes",
    r"scene4d export RUN (obj|usdz)": "of textured meshes: exporters/test_textured_mesh.py",
    r"scene4d (train text-mesh|generate)": "wants meshes with captions: tests/methods/text_mesh",
    r"python benchmarks/text_mesh.py": "wants models, and minutes: tests/methods/text_mesh",
    r"python benchmarks/mesh.py quality": "wants a run of mesh and its teacher; minutes",
    r"(\w+=\d )*python benchmarks/compress.py .*--rivals": "minutes: tests/test_rate_curves.py",
    r"python benchmarks/compress.py --write": "draws rows: tests/test_rate_curves.py",
    r"python benchmarks/same_training.py": "compares two commits",
    r"python benchmarks/dynamic_truth.py": "of knight_room, with its models; minutes",
    r"python benchmarks/dynamic_cameras.py": "of a made capture: test_make_dynamic_capture.py",
    r"python benchmarks/motion.py .*--run": "wants a run of deformable",
    r"npx vitest": "make test-player runs the player's tests",
    r"(npm run build && )?(node|python) bench/": "wants Node.js and Chromium, and minutes",
    r"python -m scene4d.integrations.nerfstudio": "tests/integrations runs nerfstudio's scripts",
    r"python benchmarks/rasteriser.py jit": "compiles every kernel anew: a minute",
}

FLAGS = {
    "benchmarks/compress.py": ["--steps", "2", "--sizes", "0.006", "--options=--hidden=8"],
    "benchmarks/contention.py": ["--steps", "10", "--num-gaussians", "100"],
    "benchmarks/cpu_time.py": ["--steps", "2", "--device", "cpu", "--no-evaluate"],
    "benchmarks/dynamic.py": ["--steps", "2", "--methods", "splat",
                              f"--options={' '.join(FLAT['splat'])}"],
    "benchmarks/equal_bytes.py": ["--frames", "2"],
    "benchmarks/fewer_splats.py": ["--shares", "0.5"],
    "benchmarks/first_mpi.py": ["--slabs", "1", "--views", "1"],
    "benchmarks/fields.py rays": ["--side", "8", "--repeats", "1"],
    "benchmarks/fields.py samples": ["--samples", "640", "--repeats", "1"],
    "benchmarks/formats.py": ["--splats", "300", "--tries", "1"],
    "benchmarks/fuzz_bundle.py": ["--files", "5"],
    "benchmarks/fuzz_captures.py": ["--files", "2", "--layouts", "llff"],
    "benchmarks/fuzz_formats.py": ["--files", "2", "--formats", "ply"],
    "benchmarks/fuzz_runs.py": ["--files", "2", "--methods", "splat"],
    "benchmarks/guidance.py": ["--size", "32", "--splats", "50"],
    "benchmarks/guidance.py control": ["--size", "32", "--splats", "50", "--steps", "3",
                                       "--seeds", "1"],
    "benchmarks/guidance_evidence.py": [
        "--steps", "4", "--size", "32", "--seeds", "1", "--weights", "0.1", "--photographs", "3",
        "--views", "2", "--gaussians", "50", "--angle", "1",
    ],
    "benchmarks/kill.py": ["--kills", "1", "--verbs", "convert"],
    "benchmarks/light_slab.py compare": ["--minutes", "0.1", "--methods", "lightslab",
                                         f"--options=--steps=2 {' '.join(FLAT['lightslab'])}"],
    "benchmarks/light_slab.py mpi": ["--side", "16", "--repeats", "1"],
    "benchmarks/lpgs_step.py": ["--steps", "2", "--warm-up", "1"],
    "benchmarks/memory.py": ["--num-gaussians", "200", "--size", "48", "40", "--steps", "10"],
    "benchmarks/mesh.py isosurface": ["--size", "8", "--runs", "1"],
    "benchmarks/mesh.py slopes": ["--size", "16", "--rings", "6"],
    "benchmarks/mesh.py speed": ["--size", "16", "--rings", "6", "--runs", "1"],
    "benchmarks/pictures.py": [],
    "benchmarks/quality.py": ["--minutes", "0.1", "--options=--steps=2 --coarsest-downscale=1"],
    "benchmarks/rasteriser.py": ["--runs", "1", "--gaussians", "50"],
    "benchmarks/side_by_side.py": ["--views", "0"],
    "scene4d --version": [],
    "scene4d benchmark-formats": ["--views", "1", "--size", "32"],
    "scene4d compress": ["--steps", "2", "--hidden", "8"],
    "scene4d convert": [],
    "scene4d eval": [],
    "scene4d export": [],
    "scene4d info": [],
    "scene4d make": ["--minutes", "0.02", "--device", "cpu"],
    "scene4d prior train unet": ["--steps", "2", "--widths", "8", "8", "--down", "c", "", "--up",
                                 "", ""],
    "scene4d process-data": ["--camera-model", "pinhole"],
    "scene4d render": ["--num-frames", "2"],
    "scene4d train": ["--steps", "2", "--device", "cpu", "--no-evaluate"],
    "scene4d view": ["--no-open", "--host", "127.0.0.1"],
}  # fmt: skip
"""By how a command begins: the options that make it small. Options of the same name, with their
values, are taken out of the command before."""

CONSTANTS: dict[str, dict[str, Any]] = {
    "contention": {"WARM_UP": 1, "SETTINGS": {"nothing set": {}}},
    "light_slab": {"SIDE": 48},
}
"""Of benchmarks that have no option for it."""


@dataclass(frozen=True)
class Things:
    """What the commands are given, made once."""

    root: Path
    capture: Path
    run: Path
    field: Path
    """A run of light slabs that was taught by the other."""
    bundle: Path
    field_bundle: Path
    ply: Path
    matrix: Path
    mesh: Path


@pytest.fixture(scope="module")
def things(tmp_path_factory) -> Things:
    root = tmp_path_factory.mktemp("documented")
    (root / "captures").mkdir()
    capture = root / "captures" / "tiny"
    capture.mkdir()
    make_tiny_capture(capture, num_views=9, size=64)  # LPIPS wants 32 pixels, half of it
    options = TrainOptions(data=capture, output_dir=root / "runs", device="cpu", evaluate=False)
    splat = load_method("splat")(steps=11, **SMALL["splat"])
    run = start(splat, options)
    evaluate_run(run, device="cpu")
    lightslab: Any = load_method("lightslab")(steps=2, **SMALL["lightslab"])
    teaching = replace(lightslab.teaching, first_views=1, crops=1, crop_size=16)
    field = start(replace(lightslab, teaching=teaching), replace(options, teacher=run))
    made = {"bundle": run, "field_bundle": field}
    for name, source in made.items():
        target = str(root / f"{name}.s4d")
        assert main(["export", str(source), "bundle", "--output-path", target]) == 0
    assert main(["export", str(run), "ply", "--output-path", str(root / "scene.ply")]) == 0
    matrix = root / "matrix.txt"
    matrix.write_text("1 0 0 1\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    (root / "mesh.obj").write_text(
        "v -1 0 -1 1 0 0\nv 1 0 -1 0 1 0\nv 0 0 1 0 0 1\nf 1 2 3\n"  # x y z, then r g b
    )
    return Things(
        root=root, capture=capture, run=run, field=field, bundle=root / "bundle.s4d",
        field_bundle=root / "field_bundle.s4d", ply=root / "scene.ply", matrix=matrix,
        mesh=root / "mesh.obj",
    )  # fmt: skip


def substituted(words: list[str], things: Things, here: Path) -> list[str]:
    """Real files for the names that the command uses for the reader's own."""
    field = "onnx" in words or "coreml" in words or "litert" in words or "executorch" in words
    field = field or any(w.startswith("benchmarks/light_slab.py") for w in words)
    run = things.field if field else things.run
    table: dict[str, object] = {
        "RUN": run, "RUN_OR_FILE": things.run, "TEACHER": things.run,
        "RUN_OR_SPLAT_FILE": things.ply,
        "NEW_PLACE": things.run, "BUNDLE": things.field_bundle if field else things.bundle,
        "CAPTURE": things.capture, "my_scene": things.capture, "data/room": things.capture,
        "fox": things.capture, "FILE": things.ply, "IN": things.ply, "OUT": here / "out.ply",
        "SCENE": things.ply, "bonsai.ply": things.ply, "scene.s4d": things.bundle,
        "INPUT": things.bundle, "photos/": "photos",
        "NAME": "splat", "METHOD": "splat", "OPTIONS": None,
        "DIR": here / "folder", "D": 1, "A": 0.01, "N": 50,
        "XMIN": -9, "YMIN": -9, "ZMIN": -9, "XMAX": 9, "YMAX": 9, "ZMAX": 9,
        "X": 1, "Y": 2, "Z": 3, "S": 2, "OUT.s4d": here / "out.s4d", "OUT.png": here / "out.png",
    }  # fmt: skip
    found = []
    for i, word in enumerate(words):
        after = words[i - 1] if i else ""
        if after == "--transform":
            word = str(things.matrix)
        elif after == "--mesh":
            word = str(things.mesh)
        elif after == "--output-path":
            word = (
                "out" if word == "FILE" else word.replace("data/room", "room").replace("DIR", "d")
            )
        elif after == "--output-dir":
            word = "made"
        elif after == "--write":
            word = str(here / "results.json")
        elif re.match(r"outputs/.*", word):
            word = str(things.run)
        elif word in table:
            if table[word] is None:
                continue
            word = str(table[word])
        found.append(word)
    return found


def made_small(words: list[str], text: str) -> list[str]:
    """With the options of FLAGS; fails where no rule knows the command."""
    known = [start for start in FLAGS if f"{text} ".startswith((f"{start} ", f"python {start} "))]
    assert known, f"no rule for {text!r}: say in FLAGS or LEFT_OUT how it runs small"
    more = FLAGS[max(known, key=len)]
    if text.startswith("scene4d compress") and "--target-mb" in words:
        at = words.index("--target-mb")  # megabytes of a scene that takes 8 kB are refused
        words = [*words[:at], *words[at + 2 :]]
    ours = {option.split("=")[0] for option in more if option.startswith("--")}
    kept, dropping = [], False
    for word in words:
        if word.startswith("--"):
            dropping = word.split("=")[0] in ours
        if not dropping:
            kept.append(word)
    return [*kept, *more]


def in_this_process(command, *args, **kwargs):
    """``subprocess.run`` for the benchmarks: our own command without starting an interpreter."""
    if list(command[:3]) != [sys.executable, "-m", "scene4d.cli.main"]:
        return REAL_RUN(command, *args, **kwargs)
    import contextlib
    import io

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in command[3:]])
    return subprocess.CompletedProcess(command, status, out.getvalue(), err.getvalue())


REAL_RUN = subprocess.run
RAN: set[tuple[str, ...]] = set()


def ran_before(words: list[str]) -> bool:
    """Whether the very same was run for another line of the docs, apart from where it writes."""
    named = tuple(Path(w).name if Path(w).is_absolute() else w for w in words)
    before = named in RAN
    RAN.add(named)
    return before


def only_parsed(self: argparse.ArgumentParser, *args, **kwargs):
    """In place of ``parse_args``: ends where the options are right."""
    REAL_PARSE(self, *args, **kwargs)
    raise SystemExit(0)


REAL_PARSE = argparse.ArgumentParser.parse_args
SCRIPTS: set[tuple[str, ...]] = set()


def run_benchmark(words: list[str], things: Things, monkeypatch) -> None:
    """A script's first line, or a sub-command's; of further ones the options are parsed."""
    path, arguments = words[0], words[1:]
    name = Path(path).stem
    script = (path, *(word for word in arguments[:1] if re.fullmatch(r"[a-z]+", word)))
    if script in SCRIPTS:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parsed)
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as end:
            benchmark(name).main()
        assert end.value.code == 0
        return
    SCRIPTS.add(script)
    if name.startswith("fuzz_") or name == "kill":  # they take the process for their own
        command = [sys.executable, str(ROOT / path), *arguments]
        done = REAL_RUN(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    module = benchmark(name)
    for constant, value in CONSTANTS.get(name, {}).items():
        assert hasattr(module, constant)
        setattr(module, constant, value)
    if path in ("benchmarks/quality.py", "benchmarks/light_slab.py") and (
        "--captures" in arguments or "quality" in path or "compare" in arguments
    ):
        if "--captures" in arguments:
            first = arguments.index("--captures") + 1
            last = next((i for i in range(first, len(arguments)) if arguments[i].startswith("--")),
                        len(arguments))  # fmt: skip
            arguments[first:last] = ["tiny@2" if "@" in " ".join(arguments[first:last]) else "tiny"]
        else:
            arguments += ["--captures", "tiny"]
        arguments += ["--data-root", str(things.capture.parent), "--output-dir", "runs"]
        if "compare" in arguments and "--teachers" not in arguments:
            arguments += ["--teachers", str(things.run)]
        if "--teachers" in arguments:
            arguments[arguments.index("--teachers") + 1] = str(things.run)
    if path == "benchmarks/rasteriser.py":
        whole = module.make_scene
        monkeypatch.setattr(module, "make_scene", lambda n, *more: whole(min(n, 50), *more))
    monkeypatch.setattr(subprocess, "run", in_this_process)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    try:
        module.main()
    except SystemExit as end:
        assert not end.code, end.code


def run_command(words: list[str], things: Things, here: Path) -> None:
    """One ``scene4d`` command, in this process; its exit status is 0."""
    verb = words[0]
    wanted = {"coreml": "coremltools", "litert": "ai_edge_litert.schema_py_generated",
              "executorch": "executorch.exir", "onnx": "onnx"}  # fmt: skip
    for word in words[:3]:
        if verb == "export" and word in wanted:
            import_or_skip(wanted[word])
    if verb == "train" and words[1] in WANTED:
        import_or_skip(WANTED[words[1]])
    if verb == "process-data" or "photos" in words:
        give_pictures(words, here)
    if verb == "make":
        words = [word for word in words if word != "--phone"]  # the verb view, which has its test
    if any(w.endswith(".mp4") for w in words):
        import_or_skip("av")
    if "--viewer" in words:
        import_or_skip("viser")
    player = verb == "view" or (verb == "export" and "player" in words)
    if player and not (ROOT / "viewers" / "web" / "dist" / "index.html").is_file():
        pytest.skip("the web player is not built (make player)")
    if verb == "export" and "--output-path" not in words:
        words += ["--output-path", "out"]
    if verb == "export" and "out" in words:
        from scene4d.formats.registry import FORMATS

        suffixes = {f.name: f.suffixes[0] for f in FORMATS}
        suffixes |= {"onnx": ".onnx", "coreml": ".mlpackage", "litert": ".tflite",
                     "executorch": ".pte", "bundle": ".s4d"}  # fmt: skip
        words[words.index("out")] = f"out{suffixes[words[2]]}"
    if ran_before(words):
        return
    ends = threading.Timer(3.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    if verb == "view":
        ends.start()
    try:
        assert main(words) == 0, words
    finally:
        ends.cancel()  # where it ended by itself, nobody is interrupted


def give_pictures(words: list[str], here: Path) -> None:
    """Photographs of a small room, or a video of it."""
    import_or_skip("pycolmap")
    from room import room_cameras, room_picture

    pictures = [room_picture(c2w) for c2w in room_cameras(6)]
    place = words.index("--data") + 1 if "--data" in words else 1
    if words[1] == "video":
        import_or_skip("av")
        import numpy as np

        from scene4d.exporters.video import write_video

        write_video([np.asarray(p) for p in pictures], here / "walk.mp4", fps=6.0)
        words[words.index("--num-frames-target") + 1] = "6"
    else:
        (here / "photos").mkdir()
        for i, picture in enumerate(pictures):
            picture.save(here / "photos" / f"{i}.jpg")
        words[place] = "photos"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.where}: {c.text}"[:90])
def test_it_runs(command: Command, things, tmp_path, monkeypatch):
    text = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", command.text)
    for pattern, reason in LEFT_OUT.items():
        if re.match(pattern, text):
            pytest.skip(reason)
    if text.startswith("make "):
        target = next(word for word in shlex.split(text)[1:] if "=" not in word)
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return
    if text.startswith("scene4d ") and "--help" in text:
        check_help(text)
        return
    monkeypatch.setattr("scene4d.training.rendered_capture.NUM_CAMERAS", 9)  # of splat files
    monkeypatch.setattr("scene4d.training.rendered_capture.IMAGE_SIZE", 48)
    for number, spelled in enumerate(spelled_out(text)):
        here = tmp_path / str(number)
        here.mkdir()
        monkeypatch.chdir(here)
        words = made_small(substituted(spelled, things, here), text)[1:]
        if not text.startswith("scene4d"):
            run_benchmark(words, things, monkeypatch)
            continue
        if words[0] == "train":
            resumed = "--resume" in words
            if resumed:
                words = [*words[: words.index("--steps")], "--no-evaluate"]
                moved = shutil.copytree(things.field, here / "run")
                words[words.index("--resume") + 1] = str(moved)
            else:
                words += ["--output-dir", "outputs"]
                words += (
                    []
                    if "--data" in words or "--teacher" in words
                    else ["--data", str(things.capture)]
                )
                words += FLAT.get(words[1], [])
        run_command(words, things, here)


def check_help(text: str) -> None:
    """For every verb, or every method."""
    names = list(VERBS) if "VERB" in text else method_names()
    head = ["train"] if "NAME" in text else []
    for name in names:
        try:
            status: Any = main([*head, name, "--help"])
        except SystemExit as end:
            status = end.code or 0
        assert status == 0


def test_commands_are_found_wherever_they_stand():
    text = """Text with `scene4d compress` and `scene4d compress A.ply
B.s4d`, `python benchmarks/x.py RUN`.

    scene4d train splat --steps 2   # a comment
    not a command

```
VAR=1 scene4d convert IN OUT [--a B]
                     [--c | --d E]
```
```python
scene4d = 1
```
"""
    found = list(commands_in(text))
    assert found == [
        "VAR=1 scene4d convert IN OUT [--a B] [--c | --d E]", "scene4d train splat --steps 2",
        "python benchmarks/x.py RUN",
    ] or set(found) == {
        "VAR=1 scene4d convert IN OUT [--a B] [--c | --d E]", "scene4d train splat --steps 2",
        "python benchmarks/x.py RUN",
    }  # fmt: skip
    assert spelled_out("x {a,b} [--c | --d E] y...") == [
        ["x", "a", "--c", "y"], ["x", "b", "--c", "y"],
        ["x", "a", "--d", "E", "y"], ["x", "b", "--d", "E", "y"],
    ]  # fmt: skip


def test_a_command_that_nobody_made_small_fails():
    with pytest.raises(AssertionError, match="no rule for"):
        made_small(["scene4d", "imagine"], "scene4d imagine")


def test_there_are_commands_of_every_kind():
    starts = {" ".join(c.text.split()[:2]) for c in COMMANDS}
    assert {
        "scene4d train",
        "scene4d export",
        "python benchmarks/quality.py",
        "make demo",
    } <= starts
    assert len(COMMANDS) > 60
