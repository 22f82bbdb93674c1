"""Four floats in one register: what numba leaves out, so that kernels can say it.

LLVM's own vector type, lowered to whatever the processor has; no hardware intrinsics.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

LANES = 4

_IR = ir.VectorType(ir.FloatType(), LANES)


def operation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare a function that numba replaces by the instructions it generates."""
    return cast(Callable[..., Any], intrinsic(function))


class Vector(types.Type):
    """LANES float32 side by side."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


_VECTOR = Vector()


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _IR)  # type: ignore[no-untyped-call]


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), _IR.as_pointer())


@operation
def load(typing: Any, array: Any, offset: Any) -> Any:
    """Read a vector from a contiguous float32 array, `offset` floats from its beginning."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *args), align=4)

    return _VECTOR(array, types.intp), generate


@operation
def store(typing: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Write a vector to a contiguous float32 array, `offset` floats from its beginning."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], address, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _VECTOR), generate


@operation
def broadcast(typing: Any, value: Any) -> Any:
    """Fill a vector with one float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nothing = ir.Constant(_IR, ir.Undefined)
        first = builder.insert_element(nothing, args[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(first, nothing, zeros)

    return _VECTOR(types.float32), generate


@operation
def multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Give a * b + c, lane by lane, in one instruction where there is one."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_IR, [_IR] * 3)
        function = builder.module.declare_intrinsic(f"llvm.fmuladd.v{LANES}f32", (), kind)
        return builder.call(function, args)

    return _VECTOR(_VECTOR, _VECTOR, _VECTOR), generate


@operation
def float_of_bits(typing: Any, bits: Any) -> Any:
    """Read the bits of an int32 as a float32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate
