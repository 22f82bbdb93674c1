"""Floats side by side in one register: what numba lacks, for kernels to use.

LLVM's own vector type, lowered to whatever the processor has; no hardware intrinsics. Vectors
take + - * / among themselves and with single floats; a product and a sum become one instruction
where there is one. Addresses are offsets from an array's beginning, and nothing checks them:
numba's own indices, which may count from the end, cost as much as the arithmetic in the innermost
loops. AFFINITYNET_CHECK_BOUNDS=1 in the environment has them checked, see `_numba`.

Where a width or a count has to be known to the compiler it comes as a tuple of that length: the
type of a tuple holds its length, so that one function compiles for each, and loops over it unroll.

All this rests on parts of numba that may change in any release: pyproject.toml asks for the
versions that are known to work, and where it fails all the same `_crf_choice` goes on without it.
It stays because plain kernels, unrolled by hand, take 1.5 times as long at 2 labels, 2.6 times at
4 and 3.8 times at 21.
"""

import operator
from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

from affinitynet.ops._numba import CHECKED

Count = tuple[int, ...]


def count(length: int) -> Count:
    """Give the tuple that stands for a number that the compiler has to know."""
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


# numba handles a Vector as the one LLVM value that it is, not as a structure.
@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, vector.kind)  # type: ignore[no-untyped-call]


def _pointer(
    context: Any, builder: Any, array_type: Any, array: Any, at: Any, length: int = 1
) -> Any:
    """Point to `length` elements from `at` on."""
    whole = context.make_array(array_type)(context, builder, array)
    if CHECKED:
        # As unsigned numbers, so that one comparison finds those before the beginning as well.
        last = builder.sub(whole.nitems, whole.nitems.type(length))
        short = builder.icmp_signed("<", last, last.type(0))
        outside = builder.or_(short, builder.icmp_unsigned(">", at, last))
        with builder.if_then(outside, likely=False):
            words = f"a kernel reads or writes {length} elements outside of its array"
            context.call_conv.return_user_exc(builder, IndexError, (words,))
    return builder.gep(whole.data, [at])


def _address(
    context: Any, builder: Any, vector: Vector, array_type: Any, array: Any, at: Any
) -> Any:
    pointer = _pointer(context, builder, array_type, array, at, vector.lanes)
    return builder.bitcast(pointer, vector.kind.as_pointer())


@operation
def load(typing: Any, array: Any, offset: Any, lanes: Any) -> Any:
    """Read a vector from a contiguous float32 array, `offset` floats from its beginning."""
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # align=4: a vector may begin at any float, not only at multiples of its own size.
        address = _address(context, builder, vector, signature.args[0], *args[:2])
        return builder.load(address, align=4)

    return vector(array, types.intp, lanes), generate


@operation
def store(typing: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Write a vector to a contiguous float32 array, `offset` floats from its beginning."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, vector, signature.args[0], *args[:2])
        builder.store(args[2], address, align=4)
        # numba's None.
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@operation
def element(typing: Any, array: Any, offset: Any) -> Any:
    """Read one element of a contiguous array, `offset` of them from its beginning."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *args))

    return array.dtype(array, types.intp), generate


def _filled(builder: Any, kind: Any, value: Any) -> Any:
    # What LLVM recognizes as "fill": into lane 0, then lane 0 to all.
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.VectorType(ir.IntType(32), kind.count)([0] * kind.count)
    return builder.shuffle_vector(first, nothing, zeros)


@operation
def broadcast(typing: Any, value: Any, lanes: Any) -> Any:
    """Fill a vector with one float32."""
    vector = Vector(len(lanes))

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _filled(builder, vector.kind, args[0])

    return vector(types.float32, lanes), generate


def _arithmetic(function: Callable[..., Any], instruction: str) -> None:
    """Let an operator of Python work lane by lane, on vectors or a vector and a float32."""

    def typed(template: Any, args: Any, keywords: Any) -> Any:
        # numba asks what these kinds of arguments give; None says that they are not ours.
        vectors = {kind for kind in args if isinstance(kind, Vector)}
        if len(vectors) == 1 and set(args) <= {*vectors, types.float32}:
            return signature(*vectors, *args)  # type: ignore[no-untyped-call]
        return None

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type.kind
        pair = [arg if arg.type == kind else _filled(builder, kind, arg) for arg in args]
        return getattr(builder, instruction)(*pair, flags=("contract",))

    template = type("Arithmetic", (AbstractTemplate,), {"generic": typed})
    infer_global(function)(template)  # type: ignore[no-untyped-call]
    # In both orders, as numba looks for the kinds in their places.
    for kinds in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(function, *kinds)(lower)  # type: ignore[no-untyped-call]


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")


@operation
def larger(typing: Any, a: Any, b: Any) -> Any:
    """Give the larger one of two vectors, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return a(a, a), generate


@operation
def any_over(typing: Any, a: Any, b: Any) -> Any:
    """Say whether a is larger than b in any lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        # One bit a lane, read as one whole number.
        over = builder.bitcast(builder.fcmp_ordered(">", *args), ir.IntType(a.lanes))
        return builder.icmp_unsigned("!=", over, over.type(0))

    return types.boolean(a, a), generate


@operation
def nearest(typing: Any, a: Any) -> Any:
    """Round to whole numbers, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(a.kind, [a.kind])
        name = f"llvm.rint.v{a.lanes}f32"
        return builder.call(builder.module.declare_intrinsic(name, (), kind), args)

    return a(a), generate


@operation
def power_of_two(typing: Any, a: Any) -> Any:
    """Give 2^a, lane by lane, for whole numbers from -126 to 127."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = ir.VectorType(ir.IntType(32), a.lanes)
        # A float's exponent stands 127 too high above the 23 bits of its fraction.
        biased = builder.add(builder.fptosi(args[0], whole), whole([127] * a.lanes))
        return builder.bitcast(builder.shl(biased, whole([23] * a.lanes)), a.kind)

    return a(a), generate


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
        # A perfect shuffle of the rows, log2(n) times, is a transposition.
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
