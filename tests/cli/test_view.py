"""The verbs view and export player as processes: addresses, conversion, phones, the end."""

from __future__ import annotations

import os
import re
import signal
import ssl
import struct
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from formats.splat_files import random_cloud
from methods.mesh.meshes import globe
from optional_packages import import_or_skip

from scene4d.bundle.container import open_bundle
from scene4d.cli import main as command
from scene4d.cli.view import PLAYED, playable
from scene4d.errors import DataError, Scene4dError
from scene4d.exporters.player import MARKER
from scene4d.exporters.textured_glb import glb
from scene4d.formats.registry import FORMATS, read_splats, write_splats
from scene4d.player.phone import lan_address
from scene4d.player.player_files import player_folder
from scene4d.player.site import scene_site
from scene4d.training.methods import load_method
from scene4d.training.options import TrainOptions
from scene4d.training.train import start

URL = re.compile(r"(https?)://([\d.]+):(\d+)/([\w-]{22})/\n")


@pytest.fixture(scope="module", autouse=True)
def built_player() -> None:
    try:
        player_folder()
    except Scene4dError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def splats(tmp_path_factory) -> dict[str, Path]:
    """The same 200 splats in every format."""
    folder = tmp_path_factory.mktemp("splats")
    made = {}
    for form in FORMATS:
        made[form.name] = folder / f"statue{form.suffixes[0]}"
        write_splats(made[form.name], random_cloud(200, 0))
    return made


@contextmanager
def viewing(tmp_path: Path, *arguments: str) -> Iterator[tuple[str, Path]]:
    """The address that the verb prints and the file of its stderr; ends it with Ctrl-C."""
    errors = tmp_path / "stderr.txt"
    temporary = tmp_path / "temporary"
    temporary.mkdir(exist_ok=True)
    code = [sys.executable, "-m", "scene4d.cli.main", "view", "--no-open", *arguments]
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONIOENCODING": "utf-8"}
    with (
        open(errors, "wb") as told,
        subprocess.Popen(
            code, stdout=subprocess.PIPE, stderr=told, env=environment, text=True
        ) as process,
    ):
        assert process.stdout is not None
        url = process.stdout.readline()
        try:
            assert URL.fullmatch(url), (url, errors.read_text())
            yield url.strip(), errors
        finally:
            process.send_signal(signal.SIGINT)
            start = time.monotonic()
            status = process.wait(timeout=20)
            seconds = time.monotonic() - start
    assert status == 0, errors.read_text()
    # the server itself ends within a second (tests/player/test_server.py); unloading torch, which
    # a conversion has loaded, takes longer on a busy machine
    assert seconds < 5
    assert list(temporary.iterdir()) == []


def fetched(url: str, **options) -> bytes:
    with urllib.request.urlopen(url, timeout=10, **options) as response:
        return response.read()


def test_a_bundle_is_served_as_it_is(splats, tmp_path: Path) -> None:
    with viewing(tmp_path, str(splats["s4d"])) as (url, errors):
        assert url.startswith("http://127.0.0.1:")
        assert b"content=scene.s4d&amp;title=statue" in fetched(url)
        assert fetched(url + "scene.s4d") == splats["s4d"].read_bytes()
        script = re.search(rb'src="\./(assets/[^"]+\.js)"', fetched(url))
        assert script is not None and len(fetched(url + script[1].decode())) > 100_000
        assert "Ctrl-C" in errors.read_text()


def test_a_run_becomes_a_bundle(tiny_run: Path, tmp_path: Path) -> None:
    with viewing(tmp_path, str(tiny_run)) as (url, errors):
        (tmp_path / "got.s4d").write_bytes(fetched(url + "scene.s4d"))
        assert b"title=tiny" in fetched(url)
        assert "making a bundle" in errors.read_text()
    manifest = open_bundle(tmp_path / "got.s4d").manifest
    assert manifest["count"] == 200 and len(manifest["cameras"]) > 1


