"""Rows of bytes as glTF's extension EXT_meshopt_compression holds them (``ATTRIBUTES``).

Written from the extension's specification (Khronos, Appendix A, mode 0, without filters), because
files that one's own tools write should open without an extra. The package ``meshopt`` on PyPI (MIT)
does the same and more; it is two months old, of one author, and has no wheels for Intel Macs.
Tests hold this module and :mod:`scene4d.formats.meshopt_triangles` to npm's ``meshoptimizer``.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
from jaxtyping import UInt8
from numba import njit

from scene4d.errors import DataError

EXTENSION = "EXT_meshopt_compression"
_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True}
_FIRST = 0xA0
_BLOCK_BYTES, _BLOCK_ROWS, _GROUP = 8192, 256, 16
_TAIL = 32
_WIDEST = 256


def encode_attributes(rows: UInt8[np.ndarray, "count stride"]) -> bytes:
    """Rows of ``stride`` bytes, at most 256 and a multiple of 4."""
    count, stride = rows.shape
    assert count and stride % 4 == 0 and 0 < stride <= _WIDEST
    groups = -(-count // _GROUP) + _blocks(count, stride)
    out = np.zeros(1 + stride * groups * (_GROUP + 1), np.uint8)
    size = _encode_attributes(np.ascontiguousarray(rows), _block_rows(stride), out)
    return out[:size].tobytes() + bytes(max(0, _TAIL - stride)) + rows[0].tobytes()


def decode_attributes(data: bytes, count: int, stride: int) -> UInt8[np.ndarray, "count stride"]:
    """What :func:`encode_attributes` was given. Raises :class:`DataError` for other bytes."""
    tail = max(_TAIL, stride)
    if not 0 < stride <= _WIDEST or stride % 4:
        raise DataError(f"compressed rows of {stride} bytes")
    # Two bits for 16 rows are the least, so that few bytes cannot ask for much memory.
    if len(data) < 1 + tail + stride * (count // (4 * _GROUP)) or data[0] != _FIRST:
        raise DataError("compressed attributes are no such or cut off")
    out = np.empty((count, stride), np.uint8)
    stream = np.frombuffer(data, np.uint8)
    if not _decode_attributes(stream, len(data) - tail, _block_rows(stride), out):
        raise DataError("compressed attributes are damaged")
    return out


def _block_rows(stride: int) -> int:
    return min(_BLOCK_BYTES // stride // _GROUP * _GROUP, _BLOCK_ROWS)


def _blocks(count: int, stride: int) -> int:
    return -(-count // _block_rows(stride))


@no_type_check
@njit(**_OPTIONS)
def _encode_attributes(rows, block_rows, out):
    """Groups of 16 bytes' differences in 0, 2, 4 or 8 bits, whichever is shortest; the size."""
    count, stride = rows.shape
    out[0] = _FIRST
    at = 1
    differences = np.empty(_GROUP, np.uint8)
    for start in range(0, count, block_rows):
        size = min(block_rows, count - start)
        groups = (size + _GROUP - 1) // _GROUP
        for column in range(stride):
            head = at
            at += (groups + 3) // 4
            for group in range(groups):
                large2, large4, any_at_all = 0, 0, False
                for i in range(_GROUP):
                    row = start + group * _GROUP + i
                    step = 0
                    if 0 < row < start + size:
                        step = (int(rows[row, column]) - int(rows[row - 1, column])) & 255
                    code = ((step << 1) ^ 255) & 255 if step & 128 else step << 1
                    differences[i] = code
                    large2 += code >= 3
                    large4 += code >= 15
                    any_at_all |= code != 0
                bits = 8
                if not any_at_all:
                    bits = 0
                elif 4 + large2 <= 8 + large4 and 4 + large2 < _GROUP:
                    bits = 2
                elif 8 + large4 < _GROUP:
                    bits = 4
                out[head + group // 4] |= min(bits // 2, 3) << (2 * (group % 4))
                at = _write_group(differences, bits, out, at)
    return at


@no_type_check
@njit(**_OPTIONS)
def _write_group(differences, bits, out, at):
    if bits == 0:
        return at
    sentinel, each = 256 if bits == 8 else (1 << bits) - 1, 8 // bits
    rest = at + _GROUP // each
    for i in range(_GROUP // each):
        packed = 0
        for j in range(each):
            code = differences[each * i + j]
            packed = packed << bits | min(code, sentinel)
            if code >= sentinel:
                out[rest] = code
                rest += 1
        out[at + i] = packed
    return rest


@no_type_check
@njit(**_OPTIONS)
def _decode_attributes(data, end, block_rows, out):
    """Whether ``data`` up to ``end`` was the rows ``out``, whose base lies at its end."""
    count, stride = out.shape
    last = data[len(data) - stride :].astype(np.int64)
    codes = np.empty(_GROUP, np.int64)
    at = 1
    for start in range(0, count, block_rows):
        size = min(block_rows, count - start)
        groups = (size + _GROUP - 1) // _GROUP
        for column in range(stride):
            head = at
            at += (groups + 3) // 4
            if at > end:
                return False
            value = last[column]
            for group in range(groups):
                mode = data[head + group // 4] >> (2 * (group % 4)) & 3
                at = _read_group(data, at, end, mode, codes)
                if at < 0:
                    return False
                first = start + group * _GROUP
                for i in range(min(_GROUP, start + size - first)):
                    code = codes[i]
                    value = (value + (~(code >> 1) if code & 1 else code >> 1)) & 255
                    out[first + i, column] = value
            last[column] = value
    return at == end


@no_type_check
@njit(**_OPTIONS)
def _read_group(data, at, end, mode, codes):
    """Where the next one begins; -1: beyond ``end``."""
    if mode == 0:
        codes[:] = 0
        return at
    bits = 1 << mode
    each = 8 // bits
    rest = at + _GROUP // each
    if rest > end:
        return -1
    sentinel = (1 << bits) - 1
    for i in range(_GROUP):
        code = data[at + i // each] >> (8 - bits - bits * (i % each)) & sentinel
        if code == sentinel and mode < 3:
            if rest >= end:
                return -1
            code = data[rest]
            rest += 1
        codes[i] = code
    return rest
