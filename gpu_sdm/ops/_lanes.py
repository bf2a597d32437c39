"""Many float32 side by side as one value of a compiled function.

Loops over voxels leave it to the compiler how wide it works and what it keeps in registers. A value
of this type is that decision: `WIDTH` floats that go through every instruction together, two
registers of AVX-512. What happens in one lane does not depend on the others, nor on `WIDTH`.

Numba recompiles a function when its own file changes, not when this one does.
"""

from __future__ import annotations

import operator
from typing import Any

import numba as nb
import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

# Two registers a value hide the latency of the roots; without AVX-512 there are 16 of 8 floats.
WIDTH = 32 if binding.get_host_cpu_features().get("avx512f") else 16
# Divisions and roots may be estimated and refined; NaN keeps its meaning.
FLAGS = ("contract", "nsz", "arcp", "afn")

_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)


class _Lanes(types.Type):
    """Numba's name of the type."""

    def __init__(self) -> None:
        super().__init__(f"Lanes{WIDTH}")


_LANES = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):  # type: ignore[misc]  # numba has no types
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _arithmetic(symbol: Any, instruction: str) -> None:
    def typer(a: Any, b: Any) -> Any:
        return _LANES if a is _LANES and b is _LANES else None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args, flags=FLAGS)

    type_callable(symbol)(lambda context: typer)
    lower_builtin(symbol, _Lanes, _Lanes)(lower)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


def _address(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


@intrinsic
def load(_context, array, at):  # type: ignore[no-untyped-def]
    """`WIDTH` floats of a flat contiguous array from index `at`, which is not checked."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, sig.args[0], *args), align=4)

    return _LANES(array, types.intp), code


@intrinsic
def store(_context, array, at, value):  # type: ignore[no-untyped-def]
    """Write `value` to a flat contiguous array from index `at`, which is not checked."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, sig.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _LANES), code


@intrinsic
def everywhere(_context, value):  # type: ignore[no-untyped-def]
    """One number in every lane."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        index = ir.IntType(32)
        empty = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(empty, args[0], ir.Constant(index, 0))
        zeros = ir.Constant(ir.VectorType(index, WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(first, empty, zeros)

    return _LANES(types.float32), code


@intrinsic
def ratio(_context, x, y):  # type: ignore[no-untyped-def]
    """Divide finite numbers by refined estimates of 1 / y; y must not be 0."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # Without infinities LLVM may use the processor's estimate, a third of a division's cost.
        return builder.fdiv(*args, flags=(*FLAGS, "ninf"))

    return _LANES(_LANES, _LANES), code


@intrinsic
def root(_context, x):  # type: ignore[no-untyped-def]
    """Square root."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{WIDTH}f32")
        return builder.call(function, args, fastmath=FLAGS)

    return _LANES(_LANES), code


@intrinsic
def at_least(_context, x, least):  # type: ignore[no-untyped-def]
    """Raise x to `least` where it is smaller; NaN stays."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return _LANES(_LANES, _LANES), code


@intrinsic
def all_above(_context, x, y):  # type: ignore[no-untyped-def]
    """Whether x > y in every lane; a NaN is not above."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = ir.IntType(WIDTH)
        lanes = builder.bitcast(builder.fcmp_ordered(">", *args), bits)
        return builder.icmp_unsigned("==", lanes, ir.Constant(bits, 2**WIDTH - 1))

    return types.boolean(_LANES, _LANES), code


@intrinsic
def where_above(_context, x, y, yes, no):  # type: ignore[no-untyped-def]
    """Take `yes` in the lanes where x > y, `no` in the others and where either is NaN."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args[:2]), *args[2:])

    return _LANES(_LANES, _LANES, _LANES, _LANES), code


@nb.njit(nogil=True, cache=True, error_model="numpy")
def aligned(n):  # type: ignore[no-untyped-def]
    """Array of n float32 0 that begins with a cache line: no `load` then straddles two."""
    whole = np.zeros(n + 16, np.float32)
    skip = (-whole.ctypes.data // 4) % 16
    return whole[skip : skip + n]