def test_a_run_of_a_mesh_is_viewed_and_exported(tiny_capture: Path, tmp_path: Path) -> None:
    import_or_skip("xatlas")
    method = load_method("mesh")(steps=1, start="sphere", max_triangles=80, texture_size=32)
    outputs = tmp_path / "outputs"
    run = start(
        method, TrainOptions(data=tiny_capture, output_dir=outputs, device="cpu", evaluate=False)
    )
    with viewing(tmp_path, str(run), "--phone", "--host", "127.0.0.1") as (url, errors):
        (tmp_path / "got.s4d").write_bytes(fetched(url + "scene.s4d"))
        assert "fine for a mesh of 80 triangles" in errors.read_text(encoding="utf-8")
    assert open_bundle(tmp_path / "got.s4d").manifest["kind"] == "mesh"
    folder = tmp_path / "hosted"
    assert command.main(["export", str(run), "player", "--output-path", str(folder)]) == 0
    assert open_bundle(folder / "scene.s4d").manifest["kind"] == "mesh"
    # For iPhones, and not among what is kept for use without a network, as it is large.
    assert zipfile.is_zipfile(folder / "scene.usdz")
    assert "model=scene.usdz" in (folder / "index.html").read_text()
    assert "scene.usdz" not in (folder / "sw.js").read_text()
    assert "scene.usdz" in (folder / MARKER).read_text()


def test_a_file_of_a_mesh_becomes_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(glb(globe(8, rows=16), np.zeros(3), profile="web"))
    scene = playable(tmp_path / "a.glb", tmp_path / "scene.s4d", bundle=False)
    assert open_bundle(scene).manifest["kind"] == "mesh"


@pytest.mark.parametrize("name", [form.name for form in FORMATS])
def test_every_splat_format_is_played_or_becomes_a_bundle(name: str, splats, tmp_path) -> None:
    temporary = tmp_path / "scene.s4d"
    played = playable(splats[name], temporary, bundle=False)
    assert played == (splats[name] if name in PLAYED else temporary)
    assert "" in scene_site(played, title="x").files
    phone = playable(splats[name], temporary, bundle=True)
    assert open_bundle(phone).manifest["count"] == 200


def spoilt(path: Path) -> bytes:
    """The PLY with its first splat's x not a number."""
    data = path.read_bytes()
    start = data.index(b"end_header\n") + 11
    return data[:start] + struct.pack("<f", float("nan")) + data[start + 4 :]


@pytest.mark.parametrize("form", ["binary_big_endian", "ascii", "binary_little_endian double"])
def test_a_ply_of_another_kind_is_shown_as_convert_reads_it(form: str, splats, tmp_path) -> None:
    source, (order, *doubles) = tmp_path / "odd.ply", form.split()
    head, _, body = splats["ply"].read_bytes().partition(b"end_header\n")
    head = head.replace(b"binary_little_endian", order.encode())
    table = np.frombuffer(body, "<f4").reshape(200, -1)
    if doubles:
        head, body = head.replace(b"property float", b"property double"), table.astype("<f8")
    elif order == "ascii":
        body = "\n".join(" ".join(f"{v:.9g}" for v in row) for row in table.tolist()).encode()
    else:
        body = table.astype(">f4")
    source.write_bytes(head + b"end_header\n" + bytes(body))
    shown = playable(source, tmp_path / "scene.s4d", bundle=False)
    assert shown == tmp_path / "scene.ply"
    assert shown.read_bytes() == splats["ply"].read_bytes()


def test_damaged_splats_are_left_out_of_what_is_shown(splats, tmp_path, caplog) -> None:
    source = tmp_path / "nan.ply"
    source.write_bytes(spoilt(splats["ply"]))
    shown = playable(source, tmp_path / "scene.s4d", bundle=False, drop_invalid=True)
    assert len(read_splats(shown)) == 199
    assert "left out 1 of 200 splats" in caplog.text


def test_an_unpacked_bundle_is_served_member_by_member(splats, tmp_path: Path) -> None:
    import zipfile

    folder = tmp_path / "unpacked.s4d"
    with zipfile.ZipFile(splats["s4d"]) as file:
        file.extractall(folder)
    (folder / "private.txt").write_text("not in the manifest")
    site = scene_site(folder, title="x")
    served = {name for name in site.files if name.startswith("scene/")}
    assert served == {f"scene/{p.name}" for p in folder.iterdir()} - {"scene/private.txt"}


def test_an_unpacked_bundle_may_have_any_name(splats, tmp_path: Path) -> None:
    folder = tmp_path / "statue"
    with zipfile.ZipFile(splats["s4d"]) as packed:
        packed.extractall(folder)
    for source in (folder, folder / "manifest.json"):
        assert playable(source, tmp_path / "made.s4d", bundle=True) == folder
    assert "scene/manifest.json" in scene_site(folder, title="").files
    (folder / "manifest.json").write_text('{"name": "another program\'s"}')
    with pytest.raises(DataError, match="format 's4d'"):
        scene_site(folder, title="")


