"""Lists of triangles as glTF's extension EXT_meshopt_compression holds them (``TRIANGLES``).

Most triangles share an edge with one of those just before, and take a byte: which edge, and which
corner lies opposite. Written from the extension's specification (Khronos, Appendix A, mode 1).
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from jaxtyping import Integer
from numba import njit

from scene4d.errors import DataError

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}
_FIRST = 0xE1
_TABLE = 16
"""Bytes at the end: pairs of corners that a code may name. Ours all say that both are new."""
_KEPT, _EDGES, _BESIDE = 16, 15, 13
"""Edges and vertices kept; edges that a code can name; vertices that it can name beside one, but
for the newest."""
_EXPLICIT = 15
"""In the four bits of a corner: its number follows."""
_ALL_NEW, _NEW_FIRST, _ANY_FIRST = 0xF0, 0xFE, 0xFF
_BEFORE, _AFTER = 13, 14
"""A corner next to the last one whose number followed."""
_NEVER = -(1 << 40)
_DATA_BYTES = 16
"""At most, of a triangle."""
_EDGE, _VERTEX, _COMING, _LAST, _AT = range(5)
"""What coding keeps: edges and vertices so far, the first vertex not met yet, the last one whose
number was written, the place in the data; -1 there: it is damaged."""


def encode_triangles(triangles: Integer[np.ndarray, "count 3"]) -> bytes:
    """Corners of triangles, which may come back turned, (a, b, c) as (b, c, a). Small where they
    are in an order like that of :func:`ordered`."""
    corners = np.ascontiguousarray(triangles, dtype=np.int64)
    codes = np.empty(len(corners), np.uint8)
    data = np.empty(_DATA_BYTES * len(corners), np.uint8)
    size = _encode(corners, int(corners.max(initial=-1)) + 1, codes, data)
    return bytes([_FIRST]) + codes.tobytes() + data[:size].tobytes() + bytes(_TABLE)


def decode_triangles(data: bytes, count: int) -> Integer[np.ndarray, "count 3"]:
    """``count`` triangles; their corners are what the stream says, and may be of no vertex.

    Raises :class:`DataError` for bytes that are no such list.
    """
    # A byte for each is the least, so that few bytes cannot ask for much memory.
    if len(data) < 1 + count + _TABLE or data[0] != _FIRST:
        raise DataError("compressed triangles are no such or cut off")
    out = np.empty((count, 3), np.int64)
    stream = np.frombuffer(data, np.uint8)
    table, rest = stream[len(data) - _TABLE :], stream[: len(data) - _TABLE]
    if _decode(rest[1 : 1 + count], rest[1 + count :], table, out) != len(rest) - 1 - count:
        raise DataError("compressed triangles are damaged")
    return out


def ordered(
    triangles: Integer[np.ndarray, "count 3"], vertices: int
) -> tuple[Integer[np.ndarray, "count 3"], Integer[np.ndarray, "used"]]:
    """The triangles in an order in which most share an edge with one just before, of vertices
    numbered as they first appear; and which of the ``vertices`` these are."""
    corners = np.ascontiguousarray(triangles, dtype=np.int64)
    flat = corners.ravel()
    around = np.argsort(flat, kind="stable") // 3
    first = np.searchsorted(np.sort(flat), np.arange(vertices + 1))
    walked = corners[_walk(corners, first, around)]
    used, place, turn = np.unique(walked, return_index=True, return_inverse=True)
    order = np.argsort(place)
    rank = np.empty(len(used), np.int64)
    rank[order] = np.arange(len(used))
    return rank[turn.reshape(-1, 3)], used[order]


@no_type_check
@njit(**_OPTIONS)
def _walk(triangles, first, around):
    """An order of triangles: of those along the edges kept, the one of the least :func:`_price`;
    where there is none, one at a vertex met before.

    ``around[first[v]:first[v + 1]]`` are the triangles at vertex v.
    """
    edges, state = np.full((_KEPT, 2), -1, np.int64), np.zeros(5, np.int64)
    left = first[1:] - first[:-1]
    pushed = np.full(len(left), _NEVER, np.int64)
    done = np.zeros(len(triangles), np.bool_)
    met, order = np.empty(triangles.size, np.int64), np.empty(len(triangles), np.int64)
    unseen, top = 0, 0
    for turn in range(len(triangles)):
        best, j = _along_an_edge(triangles, first, around, edges, state, left, pushed, done)
        along = best >= 0
        while best < 0 and top > 0:
            for k in range(first[met[top - 1]], first[met[top - 1] + 1]):
                if not done[around[k]]:
                    best = around[k]
            top -= best < 0
        while best < 0:
            best = unseen if not done[unseen] else -1
            unseen += 1
        done[best] = True
        order[turn] = best
        a, b, c = triangles[best, j], triangles[best, (j + 1) % 3], triangles[best, (j + 2) % 3]
        if not along:
            _push_edge(edges, state, b, a)
        _push_edge(edges, state, c, b)
        _push_edge(edges, state, a, c)
        for v in (a, b, c):
            left[v] -= 1
            if state[_VERTEX] - pushed[v] > _BESIDE:
                pushed[v] = state[_VERTEX]
                state[_VERTEX] += 1
            met[top] = v
            top += 1
    return order


@no_type_check
@njit(**_OPTIONS)
def _along_an_edge(triangles, first, around, edges, state, left, pushed, done):
    """A triangle, and which of its corners the edge begins at; -1: there is none."""
    best, begins, least = -1, 0, 1 << 40
    for i in range(min(_EDGES, state[_EDGE])):
        place = (state[_EDGE] - 1 - i) % _KEPT
        a, b = edges[place, 0], edges[place, 1]
        for k in range(first[a], first[a + 1]):
            t = around[k]
            for j in range(3):
                if not done[t] and triangles[t, j] == a and triangles[t, (j + 1) % 3] == b:
                    c = triangles[t, (j + 2) % 3]
                    price = _price(left[c], state[_VERTEX] - pushed[c], pushed[c] < 0, i)
                    if price < least:
                        best, begins, least = t, j, price
    return best, begins


@no_type_check
@njit(**_OPTIONS)
def _price(left, age, new, edge):
    """Less for a corner that is done with after few more triangles, and for edges kept last; more
    for one that has to be numbered."""
    return 16 * left + edge + (0 if new or age <= _BESIDE else 40)


@no_type_check
@njit(**_OPTIONS)
def _push_edge(edges, state, a, b):
    place = state[_EDGE] % _KEPT
    edges[place, 0] = a
    edges[place, 1] = b
    state[_EDGE] += 1


@no_type_check
@njit(**_OPTIONS)
def _encode(triangles, vertices, codes, data):
    """Fills ``codes``, a byte each, and ``data``, of which the size comes back."""
    edges, state = np.full((_KEPT, 2), -1, np.int64), np.zeros(5, np.int64)
    pushed = np.full(vertices, _NEVER, np.int64)  # when a vertex was last one of those kept
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        found = -1
        for i in range(min(_EDGES, state[_EDGE])):
            place = (state[_EDGE] - 1 - i) % _KEPT
            for _ in range(3):
                if edges[place, 0] == a and edges[place, 1] == b:
                    found = i
                    break
                a, b, c = b, c, a
            if found >= 0:
                break
        if found >= 0:
            codes[t] = found << 4 | _corner_beside(c, pushed, state, data)
        else:
            for _ in range(2):
                if a != state[_COMING]:
                    a, b, c = b, c, a
            codes[t] = _apart(a, b, c, pushed, state, data)
            _push_edge(edges, state, b, a)
        _push_edge(edges, state, c, b)
        _push_edge(edges, state, a, c)
    return state[_AT]


@no_type_check
@njit(**_OPTIONS)
def _corner_beside(c, pushed, state, data):
    """The four bits of the corner opposite to an edge."""
    age = state[_VERTEX] - 1 - pushed[c]
    if 0 < age < _BESIDE:
        return age
    if c == state[_COMING]:
        state[_COMING] += 1
        low = 0
    elif c == state[_LAST] - 1:
        low = _BEFORE
        state[_LAST] = c
    elif c == state[_LAST] + 1:
        low = _AFTER
        state[_LAST] = c
    else:
        low = _EXPLICIT
        _write_number(c, state, data)
    pushed[c] = state[_VERTEX]
    state[_VERTEX] += 1
    return low


@no_type_check
@njit(**_OPTIONS)
def _apart(a, b, c, pushed, state, data):
    """The code of a triangle at no edge that is kept; ``a`` is the first new one of the three."""
    leads = a == state[_COMING]
    state[_COMING] += leads
    high, low = _EXPLICIT, _EXPLICIT
    if b == state[_COMING]:
        high = 0
        state[_COMING] += 1
    elif state[_VERTEX] - pushed[b] < _EXPLICIT:
        high = state[_VERTEX] - pushed[b]
    if c == state[_COMING]:
        low = 0
        state[_COMING] += 1
    elif state[_VERTEX] - pushed[c] < _EXPLICIT:
        low = state[_VERTEX] - pushed[c]
    code = _ALL_NEW
    if not leads or high or low:
        code = _NEW_FIRST if leads else _ANY_FIRST
        data[state[_AT]] = high << 4 | low
        state[_AT] += 1
    if not leads:
        _write_number(a, state, data)
    if high == _EXPLICIT:
        _write_number(b, state, data)
    if low == _EXPLICIT:
        _write_number(c, state, data)
    for corner, how in ((a, 0), (b, high), (c, low)):
        if how in (0, _EXPLICIT):
            pushed[corner] = state[_VERTEX]
            state[_VERTEX] += 1
    return code


@no_type_check
@njit(**_OPTIONS)
def _write_number(value, state, data):
    """How far from the last one, its sign in the lowest bit, in bytes of 7 bits."""
    step = value - state[_LAST]
    state[_LAST] = value
    code = step << 1 if step >= 0 else ~(step << 1)
    while code > 127:
        data[state[_AT]] = code & 127 | 128
        state[_AT] += 1
        code >>= 7
    data[state[_AT]] = code
    state[_AT] += 1


@no_type_check
@njit(**_OPTIONS)
def _decode(codes, data, table, out):
    """Fills ``out``; how much of ``data`` was read, -1 where it is damaged."""
    edges, state = np.full((_KEPT, 2), -1, np.int64), np.zeros(5, np.int64)
    recent = np.full(_KEPT, -1, np.int64)
    for t in range(len(codes)):
        edge, low = codes[t] >> 4, codes[t] & 15
        if edge < _EXPLICIT:
            place = (state[_EDGE] - 1 - edge) % _KEPT
            a, b = edges[place, 0], edges[place, 1]
            # 0 beside an edge is a new corner as elsewhere, and others are one less there
            c = _next_or_kept(low if low == 0 else low + 1, recent, state) if low < _BESIDE else -1
            if low in (_BEFORE, _AFTER):
                c = state[_LAST] + (1 if low == _AFTER else -1)
                state[_LAST] = c
            elif low == _EXPLICIT:
                c = _read_number(state, data)
            if low == 0 or low >= _BESIDE:
                _keep(c, recent, state)
        else:
            a, b, c = _read_apart(codes[t], table, data, recent, state)
            _push_edge(edges, state, b, a)
        if min(a, b, c, state[_AT]) < 0:
            return -1
        _push_edge(edges, state, c, b)
        _push_edge(edges, state, a, c)
        out[t, 0], out[t, 1], out[t, 2] = a, b, c
    return state[_AT]


@no_type_check
@njit(**_OPTIONS)
def _read_apart(code, table, data, recent, state):
    """Three corners of which no edge is kept; one of them -1 where they are none."""
    pair = table[code & 15]
    if code >= _NEW_FIRST:
        if not 0 <= state[_AT] < len(data):
            return -1, -1, -1
        pair = data[state[_AT]]
        state[_AT] += 1
        if pair == 0:
            state[_COMING] = 0
    high, low = pair >> 4, pair & 15
    if code < _NEW_FIRST and (high == _EXPLICIT or low == _EXPLICIT):
        return -1, -1, -1
    a = _read_number(state, data) if code == _ANY_FIRST else _next_or_kept(0, recent, state)
    b = _read_number(state, data) if high == _EXPLICIT else _next_or_kept(high, recent, state)
    c = _read_number(state, data) if low == _EXPLICIT else _next_or_kept(low, recent, state)
    _keep(a, recent, state)
    if high in (0, _EXPLICIT):
        _keep(b, recent, state)
    if low in (0, _EXPLICIT):
        _keep(c, recent, state)
    return a, b, c


@no_type_check
@njit(**_OPTIONS)
def _next_or_kept(how, recent, state):
    """The next new vertex for 0, otherwise the one kept ``how`` - 1 before the newest."""
    if how == 0:
        state[_COMING] += 1
        return state[_COMING] - 1
    return recent[(state[_VERTEX] - how) % _KEPT]


@no_type_check
@njit(**_OPTIONS)
def _keep(vertex, recent, state):
    recent[state[_VERTEX] % _KEPT] = vertex
    state[_VERTEX] += 1


@no_type_check
@njit(**_OPTIONS)
def _read_number(state, data):
    """What :func:`_write_number` wrote; -1 where there is none."""
    code, shift = 0, 0
    while 0 <= state[_AT] < len(data) and shift < 35:
        byte = data[state[_AT]]
        state[_AT] += 1
        code |= int(byte & 127) << shift
        shift += 7
        if byte < 128:
            value = state[_LAST] + (~(code >> 1) if code & 1 else code >> 1)
            state[_LAST] = value
            return value
    state[_AT] = -1
    return -1
