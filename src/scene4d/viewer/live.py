"""The live viewer: look around in a scene, in a browser, while it trains."""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import secrets
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from scene4d.cameras.camera import Camera
from scene4d.cameras.path_files import in_frame
from scene4d.cameras.paths import focus_point, up_axis
from scene4d.errors import Scene4dError
from scene4d.optional import import_optional
from scene4d.rendering.colormap import colour_depth, depth_range
from scene4d.rendering.render import RGB, Render, Want
from scene4d.viewer.door import guarded
from scene4d.viewer.frusta import Frusta, Photos, distance_ahead, opencv_pose, vertical_fov
from scene4d.viewer.panel import Panel
from scene4d.viewer.screen import Resolution, ScreenView
from scene4d.viewer.turns import Turns

_REST_AFTER_S = 0.2
_REFRESH_S = 1.0
"""At rest the picture is renewed this often while the scene trains on."""
_MOVING_SHARE, _REST_SHARE = 0.5, 0.2
"""Largest shares of the time that rendering takes from training."""
_STATUS_EVERY_S = 0.25
_DEPTH_LIMIT = 167.0
"""viser sends depth in steps of 1e-5, in 24 bits."""
_MOST_NEAR = 0.5
_REACH = 2.0
"""In viser's units, the distance to what the cameras look at; everything sent is scaled to that.
viser draws no background with depth where its near plane is above about 1, and its near plane is a
share of that distance; and depth has to stay within its limit."""
_log = logging.getLogger("scene4d")


@runtime_checkable
class Renderable(Protocol):
    """What the viewer needs of a representation."""

    def render(
        self,
        camera: Camera,
        *,
        background: Float[Tensor, " 3"] | None = None,
        want: Want = RGB,
    ) -> Render:
        """The picture at a camera."""

    def parameters(self) -> Iterator[Tensor]:
        """Its parameters: they tell on which device it renders."""


@runtime_checkable
class Shot(Protocol):
    """A frame of the capture."""

    @property
    def camera(self) -> Camera:
        """How it was taken."""


@runtime_checkable
class Capture(Protocol):
    """What the viewer needs of a scene."""

    @property
    def frames(self) -> Sequence[Shot]:
        """All frames."""

    @property
    def train_indices(self) -> Sequence[int]:
        """Which of them are trained on."""

    @property
    def background(self) -> tuple[float, float, float] | None:
        """The colour behind the scene."""


@dataclass(eq=False)
class _Browser:
    """One connected browser, and what it was shown last."""

    client: Any
    moved_at: float
    shown_at: float = 0.0
    shown_full: bool = False
    shown_step: int = -1
    stale: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """What a browser is shown."""

    pixels: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"] | None = None
    """Along the viewing axis, viser's units; frusta behind it are hidden."""


