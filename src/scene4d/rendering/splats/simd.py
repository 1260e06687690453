"""Eight-lane float vectors for Numba kernels, written out as LLVM vector instructions.

Loops that Numba vectorises by itself lose most of their speed to wrap-around handling of signed
indices and to values that cannot stay in registers (docs/rasteriser.md has the figures), so the
compositing kernels say what they want: one value of type ``F32V`` is one AVX register (two NEON
registers on ARM). Every operation here rounds the same wherever it is inlined, which is what lets
the backward pass repeat the forward pass's decisions bit for bit.

Numba's cache looks at the file of the kernel only: after an edit here, touch the kernel's file.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 8

_F32 = ir.FloatType()
_I1 = ir.IntType(1)
_I32 = ir.IntType(32)
_FV = ir.VectorType(_F32, LANES)
_IV = ir.VectorType(_I32, LANES)
_MV = ir.VectorType(_I1, LANES)


class VectorType(types.Type):
    """A Numba type that is one LLVM vector."""

    def __init__(self, name: str, llvm: ir.Type) -> None:
        self.llvm = llvm
        super().__init__(name=name)


F32V = VectorType("scene4d.F32V", _FV)
I32V = VectorType("scene4d.I32V", _IV)
MASK = VectorType("scene4d.MASK", _MV)


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: VectorType) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


def _broadcast(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    single = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, _I32(0))
    return builder.shuffle_vector(
        single, ir.Constant(vector, ir.Undefined), ir.Constant(_IV, [0] * LANES)
    )


def _constant(vector: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * LANES)


def _call(builder: ir.IRBuilder, name: str, vector: ir.Type, args: list) -> ir.Value:
    function_type = ir.FunctionType(vector, [a.type for a in args])
    function = builder.module.globals.get(name)
    if function is None:
        function = ir.Function(builder.module, function_type, name)
    return builder.call(function, args)


# Operators: + - * / on F32V, & on masks.
def _register(op: Any, method: str, vector: VectorType) -> None:
    class Template(ConcreteTemplate):
        key = op
        cases = [signature(vector, vector, vector)]  # noqa: RUF012

    infer_global(op)(Template)

    @lower_builtin(op, vector, vector)
    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> ir.Value:
        return getattr(builder, method)(*args)


for _op, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _register(_op, _method, F32V)
_register(operator.and_, "and_", MASK)


@intrinsic
def splat(typing: Any, x: Any) -> Any:
    """All lanes equal to a float32 scalar."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        value = context.cast(builder, args[0], sig.args[0], types.float32)
        return _broadcast(builder, value, _FV)

    return F32V(x), codegen


@intrinsic(prefer_literal=True)
def lane_column(typing: Any, width: Any) -> Any:
    """Lane number modulo a literal width, as floats."""
    w = width.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return ir.Constant(_FV, [ir.Constant(_F32, float(i % w)) for i in range(LANES)])

    return F32V(width), codegen


