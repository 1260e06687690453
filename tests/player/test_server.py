"""The scene's server over real sockets: ranges, tokens, traversal, HEAD, many at once, the end."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optional_packages import import_or_skip

from scene4d.errors import DataError, UsageError
from scene4d.player import places
from scene4d.player.phone import lan_address, make_certificate, qr_code
from scene4d.player.places import MAX_CONNECTIONS
from scene4d.player.player_files import page_with, policy_of, policy_text, with_policy
from scene4d.player.ranges import ByteRange, UnsatisfiableRangeError, requested_range
from scene4d.player.server import SceneServer, is_loopback
from scene4d.player.site import Site, scene_files

SIZE = 10_000
CONTENT = random.Random(0).randbytes(SIZE)
SECRET = b"nobody may read this"
PAGE = b"<!doctype html><title>page</title>"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SceneServer]:
    (tmp_path / "served").mkdir()
    (tmp_path / "secret.txt").write_bytes(SECRET)
    scene = tmp_path / "served" / "scene.s4d"
    scene.write_bytes(CONTENT)
    (tmp_path / "served" / "neighbour.txt").write_bytes(SECRET)
    site = Site(files={"": PAGE, "scene.s4d": scene, "assets/a.js": b"1;"})
    with SceneServer(site) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: SceneServer, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body; ``path`` behind the token."""
    return ask_at(server, f"/{server.site.token}/{path}", method=method, **headers)


def ask_at(
    server: SceneServer, target: str, *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, target, headers=named)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, body


# Range: the examples of RFC 9110, 14.1.2 and 14.4, of a representation of 10,000 bytes

RFC_EXAMPLES = [
    ("bytes=0-499", (0, 499)),
    ("bytes=500-999", (500, 999)),
    ("bytes=-500", (9500, 9999)),
    ("bytes=9500-", (9500, 9999)),
    ("bytes=0-0", (0, 0)),
    ("bytes=9999-9999", (9999, 9999)),
    ("bytes=-20000", (0, 9999)),  # longer than the representation: all of it
    ("bytes=9000-20000", (9000, 9999)),  # the last position is beyond the end: up to the end
    ("BYTES=1-2", (1, 2)),  # units are case-insensitive (14.1)
    ("bytes= 1-2", (1, 2)),
    ("bytes=1-2,", (1, 2)),  # an empty element of a list is ignored (5.6.1.2)
]
IGNORED = [
    "bytes=0-0,-1",  # several: may be ignored (14.2)
    "bytes=500-600,601-999",
    "bytes=999-500",  # invalid (14.1.1)
    "bytes=-",
    "bytes=",
    "bytes",
    "bytes=a-b",
    "bytes=1 - 2",
    "bytes=--1",
    "bytes=+1-2",
    "bytes=1-2-3",
    "bytes=0x1-2",
    "bytes=\u0661-\u0662",  # digits, but not those of ASCII
    "items=0-1",
    "",
]
UNSATISFIABLE = ["bytes=10000-", "bytes=10000-10001", "bytes=-0", f"bytes={'9' * 90}-"]


@pytest.mark.parametrize(("header", "expected"), RFC_EXAMPLES)
def test_ranges_of_the_rfc(server: SceneServer, header: str, expected: tuple[int, int]) -> None:
    first, last = expected
    assert requested_range(header, SIZE) == ByteRange(first=first, last=last)
    status, headers, body = ask(server, "scene.s4d", Range=header)
    assert status == 206
    assert headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert headers["content-length"] == str(last - first + 1)
    assert body == CONTENT[first : last + 1]


@pytest.mark.parametrize("header", IGNORED)
def test_other_ranges_are_ignored(server: SceneServer, header: str) -> None:
    assert requested_range(header, SIZE) is None
    if header.isascii():
        status, headers, body = ask(server, "scene.s4d", Range=header)
        assert (status, body) == (200, CONTENT)
        assert headers["accept-ranges"] == "bytes" and "content-range" not in headers


@pytest.mark.parametrize("header", UNSATISFIABLE)
def test_ranges_behind_the_end_are_refused(server: SceneServer, header: str) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        requested_range(header, SIZE)
    status, headers, body = ask(server, "scene.s4d", Range=header)
    assert status == 416 and headers["content-range"] == f"bytes */{SIZE}"
    assert CONTENT[:16] not in body


def test_nothing_can_be_asked_of_an_empty_file() -> None:
    for header in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        with pytest.raises(UnsatisfiableRangeError):
            requested_range(header, 0)


def test_any_header_gives_bytes_that_exist() -> None:
    rng = random.Random(1)
    for _ in range(5000):
        size = rng.choice([0, 1, 7, SIZE])
        header = "bytes=" + "".join(rng.choice("0123456789-, b=") for _ in range(rng.randrange(9)))
        try:
            found = requested_range(header, size)
        except UnsatisfiableRangeError:
            continue
        assert found is None or (0 <= found.first <= found.last < size and found.length >= 1)


def test_a_resumed_download_is_of_one_version(server: SceneServer) -> None:
    """If-Range (13.1.5): the part of the same version, else the whole of the new one."""
    _, headers, _ = ask(server, "scene.s4d")
    tag = headers["etag"]
    assert ask(server, "scene.s4d", Range="bytes=0-9", If_Range=tag)[0] == 206
    assert ask(server, "scene.s4d", Range="bytes=0-9", If_Range=f"W/{tag}")[0] == 200
    path = server.site.files["scene.s4d"]
    assert isinstance(path, Path)
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(1, 1))
    status, headers, body = ask(server, "scene.s4d", Range="bytes=0-9", If_Range=tag)
    assert (status, body) == (200, CONTENT[::-1]) and headers["etag"] != tag


def test_what_the_browser_has_is_not_sent_again(server: SceneServer) -> None:
    for path in ("", "scene.s4d"):
        _, headers, _ = ask(server, path)
        tag = headers["etag"]
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            status, headers, body = ask(server, path, If_None_Match=known)
            assert (status, body) == (304, b"") and headers["etag"] == tag
        assert ask(server, path, If_None_Match='"x"')[0] == 200


# HEAD, types, headers


@pytest.mark.parametrize("path", ["", "scene.s4d", "assets/a.js", "missing"])
def test_head_says_what_get_says_and_sends_nothing(server: SceneServer, path: str) -> None:
    status, headers, body = ask(server, path, method="HEAD")
    same = ask(server, path)
    dated = {"date"}
    assert (status, body) == (same[0], b"")
    assert {k: v for k, v in headers.items() if k not in dated} == {
        k: v for k, v in same[1].items() if k not in dated
    }
    assert headers["content-length"] == str(len(same[2]))


def test_range_is_for_get_alone(server: SceneServer) -> None:
    status, headers, _ = ask(server, "scene.s4d", method="HEAD", Range="bytes=0-9")
    assert (status, headers["content-length"]) == (200, str(SIZE))


def test_types_and_protection(server: SceneServer) -> None:
    for path, kind in (
        ("", "text/html; charset=utf-8"),
        ("assets/a.js", "text/javascript; charset=utf-8"),
        ("scene.s4d", "application/octet-stream"),
    ):
        _, headers, _ = ask(server, path)
        assert headers["content-type"] == kind
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"] == server.site.policy
        assert headers["server"] == "scene4d"  # no versions


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_do_nothing(server: SceneServer, method: str) -> None:
    assert ask(server, "scene.s4d", method=method)[0] == 501


# The token and what it protects


def test_a_wrong_token_looks_like_any_missing_file(server: SceneServer) -> None:
    token = server.site.token
    assert len(token) >= 22  # 128 bits in base64
    targets = [
        "/", "/scene.s4d", "/index.html", f"/{token[:-1]}/", f"/{token}x/scene.s4d", "/" + "a" * 22,
        f"/{token.swapcase()}/", f"//{token}/scene.s4d/", "/favicon.ico", f"/{token}/missing",
        f"/{token}/assets/", f"/{token}/assets", f"/?{token}", "/%fc/", "*",
    ]  # fmt: skip
    answers = []
    for target in targets:
        status, headers, body = ask_at(server, target, Range="bytes=0-1")
        headers.pop("date")
        answers.append((status, headers, body))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 404