def test_phone_prints_an_address_of_the_network_and_a_code(splats, tmp_path: Path) -> None:
    try:
        address = lan_address()
    except DataError as error:
        pytest.skip(str(error))
    with viewing(tmp_path, str(splats["spz"]), "--phone") as (url, errors):
        assert URL.fullmatch(url + "\n")[2] == address  # type: ignore[index]
        told = errors.read_text(encoding="utf-8")
        assert "plain HTTP" in told and "WebGL2" in told
        assert "▀" in told or "QR code" in told
        assert b"content=scene.s4d" in fetched(url)


def test_phone_tells_of_light_slabs_by_their_name(tmp_path: Path) -> None:
    scene = Path(__file__).parents[2] / "viewers/web/tests/fixtures/slabs.s4d"
    with viewing(tmp_path, str(scene), "--phone", "--host", "127.0.0.1") as (_, errors):
        told = errors.read_text(encoding="utf-8")
    assert "fine for a light field" in told


def test_phone_over_https(splats, tmp_path: Path) -> None:
    import_or_skip("cryptography")
    options = ["--phone", "--https", "always", "--host", "127.0.0.1"]
    with viewing(tmp_path, str(splats["s4d"]), *options) as (url, errors):
        assert url.startswith("https://127.0.0.1:")
        trusting = ssl._create_unverified_context()
        assert fetched(url + "scene.s4d", context=trusting) == splats["s4d"].read_bytes()
        assert "WebGPU" in errors.read_text(encoding="utf-8")


def test_it_tells_who_can_reach_it(splats, tmp_path: Path) -> None:
    for host, told in (("127.0.0.1", "this machine alone"), ("localhost", "this machine alone"),
                       ("0.0.0.0", "all who reach this machine's network")):  # fmt: skip
        with viewing(tmp_path, str(splats["s4d"]), "--host", host) as (url, errors):
            assert told in errors.read_text(encoding="utf-8")
            assert "0.0.0.0" not in url and fetched(url)


def test_https_has_a_certificate_for_a_name(splats, tmp_path: Path) -> None:
    import_or_skip("cryptography")
    options = ["--phone", "--https", "always", "--host", "localhost"]
    with viewing(tmp_path, str(splats["s4d"]), *options) as (url, errors):
        assert url.startswith("https://")
        assert "no address that a phone reaches" in errors.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (["missing.ply"], 1, "not found"),
        (["README"], 1, "no scene that the player can show"),
        (["mesh.ply"], 1, "not a Gaussian-splat PLY"),
        (["mesh.obj"], 1, "or a mesh as .glb"),
        (["cut.ply"], 1, "is cut off"),
        (["cut.s4d"], 1, "cut.s4d"),
        (["nan.ply"], 1, "--drop-invalid"),
        (["x.s4d", "--port", "70000"], 2, "--port"),
        (["x.s4d", "--https", "always"], 2, "--phone"),
    ],
)
def test_bad_input(arguments, status, told, splats, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("README").write_text("text")
    Path("mesh.obj").write_text("v 0 0 0\n")
    corners = "".join(f"property float {axis}\n" for axis in "xyz")
    Path("mesh.ply").write_text(
        f"ply\nformat ascii 1.0\nelement vertex 1\n{corners}element face 0\n"
        "property list uchar int vertex_indices\nend_header\n0 0 0\n"
    )
    for name in ("ply", "s4d"):
        Path(f"cut.{name}").write_bytes(splats[name].read_bytes()[:-600])
    Path("nan.ply").write_bytes(spoilt(splats["ply"]))
    try:
        ended = command.main(["view", "--no-open", *arguments])
    except SystemExit as error:  # tyro's own, for what does not parse
        ended = error.code
    assert ended == status
    printed = capsys.readouterr()
    assert told in printed.err and "Traceback" not in printed.err
    assert printed.out == ""  # no address


def test_export_player(splats, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "hosted"
    arguments = ["export", str(splats["spz"]), "player", "--output-path", str(folder)]
    assert command.main([*arguments, "--target", "phone-low", "--title", "A statue"]) == 0
    told = capsys.readouterr()
    assert told.out == f"{folder}\n"
    assert "target phone-low" in told.err and "fits as it is" in told.err
    assert "<title>A statue</title>" in (folder / "index.html").read_text()
    page = tmp_path / "one.html"
    arguments = ["export", str(splats["s4d"]), "player", "--output-path", str(page)]
    assert command.main([*arguments, "--single-file"]) == 0
    assert page.stat().st_size > 1_000_000


def test_options_of_other_formats_are_told(splats, tmp_path: Path, capsys) -> None:
    arguments = ["export", str(splats["spz"]), "ply", "--output-path", str(tmp_path / "a.ply")]
    assert command.main([*arguments, "--target", "phone"]) == 0
    assert "the options for player are ignored by ply" in capsys.readouterr().err
