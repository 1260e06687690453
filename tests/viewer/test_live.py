"""The live viewer with a real scene, real threads, and a browser's own protocol."""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import os
import signal
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from optional_packages import import_or_skip
from PIL import Image

from scene4d.cameras.camera import Camera
from scene4d.cameras.conventions import flip_yz
from scene4d.cameras.path_files import in_frame
from scene4d.cameras.paths import _look_at
from scene4d.errors import MissingExtraError
from scene4d.rendering.render import RGB, Render
from scene4d.viewer.frusta import distance_ahead, frustum_length, opencv_pose, vertical_fov
from scene4d.viewer.live import LiveViewer, _depth_for_viser
from scene4d.viewer.panel import metrics_table
from scene4d.viewer.screen import MOVING_SECONDS, Resolution, ScreenView
from scene4d.viewer.turns import Turns


class Sphere(torch.nn.Module):
    """A sphere around the origin, coloured by its normals; traced exactly."""

    def __init__(self, radius: float = 1.0):
        super().__init__()
        self.radius = torch.nn.Parameter(torch.tensor(radius))
        self.radii_seen: list[float] = []

    def render(self, camera, *, background=None, want=RGB):
        before = float(self.radius)
        v, u = torch.meshgrid(
            torch.arange(camera.height) + 0.5, torch.arange(camera.width) + 0.5, indexing="ij"
        )
        k = camera.K
        rays = torch.stack(
            [(u - k[0, 2]) / k[0, 0], -(v - k[1, 2]) / k[1, 1], -torch.ones_like(u)], -1
        )
        length = rays.norm(dim=-1)
        rays = rays @ camera.c2w[:3, :3].T / length[..., None]
        origin = camera.c2w[:3, 3]
        half = rays @ origin
        under_root = half**2 - (origin @ origin - self.radius**2)
        distance = -half - under_root.clamp_min(0).sqrt()
        hit = (under_root > 0) & (distance > 0)
        normal = (origin + distance[..., None] * rays) / self.radius
        rgb = torch.where(hit[..., None], normal / 2 + 0.5, background)
        self.radii_seen += [before, float(self.radius)]
        far = (
            torch.where(hit, distance / length, torch.zeros_like(distance)) if want.depth else None
        )
        return Render(rgb=rgb, alpha=hit.float(), depth=far)


def looking_from(position) -> Camera:
    c2w = _look_at(
        torch.tensor([position], dtype=torch.float64),
        torch.zeros(1, 3, dtype=torch.float64),
        torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64),
    )[0].float()
    K = torch.tensor([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])
    return Camera(c2w=c2w, K=K, width=160, height=120)


CAMERAS = [
    looking_from((4 * math.cos(a), 4 * math.sin(a), 1.5)) for a in np.arange(0, 6.2, math.pi / 4)
]
SCENE = SimpleNamespace(
    frames=[SimpleNamespace(camera=camera) for camera in CAMERAS],
    train_indices=[0, 2, 4, 6],
    background=(0.0, 0.0, 0.0),
)