@intrinsic(prefer_literal=True)
def lane_row(typing: Any, width: Any) -> Any:
    """Lane number divided by a literal width, rounded down, as floats."""
    w = width.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return ir.Constant(_FV, [ir.Constant(_F32, float(i // w)) for i in range(LANES)])

    return F32V(width), codegen


def _element_pointer(context: Any, builder: Any, sig: Any, args: Any, vector: ir.Type) -> ir.Value:
    array = context.make_array(sig.args[0])(context, builder, args[0])
    index = context.cast(builder, args[1], sig.args[1], types.intp)
    dtype = context.get_data_type(sig.args[0].dtype)
    pointer = builder.gep(builder.bitcast(array.data, dtype.as_pointer()), [index])
    return builder.bitcast(pointer, vector.as_pointer())


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """Eight values from a flat float32 or int32 array, from ``index`` on; nothing is checked."""
    kind = F32V if array.dtype == types.float32 else I32V

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        pointer = _element_pointer(context, builder, sig, args, kind.llvm)
        value = builder.load(pointer)
        value.align = 4
        return value

    return kind(array, index), codegen


@intrinsic
def store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write eight values to a flat array from ``index`` on; nothing is checked."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        pointer = _element_pointer(context, builder, sig, args, value.llvm)
        builder.store(args[2], pointer).align = 4
        return context.get_dummy_value()

    return types.void(array, index, value), codegen


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``, fused where the machine can (llvm.fmuladd)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return _call(builder, f"llvm.fmuladd.v{LANES}f32", _FV, list(args))

    return F32V(F32V, F32V, F32V), codegen


@intrinsic
def neg(typing: Any, a: Any) -> Any:
    """Sign flipped."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.fneg(args[0])

    return F32V(F32V), codegen


def _unary(name: str, doc: str) -> Any:
    def function(typing: Any, a: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
            return _call(builder, f"llvm.{name}.v{LANES}f32", _FV, list(args))

        return F32V(F32V), codegen

    function.__name__ = name
    function.__doc__ = doc
    return intrinsic(function)


sqrt = _unary("sqrt", "Square root.")
floor = _unary("floor", "Largest whole number not above.")
ceil = _unary("ceil", "Smallest whole number not below.")
absolute = _unary("fabs", "Absolute value.")


def _ordered(comparison: str, doc: str) -> Any:
    def function(typing: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
            return builder.fcmp_ordered(comparison, *args)

        return MASK(F32V, F32V), codegen

    function.__doc__ = doc
    return intrinsic(function)


less_equal = _ordered("<=", "Lanes where a <= b; false for NaN.")
greater = _ordered(">", "Lanes where a > b; false for NaN.")
greater_equal = _ordered(">=", "Lanes where a >= b; false for NaN.")
equal = _ordered("==", "Lanes where a == b; false for NaN.")


@intrinsic
def minimum(typing: Any, a: Any, b: Any) -> Any:
    """The smaller; ``b`` where a lane of ``a`` is NaN (x86 minps)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return F32V(F32V, F32V), codegen


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger; ``b`` where a lane of ``a`` is NaN (x86 maxps)."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return F32V(F32V, F32V), codegen


@intrinsic
def select(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """``a`` where the mask is set, else ``b``."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.select(*args)

    return a(MASK, a, a), codegen


@intrinsic
def int_splat(typing: Any, x: Any) -> Any:
    """All lanes equal to an integer, cut to 32 bits."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return _broadcast(builder, context.cast(builder, args[0], sig.args[0], types.int32), _IV)

    return I32V(x), codegen


@intrinsic
def int_greater(typing: Any, a: Any, b: Any) -> Any:
    """Lanes where a > b, signed integers."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.icmp_signed(">", *args)

    return MASK(I32V, I32V), codegen


@intrinsic
def mask_bits(typing: Any, mask: Any) -> Any:
    """The mask as an integer, lane 0 in the lowest bit."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.zext(builder.bitcast(args[0], ir.IntType(LANES)), _I32)

    return types.uint32(MASK), codegen


@intrinsic
def trailing_zeros(typing: Any, bits: Any) -> Any:
    """Position of the lowest set bit of a non-zero uint32."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.zext(builder.cttz(args[0], _I1(1)), ir.IntType(64))

    return types.int64(types.uint32), codegen


@intrinsic(prefer_literal=True)
def row_bits(typing: Any, first: Any, last: Any, valid: Any, per_row: Any) -> Any:
    """Bit set of blocks: lane r fills bits first[r]..last[r] of the r-th group of ``per_row``."""
    width = per_row.literal_value

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        one = _constant(_IV, 1)
        low = builder.shl(one, builder.fptosi(args[0], _IV))
        high = builder.shl(_constant(_IV, 2), builder.fptosi(args[1], _IV))
        shift = ir.Constant(_IV, [(i * width) % 32 for i in range(LANES)])
        row = builder.shl(builder.sub(high, low), shift)
        row = builder.select(args[2], row, _constant(_IV, 0))
        return _call(builder, f"llvm.vector.reduce.or.v{LANES}i32", _I32, [row])

    return types.uint32(F32V, F32V, MASK, per_row), codegen


def _pair_sums(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, step: int) -> ir.Value:
    """Add neighbours ``step`` apart; lanes with that bit clear come from ``a``, set from ``b``."""
    near = [i if not i & step else LANES + (i ^ step) for i in range(LANES)]
    far = [i | step if not i & step else LANES + i for i in range(LANES)]
    return builder.fadd(
        builder.shuffle_vector(a, b, ir.Constant(_IV, near)),
        builder.shuffle_vector(a, b, ir.Constant(_IV, far)),
    )


@intrinsic
def sums_of_eight(
    typing: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any
) -> Any:
    """Lane k is the sum over all lanes of the k-th argument, always added in the same order."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        level = list(args)
        for step in (1, 2, 4):
            level = [
                _pair_sums(builder, level[i], level[i + 1], step) for i in range(0, len(level), 2)
            ]
        return level[0]

    return F32V(*([F32V] * 8)), codegen


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """Sum over the lanes, always in the same order."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        value = args[0]
        for step in (4, 2, 1):
            swapped = builder.shuffle_vector(
                value, value, ir.Constant(_IV, [i ^ step for i in range(LANES)])
            )
            value = builder.fadd(value, swapped)
        return builder.extract_element(value, _I32(0))

    return types.float32(F32V), codegen


@intrinsic
def fetch_add(typing: Any, array: Any, index: Any, amount: Any) -> Any:
    """Add to an int64 array element atomically; the value before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        pointer = _element_pointer(context, builder, sig, args, ir.IntType(64))
        value = context.cast(builder, args[2], sig.args[2], types.int64)
        return builder.atomic_rmw("add", pointer, value, "monotonic")

    return types.int64(array, index, amount), codegen


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of a flat array's element; any index is allowed."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        byte = ir.IntType(8).as_pointer()
        pointer = _element_pointer(context, builder, sig, args, ir.IntType(8))
        suffix = "p0" if "ptr" in str(byte) else "p0i8"
        function_type = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        name = f"llvm.prefetch.{suffix}"
        function = builder.module.globals.get(name)
        if function is None:
            function = ir.Function(builder.module, function_type, name)
        builder.call(function, [pointer, _I32(0), _I32(3), _I32(1)])
        return context.get_dummy_value()

    return types.void(array, index), codegen
