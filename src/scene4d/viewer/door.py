"""Who may speak to the live viewer: the page that this machine's user opened, and no other.

Any web page may open a WebSocket to 127.0.0.1. viser looks at none of what tells one page from
another, so that its door gets a doorkeeper: a token in the address, the Origin of WebSockets, and
the Host, which is a foreign name where a page had its name point here (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

Door = Callable[[Any, Any], Any]
"""(connection, request) of websockets to a response; None: the WebSocket may be opened."""
_PATCHED = threading.Lock()


def doorkeeper(token: str, host: str, inner: Door) -> Door:
    """``inner`` behind a door that opens ``/TOKEN/...`` to pages of this very address alone."""

    def answer(connection: Any, request: Any) -> Any:
        told = request.headers.get("Host", "")
        if not is_own_host(told, host):
            return _refusal(connection, HTTPStatus.FORBIDDEN)
        path, question, query = request.path.partition("?")
        first, slash, rest = path.removeprefix("/").partition("/")
        if not secrets.compare_digest(first.encode("utf-8", "replace"), token.encode()):
            return _refusal(connection, HTTPStatus.NOT_FOUND)
        if "upgrade" in request.headers:
            origin = request.headers.get("Origin")  # browsers always send it, and programs need not
            if origin is not None and not is_same_origin(origin, told):
                return _refusal(connection, HTTPStatus.FORBIDDEN)
        elif not slash:
            moved = _refusal(connection, HTTPStatus.PERMANENT_REDIRECT)
            moved.headers["Location"] = f"/{token}/{question}{query}"
            return moved
        response = inner(connection, replace(request, path=f"/{rest}{question}{query}"))
        if response is not None:
            response.headers["Referrer-Policy"] = "no-referrer"  # the address holds the token
            response.headers["Content-Security-Policy"] = "frame-ancestors 'self'"
        return response

    return answer


def is_own_host(told: str, host: str) -> bool:
    """Whether a Host header names this machine by number, as localhost, or as it was bound."""
    try:
        name = urlsplit(f"//{told}").hostname or ""
    except ValueError:
        return False
    if name in ("localhost", host.lower()):
        return True
    try:
        ipaddress.ip_address(name)  # numbers cannot be made to point elsewhere
    except ValueError:
        return False
    return True


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page of ``origin`` came from the server that was asked as ``host``."""
    scheme, _, place = origin.partition("://")
    return scheme in ("http", "https") and place.lower() == host.lower()


def _refusal(connection: Any, status: HTTPStatus) -> Any:
    return connection.respond(status, f"{status.phrase}\n")


@contextmanager
def guarded(token: str, host: str) -> Iterator[None]:
    """Within, servers that the package websockets starts (viser's) have the doorkeeper."""
    import websockets.asyncio.server as module

    with _PATCHED:
        serve = module.serve

        def serve_behind_door(*args: Any, process_request: Any = None, **options: Any) -> Any:
            inner = process_request or (lambda connection, request: None)
            door = doorkeeper(token, host, inner)
            return serve(*args, process_request=door, **options)

        module.serve = serve_behind_door  # type: ignore[misc, assignment]
        try:
            yield
        finally:
            module.serve = serve  # type: ignore[misc]