def test_the_address_without_its_last_slash_leads_on(server: SceneServer) -> None:
    token = server.site.token
    status, headers, _ = ask_at(server, f"/{token}?view=1")
    assert (status, headers["location"]) == (308, f"/{token}/?view=1")
    assert ask_at(server, f"/{token}/?view=1")[2] == PAGE


def raw(server: SceneServer, target: bytes) -> bytes:
    """The answer to a request line that no client would make."""
    with socket.create_connection(server.server_address[:2], timeout=10) as connection:
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_no_path_leads_out_of_the_site(server: SceneServer) -> None:
    """Only listed names exist: whatever is asked, the answer is one of them or 404 or 400."""
    rng = random.Random(2)
    token = server.site.token.encode()
    pieces = [b"..", b".", b"/", b"//", b"\\", b"%2e%2e", b"%2f", b"%5c", b"%00", b"%252e", b"~",
              b"secret.txt", b"neighbour.txt", b"scene.s4d", b"assets", b"etc/passwd", b"%c0%ae",
              b"C:", b"file://", b"?", b"#", b";", b"\x00", b"\xff", b"%zz"]  # fmt: skip
    targets = [
        b"/" + token + b"/" + tail
        for tail in (
            b"../secret.txt",
            b"%2e%2e/secret.txt",
            b"assets/../../neighbour.txt",
            b"neighbour.txt",
            b"/etc/passwd",
            b"..%2f..%2fsecret.txt",
        )
    ]
    targets += [
        b"/" + token + b"/" + b"".join(rng.choices(pieces, k=rng.randrange(1, 8)))
        for _ in range(400)
    ]
    found = set()
    for target in targets:
        answer = raw(server, target)
        assert SECRET not in answer and b"root:" not in answer, target
        status, body = answer[9:12], answer.partition(b"\r\n\r\n")[2]
        assert status in (b"200", b"400", b"404"), (target, answer[:80])
        if status == b"200":
            assert body in (PAGE, CONTENT), target
        found.add(status)
    assert b"404" in found


def test_a_link_in_a_scenes_folder_is_not_served(tmp_path: Path) -> None:
    (tmp_path / "secret.webp").write_bytes(SECRET)
    folder = tmp_path / "sog"
    folder.mkdir()
    (folder / "meta.json").write_text("{}")
    (folder / "means.webp").write_bytes(b"RIFF")
    (folder / "link.webp").symlink_to(tmp_path / "secret.webp")
    content, files = scene_files(folder)
    assert content == "scene/meta.json"
    assert set(files) == {"scene/meta.json", "scene/means.webp"}
    assert scene_files(folder / "meta.json") == (content, files)
    with pytest.raises(DataError, match="neither"):
        scene_files(tmp_path)
    (tmp_path / "secret.json").write_bytes(SECRET)
    (folder / "meta.json").unlink()
    (folder / "meta.json").symlink_to(tmp_path / "secret.json")
    for named in (folder, folder / "meta.json"):
        with pytest.raises(DataError, match="symbolic link"):
            scene_files(named)


# Many, slow and vanishing clients


def test_many_requests_at_once(server: SceneServer) -> None:
    def part(i: int) -> bool:
        first = 37 * i % (SIZE - 100)
        _, _, body = ask(server, "scene.s4d", Range=f"bytes={first}-{first + 99}")
        return body == CONTENT[first : first + 100]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(part, range(200)))


def test_one_connection_serves_many_requests(server: SceneServer) -> None:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    for i in range(20):
        target = f"/{server.site.token}/" + ("scene.s4d" if i % 2 else "missing")
        connection.request("GET", target)
        response = connection.getresponse()
        assert len(response.read()) == (SIZE if i % 2 else 10) and not response.will_close
    connection.close()


def test_who_only_holds_connections_keeps_nobody_out(server: SceneServer) -> None:
    """Also from the same address, and also with requests that never end."""
    held = []
    for i in range(MAX_CONNECTIONS + 8):
        held.append(socket.create_connection(server.server_address[:2]))
        if i % 2:
            held[-1].sendall(b"GET / HTTP/1.1\r\nHost: ")
    for _ in range(5):
        assert ask(server, "")[0] == 200
    for connection in held:
        connection.close()


def test_a_request_that_does_not_come_in_time_is_closed(server: SceneServer, monkeypatch) -> None:
    monkeypatch.setattr(places, "REQUEST_SECONDS", 0.3)
    with socket.create_connection(server.server_address[:2], timeout=10) as slow:
        for byte in b"GET / HTTP/1.1\r\nHost: x":
            try:
                slow.sendall(bytes([byte]))
            except OSError:
                break
            time.sleep(0.1)
        else:
            assert slow.recv(100) == b""
    assert ask(server, "")[0] == 200


def test_places_are_shared_among_addresses() -> None:
    room, pairs = places.Places(), [socket.socketpair() for _ in range(places.MAX_CONNECTIONS + 1)]
    own = [pair[0] for pair in pairs]
    for i in range(places.MAX_OF_ADDRESS):
        assert room.take(own[i], "10.0.0.1")
    # One more of the same address costs that address its oldest one.
    assert room.take(own[-1], "10.0.0.1") and own[0].recv(1) == b""
    room.leave(own[-1])
    for i in range(places.MAX_OF_ADDRESS, places.MAX_CONNECTIONS):
        assert room.take(own[i], f"10.0.1.{i}")
    assert room.take(own[0], "10.0.1.2")
    with contextlib.ExitStack() as answering:
        for i in range(2, places.MAX_OF_ADDRESS):
            answering.enter_context(room.busy(own[i]))
        assert room.take(own[-1], "10.0.0.1")  # the last that waits has to go
        answering.enter_context(room.busy(own[-1]))
        room.take(own[1], "10.0.0.1")
    for pair in pairs:
        for end in pair:
            end.close()


def test_the_players_files_are_compressed_where_the_browser_takes_it(server: SceneServer) -> None:
    for path in ("", "assets/a.js"):
        plain = ask(server, path)
        for accepted in ("gzip", "br, gzip;q=0.5", "deflate, GZIP"):
            status, headers, body = ask(server, path, Accept_Encoding=accepted)
            assert (status, headers["content-encoding"], headers["vary"]) == (
                200, "gzip", "Accept-Encoding",
            )  # fmt: skip
            assert gzip.decompress(body) == plain[2] and headers["etag"] != plain[1]["etag"]
            tag = headers["etag"]
            assert ask(server, path, Accept_Encoding=accepted, If_None_Match=tag)[0] == 304
        for accepted in ("", "gzip;q=0", "br", "identity"):
            assert "content-encoding" not in ask(server, path, Accept_Encoding=accepted)[1]
        part = ask(server, path, Accept_Encoding="gzip", Range="bytes=0-0")
        assert part[0] == 206 and part[2] == plain[2][:1]
    scene = ask(server, "scene.s4d", Accept_Encoding="gzip")
    assert scene[2] == CONTENT and "content-encoding" not in scene[1]


def test_a_deleted_scene_is_missing(server: SceneServer) -> None:
    path = server.site.files["scene.s4d"]
    assert isinstance(path, Path)
    path.unlink()
    assert ask(server, "scene.s4d")[0] == 404


# HTTPS, addresses, the end


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "::1", "0.0.0.0", "scene.example", "x" * 300, "é", "a b"]
)
def test_certificates_are_for_numbers_and_names(host: str, tmp_path: Path) -> None:
    import_or_skip("cryptography")
    try:
        assert ":" in make_certificate(tmp_path / "a.pem", host)
        ssl.create_default_context(cafile=str(tmp_path / "a.pem"))
    except UsageError as error:
        assert host == "é" and "no plain name" in str(error)


def test_an_address_of_everywhere_is_told_as_one_that_can_be_asked() -> None:
    with SceneServer(Site(files={"": PAGE}), host="0.0.0.0") as server:
        assert "//0.0.0.0:" not in server.url
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.4", "example.org")))