class LiveViewer:
    """Shows a representation in the browser and lets it train in between.

    The trainer calls ``with viewer.training_step():`` around everything that changes parameters
    (it blocks while paused, see :class:`Turns` for how training and rendering share the time), and
    :meth:`after_step`. A failing render is reported in the page and on stderr; training goes on.
    """

    def __init__(
        self,
        scene: Capture,
        representation: Renderable,
        *,
        images: Photos | None = None,
        uses_time: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        longest_side: int = 1024,
    ) -> None:
        """Starts serving. ``images``: for the cameras' thumbnails. ``uses_time``: whether renders
        differ by the camera's time. ``port`` 0: a free one; takes the next one that is free, and
        says so, where ``port`` is not. Raises :class:`MissingExtraError` without viser.
        """
        cameras = [scene.frames[i].camera for i in scene.train_indices]
        if not cameras:
            raise Scene4dError("the viewer needs at least one training camera")
        self.representation = representation
        self.scale = _REACH / focus_point(cameras)[1]
        """viser's units in one of the scene."""
        cameras = _scaled(cameras, self.scale)
        self.background = torch.tensor(scene.background or (0.0, 0.0, 0.0))
        self._turns, self._resolution = Turns(), Resolution()
        self._browsers: dict[int, _Browser] = {}
        self._wake, self._step, self._status_at = threading.Event(), 0, 0.0
        token = secrets.token_urlsafe(16)
        self.server = _start_server(host, port, token)
        self.url = f"http://{host}:{self.server.get_port()}/{token}/"
        self.frusta = Frusta(
            self.server, cameras, scene.train_indices, images, background=self.background
        )
        _place_first_camera(self.server, cameras, self.frusta.length)
        self.panel = Panel(
            self.server,
            longest_side=longest_side,
            times=_time_range(cameras) if uses_time else None,
            on_change=self._make_stale,
            on_pause=self.set_paused,
            on_show_cameras=lambda shown: setattr(self.frusta, "visible", shown),
        )
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(self._disconnected)
        self._thread = threading.Thread(target=self._run, name="scene4d-viewer", daemon=True)
        self._thread.start()
        atexit.register(self.close)
        print(f"viewer: {self.url}", file=sys.stderr)

    @property
    def paused(self) -> bool:
        """Whether training waits."""
        return self._turns.paused

    def set_paused(self, paused: bool) -> None:
        """Pauses training before its next step, or resumes it."""
        self._turns.paused = paused
        self.panel.show_paused(paused)

    def training_step(self) -> AbstractContextManager[None]:
        """Held around one step of training: nothing is rendered meanwhile."""
        if not self._turns.paused and self.panel.paused:  # a signal ended the pause
            self.panel.show_paused(False)
        return self._turns.training()

    def after_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tells the viewer that the parameters changed, and what to show in the panel."""
        self._step = step
        now = time.monotonic()
        if metrics and now - self._status_at > _STATUS_EVERY_S:
            self._status_at = now
            self.panel.show_metrics(step, metrics)

    def close(self) -> None:
        """Stops rendering and serving; a paused training goes on. May be called twice."""
        if self._turns.closed:
            return
        self._turns.closed = True
        atexit.unregister(self.close)
        self._wake.set()
        self.frusta.close()
        self._thread.join(timeout=10)
        with _without_viser_on_stdout():
            self.server.stop()

    def __enter__(self) -> LiveViewer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def render_view(
        self, view: ScreenView, size: tuple[int, int], *, share: float = 1.0
    ) -> Picture | None:
        """The picture of a browser's view at ``size`` (width, height), when its turn has come.

        None if the viewer was closed in the meantime.
        """
        moment = None if self.panel.time is None else float(self.panel.time.value)
        device = next((p.device for p in self.representation.parameters()), torch.device("cpu"))
        camera = view.camera(*size, time=moment).to(device)
        output = self.panel.output.value
        hides = self.frusta.visible
        with self._turns.rendering(share) as mine:
            if not mine:
                return None
            start = time.monotonic()
            with torch.no_grad():
                render = self.representation.render(
                    camera,
                    background=self.background.to(device),
                    want=Want(depth=hides or output == "depth"),
                )
                depth = _depth_for_viser(render, self.scale) if hides else None
                picture = Picture(pixels=_pixels(render, output), depth=depth)
            self._resolution.measured(time.monotonic() - start, size[0] * size[1])
        return picture

    def _connected(self, client: Any) -> None:
        browser = _Browser(client=client, moved_at=time.monotonic())
        self._browsers[client.client_id] = browser

        @client.camera.on_update
        def _(_: Any) -> None:
            browser.moved_at = time.monotonic()
            self._wake.set()

        self._wake.set()

    def _disconnected(self, client: Any) -> None:
        self._browsers.pop(client.client_id, None)

    def _make_stale(self) -> None:
        for browser in list(self._browsers.values()):
            browser.stale = True
        self._wake.set()

    def _run(self) -> None:
        while not self._turns.closed:
            task = self._next_task(time.monotonic())
            if task is None:
                self._wake.wait(0.05)
                self._wake.clear()
                continue
            try:
                self._show(*task)
            except Exception as error:  # whatever a renderer raises must not end the viewer
                if self._turns.closed:
                    return
                _log.warning("viewer: the picture could not be rendered: %r", error)
                self.panel.show_problem(f"`{type(error).__name__}`: {error}")
                task[0].stale, task[0].shown_at = False, time.monotonic()
                time.sleep(1.0)

    def _next_task(
        self, now: float
    ) -> tuple[_Browser, Literal["moving", "rest", "refresh"]] | None:
        """Moving browsers first, then those at rest without a full picture, then outdated ones."""
        browsers = sorted(self._browsers.values(), key=lambda b: b.shown_at)
        for browser in browsers:
            if browser.moved_at > browser.shown_at and now - browser.moved_at < _REST_AFTER_S:
                return browser, "moving"
        for browser in browsers:
            at_rest = now - browser.moved_at >= _REST_AFTER_S
            changed = browser.stale or browser.moved_at > browser.shown_at
            if changed or (at_rest and not browser.shown_full):
                return browser, "rest"
        for browser in browsers:
            if browser.shown_step != self._step and now - browser.shown_at > _REFRESH_S:
                return browser, "refresh"
        return None

    def _show(self, browser: _Browser, why: Literal["moving", "rest", "refresh"]) -> None:
        camera = browser.client.camera
        asked_at, step = time.monotonic(), self._step
        browser.stale = False
        view = ScreenView(
            wxyz=camera.wxyz,
            position=np.asarray(camera.position) / self.scale,
            fov=camera.fov,
            width=max(1, camera.image_width),
            height=max(1, camera.image_height),
        )
        moving = why == "moving"
        side = int(self.panel.longest_side.value)
        size = self._resolution.size(view, longest_side=side, moving=moving)
        share = _REST_SHARE if why == "refresh" else _MOVING_SHARE
        picture = self.render_view(view, size, share=share)
        if picture is None:
            return
        browser.client.scene.set_background_image(
            picture.pixels, "jpeg", jpeg_quality=70 if moving else 90, depth=picture.depth
        )
        browser.shown_at, browser.shown_full, browser.shown_step = asked_at, not moving, step


def _pixels(render: Render, output: str) -> UInt8[np.ndarray, "height width 3"]:
    """The chosen output of a render as bytes."""
    if output == "alpha":
        colours = render.alpha[..., None].expand(*render.alpha.shape, 3)
    elif output == "depth" and render.depth is not None:
        limits = depth_range(render.depth, render.alpha)
        colours = colour_depth(render.depth, render.alpha, limits)
    else:
        colours = render.rgb
    clean = torch.nan_to_num(colours, nan=0.0).clamp(0, 1)
    return (clean * 255 + 0.5).to(torch.uint8).cpu().numpy()


def _scaled(cameras: Sequence[Camera], scale: float) -> list[Camera]:
    """The cameras in viser's units."""
    similarity = torch.diag(torch.tensor([scale, scale, scale, 1.0], dtype=torch.float64))
    return [camera.float32() for camera in in_frame(cameras, similarity)]


