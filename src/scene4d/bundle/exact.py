"""Linear algebra whose results are the same to the last bit on every machine.

BLAS and LAPACK sum in an order that hangs on the processor, and an eigenvector can turn on a last
bit: codes that are made with them would differ. Here sums are of integers that a double holds
exactly, in whatever order, fused or not; all else is single operations in a fixed order, which IEEE
754 defines.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_ROWS = 1 << 16
_MOMENT_BITS = 14
"""Of values whose moments are summed: 2^24 products of 2^28 are below 2^53."""
_VALUE_BITS, _MATRIX_BITS = 29, 16
"""Of the factors of a product: up to 128 terms of 2^45 are below 2^53."""
MAX_COLUMNS = 128
_SWEEPS = 40


def moments(values: np.ndarray) -> np.ndarray:
    """[c, c] values.T @ values of ``values`` [n < 2^24, c], up to a factor and to rounding them to
    2^-14 of the largest; integers below 2^53."""
    total = np.zeros((values.shape[1],) * 2)
    for part, _ in _integers(values, _MOMENT_BITS):
        total += part.T @ part
    return total


def product(values: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """[n, d] float64 of ``values`` [n, c] @ ``matrix`` [c, d], to about 2^-29 of the largest value.

    ``matrix`` has entries below 8 and at most 128 rows.
    """
    if len(matrix) > MAX_COLUMNS or np.abs(matrix).max(initial=0.0) >= 8:
        raise ValueError("the matrix has too many rows, or too large entries")
    scale = 2.0 ** (_MATRIX_BITS - 3)
    upper = np.rint(matrix * scale)
    lower = np.rint((matrix * scale - upper) * 2.0**_MATRIX_BITS)
    result = np.empty((len(values), matrix.shape[1]))
    at = 0
    for part, unit in _integers(values, _VALUE_BITS):
        fine = (part @ lower) * 2.0**-_MATRIX_BITS
        result[at : at + len(part)] = (part @ upper + fine) * (unit / scale)
        at += len(part)
    return result


def _integers(values: np.ndarray, bits: int) -> Iterator[tuple[np.ndarray, float]]:
    """Blocks of rows as whole numbers up to 2^bits in float64, and the unit, a power of 2."""
    largest = float(np.abs(values).max(initial=0.0))
    unit = 2.0 ** (int(np.frexp(largest)[1]) - bits)
    for start in range(0, len(values), _ROWS):
        yield np.rint(values[start : start + _ROWS].astype(np.float64) / unit), unit


def principal_axes(values: np.ndarray) -> np.ndarray:
    """[c, c] orthonormal rows, the direction of largest second moment of ``values`` [n, c] first;
    the largest entry of each is above 0.

    By Jacobi's rotations in cyclic order (Golub and Van Loan, 8.5).
    """
    matrix = moments(values)
    size = len(matrix)
    axes = np.eye(size)
    for _ in range(_SWEEPS):
        spread = float(np.abs(matrix - np.diag(np.diag(matrix))).max(initial=0.0))
        if spread <= 1e-14 * float(np.abs(np.diag(matrix)).max(initial=0.0)):
            break
        for p in range(size - 1):
            for q in range(p + 1, size):
                _rotate(matrix, axes, p, q)
    # Whole shares of 2^-40: equal moments stay in the order of the columns.
    largest = float(np.diag(matrix).max(initial=0.0)) or 1.0
    order = np.argsort(-np.rint(np.diag(matrix) / largest * 2.0**40), kind="stable")
    axes = np.rint(axes[order] * 2.0**40) / 2.0**40
    lead = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return axes * np.where(lead < 0, -1.0, 1.0)


def _rotate(matrix: np.ndarray, axes: np.ndarray, p: int, q: int) -> None:
    """Makes entry (p, q) 0; ``axes`` has the directions as rows."""
    apart = float(matrix[p, q])
    if apart == 0.0:
        return
    theta = (float(matrix[q, q]) - float(matrix[p, p])) / (2.0 * apart)
    tangent = 1.0 / (abs(theta) + float(np.sqrt(theta * theta + 1.0)))
    tangent = tangent if theta >= 0 else -tangent
    cosine = 1.0 / float(np.sqrt(tangent * tangent + 1.0))
    sine = tangent * cosine
    for rows in (matrix, matrix.T, axes):
        first, second = rows[p].copy(), rows[q].copy()
        rows[p] = cosine * first - sine * second
        rows[q] = sine * first + cosine * second
    matrix[p, q] = matrix[q, p] = 0.0


def inverse(matrix: np.ndarray) -> np.ndarray:
    """[c, c] float64, by Gauss and Jordan with the largest pivot of each column."""
    size = len(matrix)
    both = np.concatenate([matrix.astype(np.float64), np.eye(size)], axis=1)
    for column in range(size):
        pivot = column + int(np.abs(both[column:, column]).argmax())
        both[[column, pivot]] = both[[pivot, column]]
        both[column] /= both[column, column]
        for row in range(size):
            if row != column:
                both[row] -= both[row, column] * both[column]
    return both[:, size:]