def test_https_with_the_certificate_made_here(tmp_path: Path) -> None:
    import_or_skip("cryptography")
    pem = tmp_path / "certificate.pem"
    fingerprint = make_certificate(pem, "127.0.0.1")
    assert len(fingerprint) == 95 and pem.stat().st_mode & 0o077 == 0
    with SceneServer(Site(files={"": PAGE}), certificate=pem) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert server.url.startswith("https://127.0.0.1:")
        # a client that never shakes hands must not keep the next one waiting
        with socket.create_connection(server.server_address[:2]):
            # the certificate is checked: it is its own authority, and names the address
            context = ssl.create_default_context(cafile=str(pem))
            connection = http.client.HTTPSConnection(
                *server.server_address[:2], timeout=10, context=context
            )
            connection.request("GET", f"/{server.site.token}/")
            assert connection.getresponse().read() == PAGE
            connection.close()
        server.shutdown()


def test_a_port_in_use_is_a_users_error() -> None:
    with SceneServer(Site(files={})) as server, pytest.raises(UsageError, match="--port"):
        SceneServer(Site(files={}), port=server.server_address[1])
    with pytest.raises(UsageError, match="cannot serve there"):
        SceneServer(Site(files={}), host="192.0.2.77")


def test_the_lan_address_is_one_of_this_machine() -> None:
    try:
        address = lan_address()
    except DataError as error:
        assert "--host" in str(error)
        return
    with socket.socket() as probe:
        probe.bind((address, 0))  # only a machine's own addresses can be bound


def test_the_qr_code_is_the_address() -> None:
    """Compared with the modules of an independent reading of the same text."""
    segno = import_or_skip("segno")
    url = "http://192.168.1.20:43210/" + "A" * 22 + "/"
    drawn = qr_code(url)
    assert drawn is not None
    dark = {" ": "11", "▀": "01", "▄": "10", "█": "00"}  # half blocks light up a dark terminal
    rows: list[str] = []
    for line in drawn.rstrip("\n").split("\n"):
        rows += ["".join(dark[c][half] for c in line) for half in (0, 1)]
    modules = ["".join(str(b & 1) for b in row) for row in
               segno.make(url, error="m", micro=False).matrix_iter(border=2)]  # fmt: skip
    assert rows[: len(modules)] == modules


STOPPED = """
import sys
from scene4d.player.server import SceneServer, stopped_by_signals
from scene4d.player.site import Site
with stopped_by_signals():
    server = SceneServer(Site(files={"": b"x"}, token="t"))
    server.serve_until_stopped(lambda: print(server.server_address[1], flush=True))
print("ended", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_within_a_second(name: str) -> None:
    import signal

    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /t/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        # the connection stays open, which must not hold the end up
        process.send_signal(getattr(signal, name))
        start = time.monotonic()
        out, error = process.communicate(timeout=20)
    assert (process.returncode, out, error) == (0, "ended\n", "")
    assert time.monotonic() - start < 1.0


# The page


INDEX = """<!doctype html><html><head><meta
      http-equiv="Content-Security-Policy"
      content="default-src 'self'; connect-src *; upgrade-insecure-requests"
    /><title>scene4d</title></head><body></body></html>"""


def test_settings_stand_in_the_page_and_cannot_break_it() -> None:
    from html.parser import HTMLParser
    from urllib.parse import parse_qs

    title = '"><script>alert(1)</script> & \\1 é'
    page = page_with(INDEX, {"content": "scene.s4d", "title": title}, head="<link />\n")

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.tags: list[tuple[str, dict]] = []
            self.text = ""

        def handle_starttag(self, tag: str, attrs: list) -> None:
            self.tags.append((tag, dict(attrs)))

        def handle_data(self, data: str) -> None:
            self.text += data

    reader = Reader()
    reader.feed(page)
    assert "script" not in [tag for tag, _ in reader.tags]
    written = next(a["content"] for _, a in reader.tags if a.get("name") == "scene4d")
    assert parse_qs(written) == {"content": ["scene.s4d"], "title": [title]}
    assert title in reader.text


def test_the_policy_is_read_and_replaced() -> None:
    policy = policy_of(INDEX)
    assert policy == {"default-src": "'self'", "connect-src": "*", "upgrade-insecure-requests": ""}
    changed = with_policy(INDEX, {**policy, "connect-src": "'none'"})
    assert policy_of(changed)["connect-src"] == "'none'"
    assert policy_text(policy) == "default-src 'self'; connect-src *; upgrade-insecure-requests"