def view_of(camera: Camera, width: int, height: int) -> ScreenView:
    wxyz, position = opencv_pose(camera)
    return ScreenView(
        wxyz=wxyz, position=position, fov=vertical_fov(camera), width=width, height=height
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def viewer():
    import_or_skip("viser")
    with LiveViewer(SCENE, Sphere(), port=free_port()) as live:
        yield live


class Browser:
    """Speaks viser's protocol as its page does: sends the camera, takes what is to be shown."""

    def __init__(self, viewer: LiveViewer, camera: Camera, size=(320, 240)):
        import viser
        from websockets.sync.client import connect

        self.size, self.pictures, self.others = size, [], []
        self.scale = viewer.scale
        self.socket = connect(
            viewer.url.replace("http", "ws").removesuffix("/"),  # as the page does
            subprotocols=[f"viser-v{viser.__version__}"],
            max_size=None,
        )
        self.look(camera)
        self.thread = threading.Thread(target=self._receive, daemon=True)
        self.thread.start()

    def look(self, camera: Camera) -> None:
        wxyz, position = opencv_pose(camera)
        message = {
            "type": "ViewerCameraMessage",
            "wxyz": wxyz.tolist(),
            "position": (self.scale * position).tolist(),
            "fov": vertical_fov(camera),
            "near": 0.01,
            "far": 1000.0,
            "image_height": self.size[1],
            "image_width": self.size[0],
            "look_at": [0.0, 0.0, 0.0],
            "up_direction": [0.0, 0.0, 1.0],
        }
        self.socket.send(msgspec.msgpack.encode(message))

    def update(self, uuid: str, **values) -> None:
        message = {"type": "GuiUpdateMessage", "uuid": uuid, "updates": values}
        self.socket.send(msgspec.msgpack.encode(message))

    def wait_for_picture(self, accept, seconds=20.0) -> np.ndarray:
        """The first picture, from the newest back, that ``accept`` takes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for picture in reversed(self.pictures[:]):
                if accept(picture):
                    return picture
            time.sleep(0.02)
        pytest.fail(f"no such picture among {[p.shape for p in self.pictures]}")

    def close(self) -> None:
        self.socket.close()
        self.thread.join(timeout=5)

    def _receive(self) -> None:
        import zstandard

        for raw in self.socket:
            end = 16 + int.from_bytes(raw[8:16], "little")
            window = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(raw[16:end]))
            for message in window["messages"]:
                if message["type"] != "BackgroundImageMessage":
                    self.others.append(message)
                elif message["rgb_data"]:
                    picture = Image.open(io.BytesIO(message["rgb_data"])).convert("RGB")
                    self.pictures.append(np.asarray(picture))


def expected_picture(sphere: Sphere, camera: Camera, width: int, height: int) -> np.ndarray:
    small = view_of(camera, width, height).camera(width, height)
    with torch.no_grad():
        rgb = sphere.render(small, background=torch.zeros(3)).rgb
    return (rgb * 255).round().numpy()


def test_a_browsers_view_is_the_training_camera_it_came_from():
    for camera in CAMERAS:
        again = view_of(camera, 160, 120).camera(160, 120)
        torch.testing.assert_close(again.c2w, camera.c2w, atol=1e-6, rtol=0)  # float32
        torch.testing.assert_close(again.K, camera.K, atol=1e-4, rtol=0)
        double = view_of(camera, 160, 120).camera(320, 240)
        torch.testing.assert_close(double.K, camera.resized(320, 240).K, atol=1e-4, rtol=0)


def test_pixels_stay_square_on_the_screen_when_sizes_are_rounded():
    view = view_of(CAMERAS[0], 333, 100)
    camera = view.camera(33, 10)
    # The horizontal field of view is the screen's, whatever the rounding
    assert float(camera.width / camera.K[0, 0]) == pytest.approx(
        333 / 100 * 2 * math.tan(view.fov / 2), rel=1e-6
    )


def test_resolution_is_full_at_rest_and_affordable_while_moving():
    view = view_of(CAMERAS[0], 1600, 900)
    resolution = Resolution(seconds_per_pixel=1e-6)
    assert resolution.size(view, longest_side=800, moving=False) == (800, 450)
    assert resolution.size(view, longest_side=4000, moving=False) == (1600, 900)
    width, height = resolution.size(view, longest_side=4000, moving=True)
    # Rounding of both sides changes the number of pixels by under 2 %
    assert width * height * 1e-6 == pytest.approx(MOVING_SECONDS, rel=0.02)
    slow = Resolution(seconds_per_pixel=1.0)
    assert slow.size(view, longest_side=800, moving=True) == (48, 27)
    for _ in range(50):
        slow.measured(1.0, 1_000_000)
    assert slow.seconds_per_pixel == pytest.approx(1e-6, rel=0.05)  # 0.7^50 of 1 is 2e-8


def test_a_browser_is_shown_the_scene_at_its_camera(viewer):
    browser = Browser(viewer, CAMERAS[1])
    shown = browser.wait_for_picture(lambda p: p.shape == (240, 320, 3))
    wanted = expected_picture(viewer.representation, CAMERAS[1], 320, 240)
    # JPEG at quality 90 with halved chroma: small on average, larger at the sphere's edge
    assert np.abs(shown - wanted).mean() < 3
    browser.pictures.clear()
    browser.look(CAMERAS[5])
    wanted = expected_picture(viewer.representation, CAMERAS[5], 320, 240)
    browser.wait_for_picture(lambda p: p.shape == wanted.shape and np.abs(p - wanted).mean() < 3)
    browser.close()


def test_output_and_resolution_are_the_browsers_choice(viewer):
    browser = Browser(viewer, CAMERAS[0])
    browser.update(viewer.panel.output._impl.uuid, value="alpha")
    alpha = browser.wait_for_picture(lambda p: p.shape[0] == 240 and np.ptp(p, axis=2).max() < 30)
    assert alpha[120, 160].min() > 240 and alpha[5, 5].max() < 15
    browser.update(viewer.panel.output._impl.uuid, value="depth")
    # Turbo: the nearest point in the middle is nearly black-blue, the far rim (48 px out) red
    depth = browser.wait_for_picture(
        lambda p: p.shape[0] == 240 and p[120, 115, 0] > 100 and p[120, 160].max() < 80
    )
    assert depth[120, 115, 2] < 60
    browser.update(viewer.panel.longest_side._impl.uuid, value=128)
    browser.wait_for_picture(lambda p: p.shape == (96, 128, 3))
    browser.close()


def test_cameras_panel_and_metrics_reach_the_browser(viewer):
    viewer.after_step(42, {"num_gaussians": 1234.0, "psnr": 21.5, "loss": 0.0123456})
    browser = Browser(viewer, CAMERAS[0])
    browser.wait_for_picture(lambda p: True)
    names = {m.get("name") for m in browser.others}
    assert {"/cameras/0", "/cameras/2", "/cameras/4", "/cameras/6"} <= names
    assert "/cameras/1" not in names  # held out
    texts = str([m for m in browser.others if "Gui" in m["type"]])
    assert "Pause training" in texts and "1,234" in texts and "| step | 42 |" in texts
    browser.close()
    assert metrics_table(1000, {"b": 2.0, "psnr": 1 / 3}).splitlines() == [
        "| step | 1,000 |",
        "| :-- | --: |",
        "| psnr | 0.3333 |",
        "| b | 2 |",
    ]


def test_nothing_is_rendered_while_a_step_changes_the_parameters(viewer):
    """Every render must see one radius, although each step sets it to a wrong value first."""
    sphere, stop = viewer.representation, threading.Event()

    def train():
        step = 0
        while not stop.is_set():
            with viewer.training_step(), torch.no_grad():
                sphere.radius.fill_(99.0)
                time.sleep(0.003)
                sphere.radius.fill_(1.0)
            step += 1
            viewer.after_step(step, {"loss": 1.0})

    trainer = threading.Thread(target=train)
    trainer.start()
    browser = Browser(viewer, CAMERAS[0])
    for i in range(30):
        browser.look(CAMERAS[i % len(CAMERAS)])
        time.sleep(0.03)
    stop.set()
    trainer.join()
    browser.close()
    assert len(sphere.radii_seen) > 20
    assert set(sphere.radii_seen) == {1.0}


def test_training_keeps_its_share_and_rendering_is_not_starved():
    turns, stop, steps = Turns(), threading.Event(), [0]

    def train():
        while not stop.is_set():
            with turns.training():
                time.sleep(0.002)
            steps[0] += 1

    trainer = threading.Thread(target=train)
    trainer.start()
    rendered, start = 0.0, time.monotonic()
    renders = 0
    while time.monotonic() - start < 1.5:
        with turns.rendering(0.25) as mine:
            assert mine
            begin = time.monotonic()
            time.sleep(0.02)
            rendered += time.monotonic() - begin
        renders += 1
    share = rendered / (time.monotonic() - start)
    stop.set()
    trainer.join(timeout=5)
    assert steps[0] > 100 and renders >= 5
    assert share < 0.30  # 0.25, and the last render may lack its training yet
    assert not trainer.is_alive()


def test_an_idle_or_paused_trainer_does_not_hold_up_rendering():
    turns = Turns()
    turns.paused = True
    start = time.monotonic()
    for _ in range(5):
        with turns.rendering(0.01):
            time.sleep(0.01)
    # At a share of 1 % each would wait for a second of training
    assert time.monotonic() - start < 1.0


def test_pause_stops_steps_and_resume_continues(viewer):
    steps, stop = [0], threading.Event()

    def train():
        while not stop.is_set():
            with viewer.training_step():
                steps[0] += 1
            time.sleep(0.001)

    trainer = threading.Thread(target=train)
    trainer.start()
    time.sleep(0.1)
    viewer.set_paused(True)
    assert viewer.paused and viewer.panel.pause.label == "Resume training"
    time.sleep(0.1)
    before = steps[0]
    time.sleep(0.3)
    assert steps[0] == before > 0
    browser = Browser(viewer, CAMERAS[0])
    browser.wait_for_picture(lambda p: p.shape == (240, 320, 3))  # one can look around meanwhile
    viewer.set_paused(False)
    time.sleep(0.2)
    assert steps[0] > before
    viewer.set_paused(True)
    viewer.close()  # a paused training goes on when the viewer is gone
    time.sleep(0.2)
    after_close = steps[0]
    time.sleep(0.2)
    stop.set()
    trainer.join(timeout=5)
    assert not trainer.is_alive() and steps[0] > after_close


@pytest.mark.skipif(os.name == "nt", reason="signals to oneself work differently there")
def test_a_signal_ends_a_pause_so_that_training_can_stop():
    turns, received = Turns(), []
    turns.paused = True
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
        timer.start()
        with turns.training():
            assert received == [signal.SIGTERM] and not turns.paused
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, None)
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(received) == 2  # the handler from before is in its place again
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_failing_render_is_reported_and_training_goes_on(viewer, caplog):
    def failing(camera, *, background=None, want=RGB):
        raise RuntimeError("splats on strike")

    whole, viewer.representation.render = viewer.representation.render, failing
    browser = Browser(viewer, CAMERAS[0])
    end = time.monotonic() + 10
    while "splats on strike" not in viewer.panel.status.content and time.monotonic() < end:
        time.sleep(0.02)
    assert "splats on strike" in viewer.panel.status.content and "on strike" in caplog.text
    with viewer.training_step():
        pass
    viewer.representation.render = whole
    browser.look(CAMERAS[3])
    browser.wait_for_picture(lambda p: p.shape == (240, 320, 3))
    browser.close()


def asked(viewer: LiveViewer, path: str, **headers: str) -> tuple[int, dict[str, str]]:
    """Status and headers of a request for ``path``."""
    connection = http.client.HTTPConnection("127.0.0.1", viewer.server.get_port(), timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}


def test_only_the_page_under_the_secret_address_is_served(viewer):
    port, token = viewer.server.get_port(), viewer.url.rstrip("/").rpartition("/")[2]
    assert len(token) >= 20
    status, headers = asked(viewer, f"/{token}/")
    assert status == 200 and headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors" in headers["content-security-policy"]
    assert asked(viewer, f"/{token}")[1]["location"] == f"/{token}/"
    for path in ("/", "/index.html", f"/{token[:-1]}/", f"/x{token}/", "/%2e%2e/"):
        assert asked(viewer, path)[0] == 404, path
    assert asked(viewer, f"/{token}/", Host=f"localhost:{port}")[0] == 200
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "[", ""):
        assert asked(viewer, f"/{token}/", Host=name)[0] == 403, name


def test_a_web_page_of_another_origin_sees_nothing_and_pauses_nothing(viewer):
    import viser
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    protocols = [f"viser-v{viser.__version__}"]
    address = viewer.url.replace("http", "ws")
    own = viewer.url.partition("/" + viewer.url.rstrip("/").rpartition("/")[2])[0]
    foreign = ("https://evil.example", "http://127.0.0.1:1", "null", "file://", "http://localhost")
    for origin in foreign:
        with pytest.raises(InvalidStatus) as refused:
            connect(address, origin=origin)
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refused:  # also from its own page, without the token
        connect(own.replace("http", "ws"), origin=own)
    assert refused.value.response.status_code == 404
    with connect(address, origin=own, subprotocols=protocols, max_size=None) as socket:
        assert socket.recv(timeout=10)


def test_by_default_the_port_is_a_free_one(viewer, caplog):
    with LiveViewer(SCENE, Sphere()) as second:
        assert 0 < second.server.get_port() != viewer.server.get_port()
        assert "is taken" not in caplog.text


def test_a_busy_port_gives_the_next_and_only_this_machine_is_served(viewer, capsys, caplog):
    taken = viewer.server.get_port()
    with LiveViewer(SCENE, Sphere(), port=taken) as second:
        assert second.server.get_port() != taken
        assert f"port {taken} is taken" in caplog.text
        out, err = capsys.readouterr()
        assert second.url in err and out == ""
        assert second.server.get_host() == "127.0.0.1"


def test_thumbnails_come_from_the_photos(viewer):
    red, left = torch.tensor([1.0, 0.0, 0.0]).expand(480, 640, 3), torch.zeros(480, 640)
    left[:, :320] = 1.0  # opaque on the left; the background is black
    photo = SimpleNamespace(rgb=red, alpha=left)
    photos = SimpleNamespace(view=lambda index: photo)
    with LiveViewer(SCENE, Sphere(), images=photos, port=free_port()) as live:
        end = time.monotonic() + 5
        while live.frusta.handles[-1].image is None and time.monotonic() < end:
            time.sleep(0.01)
        picture = live.frusta.handles[0].image
        assert picture.shape == (69, 92, 3)  # every 7th pixel
        assert (picture[:, :46] == [255, 0, 0]).all() and (picture[:, 46:] == 0).all()
        pose = live.frusta.handles[1]
        c2w = flip_yz(CAMERAS[2].c2w)
        np.testing.assert_allclose(pose.position, live.scale * c2w[:3, 3], atol=1e-6)


def test_frusta_do_not_overlap_their_neighbours_nor_become_invisible():
    line = torch.zeros(11, 3)
    line[:, 0] = torch.arange(11)
    assert frustum_length(line) == pytest.approx(0.5)  # half a step, and a tenth of 5
    assert frustum_length(line.repeat(1000, 1)[::91] * 0) == 0.1  # all in one place
    pairs = torch.cat([line, line + torch.tensor([0.0, 0.2, 0.0])])
    assert frustum_length(pairs) == pytest.approx(0.1, rel=0.01)
    close = torch.cat([line, line + torch.tensor([0.0, 1e-6, 0.0])])
    assert frustum_length(close) == pytest.approx(0.02 * 5, rel=0.01)


def test_one_orbits_around_what_the_cameras_look_at():
    # All look at the origin, at sqrt(4^2 + 1.5^2); float32
    assert distance_ahead(CAMERAS[3], CAMERAS) == pytest.approx(math.hypot(4, 1.5), rel=1e-5)
    away = CAMERAS[3].with_pose(flip_yz(CAMERAS[3].c2w))  # looks the other way
    assert 0 < distance_ahead(away, CAMERAS) < 1


def test_depth_hides_frusta_only_behind_what_is_seen():
    depth = torch.tensor([[2.0, 3.0, 500.0, torch.inf]])
    alpha = torch.tensor([[1.0, 0.2, 1.0, 1.0]])
    sent = _depth_for_viser(Render(rgb=torch.zeros(1, 4, 3), alpha=alpha, depth=depth), 0.5)
    np.testing.assert_allclose(sent, [[1.0, 167.0, 167.0, 167.0]])


def in_units(unit):
    """The scene with all lengths times ``unit``."""
    sizes = torch.diag(torch.tensor([unit, unit, unit, 1.0]))
    cameras = [camera.float32() for camera in in_frame(CAMERAS, sizes)]
    return SimpleNamespace(
        **{**vars(SCENE), "frames": [SimpleNamespace(camera=c) for c in cameras]}
    )


@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_what_is_sent_does_not_depend_on_the_unit_of_length(unit):
    """viser draws no background with depth where near is above about 1: scenes of any unit are sent
    at one size."""
    import_or_skip("viser")
    scene = in_units(unit)
    cameras = [frame.camera for frame in scene.frames]
    with LiveViewer(scene, Sphere(radius=unit), port=free_port()) as live:
        first = live.server.initial_camera
        assert first.near <= 0.5
        assert np.linalg.norm(first.position) == pytest.approx(
            2.0, rel=1e-4
        )  # the origin's distance
        view = view_of(cameras[0], 64, 48)
        picture = live.render_view(view, (64, 48))
        assert picture.pixels[24, 32].max() > 100  # not black
        # On the sphere: from 2 units away, less its radius
        radius = 2.0 / math.hypot(4, 1.5)
        assert picture.depth[24, 32] == pytest.approx(2.0 - radius, rel=0.01)  # off by half a pixel


def test_a_browser_shows_the_same_picture_in_every_unit(tmp_path):
    """Its pixels: pages were black with captures in units of a hundredth or a hundred."""
    import_or_skip("viser")
    root = Path(__file__).resolve().parents[2] / "viewers" / "web"
    needs = subprocess.run(["sh", str(root / "build" / "needs.sh"), "node", "chromium"],
                           capture_output=True, text=True)  # fmt: skip
    if needs.returncode or not (root / "node_modules" / "playwright-core").is_dir():
        pytest.skip(needs.stdout.strip() or "the player's packages are not installed (make player)")
    script, shots = str(Path(__file__).with_name("screenshot.mjs")), []
    with contextlib.ExitStack() as stack:
        for unit in (0.01, 1.0, 100.0):
            viewer = LiveViewer(in_units(unit), Sphere(radius=unit), port=free_port())
            stack.callback(viewer.close)
            shots += [viewer.url, str(tmp_path / f"{unit}.png")]
        subprocess.run(["node", script, "40", *shots], check=True, timeout=300)
    shown = [np.asarray(Image.open(path).convert("RGB")) for path in shots[1::2]]
    middle = [picture[250:350, 420:580].astype(float) for picture in shown]  # no panel there
    assert min(found.std() for found in middle) > 10  # not black
    # The sphere's normals as colours; lines of cameras' frusta may differ.
    assert max(float(np.abs(found - middle[1]).mean()) for found in middle) < 8


def test_missing_viser_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "viser", None)
    with pytest.raises(MissingExtraError, match=r"scene4d\[viewer\]"):
        LiveViewer(SCENE, Sphere())


@pytest.mark.parametrize("uses_time", [False, True])
def test_a_slider_of_time_is_there_only_where_it_does_something(uses_time):
    moments = [replace(camera, time=torch.tensor(float(i))) for i, camera in enumerate(CAMERAS)]
    scene = SimpleNamespace(
        frames=[SimpleNamespace(camera=camera) for camera in moments],
        train_indices=[0, 2, 4, 6],
        background=None,
    )
    with LiveViewer(scene, Sphere(), uses_time=uses_time, port=free_port()) as live:
        assert (live.panel.time is not None) == uses_time
