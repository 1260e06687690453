"""Eight rows of a flat row-major array as vectors, one a column, and back; and a vector logarithm.

Tensors come as ``[N, 3]``; kernels want eight x, eight y, eight z. LLVM turns each wide access and
its shuffles into a few permutes, where eight separate loads a column would cost more than the
arithmetic. Nothing is checked: rows ``row`` to ``row + 7`` must exist.
"""

from __future__ import annotations

from typing import Any, no_type_check

from llvmlite import ir
from numba import njit
from numba.core import types
from numba.extending import intrinsic

from scene4d.rendering.splats.simd import (
    _F32,
    _FV,
    _I32,
    _IV,
    F32V,
    I32V,
    LANES,
    _constant,
    _element_pointer,
    fma,
    greater,
    select,
    splat,
)


def _loader(columns: int) -> Any:
    def function(typing: Any, array: Any, row: Any) -> Any:
        kind, element = (F32V, _F32) if array.dtype == types.float32 else (I32V, _I32)
        result = types.UniTuple(kind, columns)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
            wide = ir.VectorType(element, LANES * columns)
            row_type = sig.args[1]
            start = builder.mul(
                context.cast(builder, args[1], row_type, types.intp),
                ir.Constant(ir.IntType(64), columns),
            )
            pointer_sig = types.void(sig.args[0], types.intp)
            pointer = _element_pointer(context, builder, pointer_sig, [args[0], start], wide)
            rows = builder.load(pointer)
            rows.align = 4
            undefined = ir.Constant(wide, ir.Undefined)
            picked = [
                builder.shuffle_vector(
                    rows, undefined, ir.Constant(_IV, [columns * i + k for i in range(LANES)])
                )
                for k in range(columns)
            ]
            return context.make_tuple(builder, result, picked)

        return result(array, row), codegen

    function.__doc__ = f"Columns 0..{columns - 1} of eight rows of {columns}."
    return intrinsic(function)


load2, load3, load4 = _loader(2), _loader(3), _loader(4)


def _concatenated(builder: ir.IRBuilder, parts: list) -> ir.Value:
    """One vector of 32 lanes from up to four of eight."""
    undefined = ir.Constant(parts[0].type, ir.Undefined)
    parts = parts + [undefined] * (4 - len(parts))
    sixteen = ir.Constant(ir.VectorType(_I32, 2 * LANES), list(range(2 * LANES)))
    halves = [builder.shuffle_vector(parts[i], parts[i + 1], sixteen) for i in (0, 2)]
    all_lanes = ir.Constant(ir.VectorType(_I32, 4 * LANES), list(range(4 * LANES)))
    return builder.shuffle_vector(*halves, all_lanes)


def _storer(columns: int) -> Any:
    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        parts = list(args[2:])
        wide = ir.VectorType(parts[0].type.element, LANES * columns)
        order = [LANES * k + i for i in range(LANES) for k in range(columns)]
        together = _concatenated(builder, parts)
        rows = builder.shuffle_vector(
            together,
            ir.Constant(together.type, ir.Undefined),
            ir.Constant(ir.VectorType(_I32, LANES * columns), order),
        )
        start = builder.mul(
            context.cast(builder, args[1], sig.args[1], types.intp),
            ir.Constant(ir.IntType(64), columns),
        )
        pointer_sig = types.void(sig.args[0], types.intp)
        pointer = _element_pointer(context, builder, pointer_sig, [args[0], start], wide)
        builder.store(rows, pointer).align = 4
        return context.get_dummy_value()

    return codegen


@intrinsic
def store2(typing: Any, array: Any, row: Any, a: Any, b: Any) -> Any:
    """Write eight rows of two."""
    return types.void(array, row, a, b), _storer(2)


@intrinsic
def store3(typing: Any, array: Any, row: Any, a: Any, b: Any, c: Any) -> Any:
    """Write eight rows of three."""
    return types.void(array, row, a, b, c), _storer(3)


@intrinsic
def store4(typing: Any, array: Any, row: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Write eight rows of four."""
    return types.void(array, row, a, b, c, d), _storer(4)


@intrinsic
def to_int(typing: Any, a: Any) -> Any:
    """Rounded towards zero; |a| must be below 2^31."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.fptosi(args[0], _IV)

    return I32V(F32V), codegen


@intrinsic
def exponent(typing: Any, a: Any) -> Any:
    """The e of ``a = m 2^e`` with m in [1, 2), for positive normal numbers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        bits = builder.bitcast(args[0], _IV)
        biased = builder.lshr(bits, _constant(_IV, 23))
        return builder.sitofp(builder.sub(biased, _constant(_IV, 127)), _FV)

    return F32V(F32V), codegen


@intrinsic
def mantissa(typing: Any, a: Any) -> Any:
    """The m of ``a = m 2^e`` with m in [1, 2), for positive normal numbers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        bits = builder.bitcast(args[0], _IV)
        fraction = builder.and_(bits, _constant(_IV, 0x007FFFFF))
        return builder.bitcast(builder.or_(fraction, _constant(_IV, 0x3F800000)), _FV)

    return F32V(F32V), codegen


@intrinsic
def either(typing: Any, a: Any, b: Any) -> Any:
    """Lanes where either mask is set."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.or_(*args)

    return a(a, b), codegen


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def log(a):
    """Natural logarithm of positive normal numbers, to about 1e-7 of max(1, |log a|).

    ln m = 2 artanh((m - 1) / (m + 1)) with m brought to [0.71, 1.41]; the series' first term left
    out is 2 t^11 / 11 with |t| <= 0.172, below 1e-9.
    """
    e, m = exponent(a), mantissa(a)
    high = greater(m, splat(1.4142135))
    e = select(high, e + splat(1.0), e)
    m = select(high, m * splat(0.5), m)
    t = (m - splat(1.0)) / (m + splat(1.0))
    t2 = t * t
    series = fma(t2, splat(2.0 / 9.0), splat(2.0 / 7.0))
    series = fma(t2, series, splat(2.0 / 5.0))
    series = fma(t2, series, splat(2.0 / 3.0))
    series = fma(t2, series, splat(2.0))
    return fma(e, splat(0.6931472), t * series)
