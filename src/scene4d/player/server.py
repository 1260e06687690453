"""An HTTP server for one :class:`Site`: Range, ETag, a token in the address, HTTPS if asked for."""

from __future__ import annotations

import gzip
import hashlib
import io
import ipaddress
import os
import secrets
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import unquote

from scene4d.errors import DataError, UsageError
from scene4d.player.places import Places
from scene4d.player.ranges import UnsatisfiableRangeError, requested_range
from scene4d.player.site import Site

LOOPBACK = "127.0.0.1"
IDLE_SECONDS = 30
"""A connection that takes nothing of an answer for so long is closed."""
_PART = 1 << 18
_COMPRESSED = {"", ".html", ".js", ".mjs", ".css", ".svg", ".wasm", ".webmanifest"}
"""The player's own files; scenes are compressed as they are, and read in ranges."""
_TYPES = {
    "": "text/html; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".glb": "model/gltf-binary",
    ".usdz": "model/vnd.usdz+zip",
}
"""Written down, because the tables of operating systems differ; anything else is bytes."""


class SceneServer(ThreadingHTTPServer):
    """Serves ``site`` and nothing else; use as a context, or :meth:`close` it."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64
    allow_reuse_address = os.name != "nt"  # on Windows that would share the port

    def __init__(
        self, site: Site, *, host: str = LOOPBACK, port: int = 0, certificate: Path | None = None
    ) -> None:
        """Binds at once; ``port`` 0: a free one. ``certificate``: PEM file with certificate and
        key, for HTTPS. Raises :class:`UsageError` when the address cannot be had."""
        self.site = site
        self.secure = certificate is not None
        self.places = Places()
        self.compressed: dict[str, bytes] = {}
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError, UnicodeError) as error:
            raise UsageError(
                f"cannot serve there ({getattr(error, 'strerror', None) or error})",
                where=f"{host}:{port}",
                fix="choose another --port, or leave it out for a free one",
            ) from error
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            # Each connection shakes hands in its own thread: a silent one must not stop the others.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    @property
    def url(self) -> str:
        """The address of the page, with the token."""
        host, port = printable_host(str(self.server_address[0])), self.server_address[1]
        place = f"[{host}]" if ":" in host else host
        return f"{'https' if self.secure else 'http'}://{place}:{port}/{self.site.token}/"

    def server_bind(self) -> None:
        """Binds without asking the name service for this machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def serve_until_stopped(self, announce: Callable[[], None] = lambda: None) -> None:
        """Answers requests until Ctrl-C, or SIGTERM within :func:`stopped_by_signals`.

        ``announce`` tells the address first: who reads it may already end the server.
        """
        try:
            announce()
            self.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            pass
        finally:
            self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the request, if there is a place for it."""
        if not self.places.take(request, str(client_address[0])):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The thread's work; its place is free afterwards."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.leave(request)

    def service_actions(self) -> None:
        """Called between requests: closes the connections that only hold their places."""
        self.places.close_idle()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break off, or speak no TLS, are nothing to tell the user about."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the site's files."""

    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server: SceneServer

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.settimeout(IDLE_SECONDS)
            self.request.do_handshake()
        super().setup()

    def do_GET(self) -> None:
        with self.server.places.busy(self.request):
            self._answer(body=True)

    def do_HEAD(self) -> None:
        with self.server.places.busy(self.request):
            self._answer(body=False)

    def version_string(self) -> str:
        return "scene4d"

    def log_message(self, *args: object) -> None:
        """The terminal is the user's."""

    def _answer(self, *, body: bool) -> None:
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # a body that nobody reads would look like a request
        path, _, query = self.path.partition("?")
        token, slash, name = path.removeprefix("/").partition("/")
        expected = self.server.site.token.encode()
        known = secrets.compare_digest(token.encode("latin-1", "replace"), expected)
        if known and not slash:
            target = f"/{self.server.site.token}/" + (f"?{query}" if query else "")
            self._send_head(HTTPStatus.PERMANENT_REDIRECT, {"Location": target}, length=0)
            return
        content = self.server.site.files.get(unquote(name)) if known else None
        try:
            opened = None if content is None else _opened(content)
        except OSError:  # deleted since
            opened = None
        if opened is None:
            self._send_text(HTTPStatus.NOT_FOUND, body=body)
            return
        file, size, tag = opened
        suffix = Path(name).suffix.lower()
        with file:
            if suffix in _COMPRESSED and not self.headers.get("Range") and self._takes_gzip():
                self._send_compressed(file, tag, suffix=suffix, body=body)
            else:
                self._send_file(file, size, tag, suffix=suffix, body=body)

    def _takes_gzip(self) -> bool:
        """Whether Accept-Encoding names gzip, and not with a weight of 0 (RFC 9110, 12.5.3)."""
        for part in (self.headers.get("Accept-Encoding") or "").split(","):
            name, _, weight = part.replace(" ", "").partition(";q=")
            if name.lower() == "gzip":
                return weight not in ("0", "0.0", "0.00", "0.000")
        return False

    def _send_compressed(
        self, file: io.BufferedIOBase, tag: str, *, suffix: str, body: bool
    ) -> None:
        packed = self.server.compressed.get(tag)
        if packed is None:
            packed = self.server.compressed[tag] = gzip.compress(file.read(), 6, mtime=0)
        tag = f'{tag[:-1]}-gzip"'
        known = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept-Encoding"}
        if _matches(self.headers.get("If-None-Match"), tag):
            self._send_head(HTTPStatus.NOT_MODIFIED, known, length=None)
            return
        known |= {"Content-Type": _TYPES[suffix], "Content-Encoding": "gzip"}
        self._send_head(HTTPStatus.OK, known, length=len(packed))
        if body:
            self._send_bytes(io.BytesIO(packed), 0, len(packed))

    def _send_file(
        self, file: io.BufferedIOBase, size: int, tag: str, *, suffix: str, body: bool
    ) -> None:
        known = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}
        if _matches(self.headers.get("If-None-Match"), tag):
            self._send_head(HTTPStatus.NOT_MODIFIED, known, length=None)
            return
        if suffix in _COMPRESSED:
            known["Vary"] = "Accept-Encoding"
        known["Content-Type"] = _TYPES.get(suffix, "application/octet-stream")
        try:
            # Range is defined for GET alone; If-Range must be this very version (13.1.5, 14.2).
            current = self.headers.get("If-Range", tag) == tag
            part = requested_range(self.headers.get("Range") if body and current else None, size)
        except UnsatisfiableRangeError:
            headers = {"Content-Range": f"bytes */{size}"}
            self._send_text(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers, body=body)
            return
        first, length = (part.first, part.length) if part else (0, size)
        if part:
            known["Content-Range"] = f"bytes {part.first}-{part.last}/{size}"
        status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
        self._send_head(status, known, length=length)
        if body:
            self._send_bytes(file, first, length)

    def _send_bytes(self, file: io.BufferedIOBase, first: int, length: int) -> None:
        file.seek(first)
        while length > 0:
            data = file.read(min(_PART, length))
            if not data:  # shorter than it was: the length that was promised cannot be kept
                self.close_connection = True
                return
            try:
                self.wfile.write(data)
            except OSError:  # the browser went away
                self.close_connection = True
                return
            length -= len(data)

    def _send_text(
        self, status: HTTPStatus, headers: dict[str, str] | None = None, *, body: bool
    ) -> None:
        text = f"{status.phrase}\n".encode()
        plain = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
        self._send_head(status, {**plain, **(headers or {})}, length=len(text))
        if body:
            self.wfile.write(text)

    def _send_head(
        self, status: HTTPStatus, headers: dict[str, str], *, length: int | None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Content-Security-Policy", self.server.site.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")  # the address holds the token
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def printable_host(host: str) -> str:
    """An address that a browser can ask: where all addresses are served, one of them."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host
    if not everywhere:
        return host
    from scene4d.player.phone import lan_address

    try:
        return lan_address()
    except DataError:
        return LOOPBACK


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _opened(content: Path | bytes) -> tuple[io.BufferedIOBase, int, str]:
    """The content to read from, its size, and a strong validator."""
    if isinstance(content, bytes):
        return io.BytesIO(content), len(content), f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    file = open(content, "rb")  # noqa: SIM115 - the caller closes it
    status = os.fstat(file.fileno())
    return file, status.st_size, f'"{status.st_mtime_ns:x}-{status.st_size:x}"'


def _matches(header: str | None, tag: str) -> bool:
    """Whether If-None-Match names ``tag`` (RFC 9110, 13.1.2: weak comparison) or any."""
    tags = [part.strip().removeprefix("W/") for part in (header or "").split(",")]
    return tag in tags or tags == ["*"]


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Within, SIGTERM ends the work as Ctrl-C does, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