def _depth_for_viser(render: Render, scale: float) -> Float[np.ndarray, "height width"] | None:
    """The render's depth in viser's units, with empty space as far away as can be sent."""
    if render.depth is None:
        return None
    seen = (render.alpha > 0.5) & torch.isfinite(render.depth)
    far = torch.full_like(render.depth, _DEPTH_LIMIT)
    return torch.where(seen, scale * render.depth, far).clamp(0, _DEPTH_LIMIT).cpu().numpy()


def _start_server(host: str, port: int, token: str) -> Any:
    """A viser server on ``port`` or the next free one, which answers under ``/token/`` alone."""
    viser: Any = import_optional("viser", extra="viewer", needed_for="the live viewer")
    logging.getLogger("websockets").setLevel(logging.WARNING)  # else a line for each connection
    # Between two looks at who is connected, a browser may go away: nothing to tell anybody
    warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
    with _without_viser_on_stdout(), guarded(token, host):
        server = viser.ViserServer(host=host, port=port, label="scene4d", verbose=False)
    if port and server.get_port() != port:
        _log.warning("viewer: port %d is taken; using %d", port, server.get_port())
    return server


def _without_viser_on_stdout() -> AbstractContextManager[object]:
    """viser greets and takes leave on stdout, which must stay readable for programs."""
    return contextlib.redirect_stdout(io.StringIO())


def _place_first_camera(server: Any, cameras: Sequence[Camera], frustum: float) -> None:
    """Browsers start at the first training camera and orbit around what the cameras look at."""
    first = cameras[0]
    _, position = opencv_pose(first)
    up = tuple(up_axis(cameras).tolist())
    forward = -first.c2w[:3, 2].double().cpu().numpy()
    mean_distance = focus_point(cameras)[1]
    server.scene.set_up_direction(up)
    server.initial_camera.position = position
    server.initial_camera.look_at = position + distance_ahead(first, cameras) * forward
    server.initial_camera.up = up
    server.initial_camera.fov = vertical_fov(first)
    # Only frusta are cut off there: without it the one that we start in would hide everything
    server.initial_camera.near = min(max(2 * frustum, 0.15 * mean_distance), _MOST_NEAR)
    server.initial_camera.far = 1000 * mean_distance


def _time_range(cameras: Sequence[Camera]) -> tuple[float, float] | None:
    """The first and last moment of a dynamic capture."""
    times = [float(camera.time) for camera in cameras if camera.time is not None]
    return (min(times), max(times)) if times and max(times) > min(times) else None
