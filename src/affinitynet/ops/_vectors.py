"""Floats side by side in one register: what numba leaves out, so that kernels can say it.

LLVM's own vector type, lowered to whatever the processor has; no hardware intrinsics. Where a
width or a count has to be known to the compiler it comes as a tuple of that length: the type of
a tuple holds its length, so that one function compiles for each, and loops over it unroll.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

Count = tuple[int, ...]


def count(length: int) -> Count:
    """Give the tuple that stands for a number the compiler shall know."""
    return (0,) * length


def operation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare a function that numba replaces by the instructions it generates."""
    return cast(Callable[..., Any], intrinsic(function))


class Vector(types.Type):
    """Some float32 side by side."""

    def __init__(self, lanes: int) -> None:
        self.kind = ir.VectorType(ir.FloatType(), lanes)
        self.lanes = lanes
        super().__init__(name=f"float32x{lanes}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.kind)  # type: ignore[no-untyped-call]


def _address(
    context: Any, builder: Any, vector: Vector, array_type: Any, array: Any, at: Any
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), vector.kind.as_pointer())


@operation
def load(typing: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Read a vector from a contiguous float32 array, `offset` floats from its beginning."""
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, vector, signature.args[0], *args[:2])
        return builder.load(address, align=4)

    return vector(array, types.intp, lanes), generate


@operation
def store(typing: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Write a vector to a contiguous float32 array, `offset` floats from its beginning."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, vector, signature.args[0], *args[:2])
        builder.store(args[2], address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@operation
def broadcast(typing: Any, value: Any, lanes: Any) -> Any:
    """Fill a vector with one float32."""
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = ir.Constant(vector.kind, ir.Undefined)
        first = builder.insert_element(nothing, args[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.VectorType(ir.IntType(32), vector.lanes)([0] * vector.lanes)
        return builder.shuffle_vector(first, nothing, zeros)

    return vector(types.float32, lanes), generate


@operation
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Give a * b + c, lane by lane, in one instruction where there is one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(a.kind, [a.kind] * 3)
        name = f"llvm.fmuladd.v{a.lanes}f32"
        return builder.call(builder.module.declare_intrinsic(name, (), kind), args)

    return a(a, a, a), generate


@operation
def transpose(
    typing: Any, source: Any, at: Any, step: Any, target: Any, to: Any, apart: Any, lanes: Any
) -> Any:
    """Turn a square of float32, as wide as a vector, on its way from one array to another.

    Row i is read `at + i * step` floats from the beginning of source, and column i written
    `to + i * apart` floats from that of target; both arrays are contiguous.
    """
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def address(number: int, row: int) -> Any:
            step = builder.mul(args[number + 2], ir.Constant(args[number + 2].type, row))
            place = builder.add(args[number + 1], step)
            return _address(context, builder, vector, signature.args[number], args[number], place)

        n = vector.lanes
        rows = [builder.load(address(0, row), align=4) for row in range(n)]
        # A perfect shuffle of the rows, as often as n has binary digits, is a transposition.
        indices = ir.VectorType(ir.IntType(32), n)
        pairs = [i // 2 + n * (i % 2) for i in range(2 * n)]
        low, high = indices(pairs[:n]), indices(pairs[n:])
        for _ in range(n.bit_length() - 1):
            halves = list(zip(rows[: n // 2], rows[n // 2 :], strict=True))
            rows = [builder.shuffle_vector(*pair, half) for pair in halves for half in (low, high)]
        for row, value in enumerate(rows):
            builder.store(value, address(3, row), align=4)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp, lanes), (
        generate
    )


@operation
def float_of_bits(typing: Any, bits: Any) -> Any:
    """Read the bits of an int32 as a float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate
