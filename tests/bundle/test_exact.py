"""Linear algebra of bundles: right, and the same to the last bit however BLAS sums."""

import numpy as np
import pytest

from scene4d.bundle.exact import inverse, moments, principal_axes, product


def values_of(count: int, columns: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(columns, columns)) * 0.7 ** np.arange(columns)[:, None]
    return (rng.normal(size=(count, columns)) @ mixed).astype(np.float32)


@pytest.mark.parametrize("columns", [1, 3, 9, 45])
def test_principal_axes_are_those_of_lapack(columns):
    values = values_of(400, columns, columns)
    axes = principal_axes(values)
    np.testing.assert_allclose(axes @ axes.T, np.eye(columns), atol=1e-11)
    exact = values.astype(np.float64).T @ values.astype(np.float64)
    found = np.diag(axes @ exact @ axes.T)
    # of moments of values that are rounded to 2^-14 of the largest
    np.testing.assert_allclose(found, np.linalg.eigvalsh(exact)[::-1], atol=1e-3 * exact.max())
    assert (np.diff(found) <= 1e-3 * exact.max()).all()
    assert (np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1) > 0).all()


def test_results_do_not_hang_on_the_order_of_sums():
    """Rows in another order are other sums for BLAS; as is another width of its blocks."""
    values = values_of(3000, 9, 1)
    turned = values[::-1]
    np.testing.assert_array_equal(moments(values), moments(turned))
    np.testing.assert_array_equal(principal_axes(values), principal_axes(turned))
    basis = np.rint(principal_axes(values) * 2048) / 2048
    matrix = inverse(basis)
    whole = product(values, matrix)
    np.testing.assert_array_equal(whole[::-1], product(turned, matrix))
    order = np.random.default_rng(2).permutation(9)
    np.testing.assert_array_equal(whole, product(values[:, order], matrix[order]))
    plain = values.astype(np.float64) @ np.linalg.inv(basis)
    np.testing.assert_allclose(whole, plain, atol=2.0**-26 * np.abs(values).max())


def test_nothing_and_equal_directions_have_axes():
    np.testing.assert_array_equal(principal_axes(np.zeros((5, 3))), np.eye(3))
    np.testing.assert_array_equal(principal_axes(np.zeros((0, 3))), np.eye(3))
    np.testing.assert_array_equal(principal_axes(np.eye(3)), np.eye(3))
    with pytest.raises(ValueError, match="too large"):
        product(np.eye(3), 9 * np.eye(3))
