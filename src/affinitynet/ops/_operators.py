"""What the compiled kernels need to be operators of torch.

Their schemas are written out, as versions of torch differ in the annotations that they read.
Registered with shapes of their own (fakes), `torch.compile` and `torch.export` trace them as one
node each; with a rule for batches, `torch.func` takes them apart as it does torch's own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_is_wrapped: Callable[[Tensor], bool] = torch._C._functorch.is_functorch_wrapped_tensor


def is_traced(values: Tensor) -> bool:
    """Tell whether values can't be looked at: they are being traced, or stand for several."""
    return torch.compiler.is_compiling() or _is_wrapped(values)


class Differentiable(torch.autograd.Function):
    """An operator with a derivative, which is an operator without one: differentiable once.

    Not `register_autograd`, whose operators torch.func can't differentiate.
    """

    @classmethod
    def vmap(cls, info: Any, dims: Sequence[Any], *arguments: Any) -> Any:
        """Apply it to a batch of batches."""
        return over_batches(cls.apply)(info, dims, *arguments)


class _Once(torch.autograd.Function):
    """A derivative as torch.func asks for it, that it can be differentiated too; it can't."""

    @staticmethod
    def forward(operator: Callable[..., Any], *arguments: Any) -> Any:
        return operator(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        raise RuntimeError("this operation is differentiable once")

    @staticmethod
    def vmap(info: Any, dims: Sequence[Any], *arguments: Any) -> Any:
        operator, *others = arguments
        return over_batches(operator)(info, dims[1:], *others)


def call_once(operator: Callable[..., Any], *arguments: Any) -> Any:
    """Call an operator that has no derivative, for one that is its derivative."""
    wrapped = any(isinstance(part, Tensor) and is_traced(part) for part in arguments)
    if wrapped and not torch.compiler.is_compiling():
        return _Once.apply(operator, *arguments)
    return operator(*arguments)


def over_batches(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Return the rule of `torch.vmap` for an operator whose tensors all begin with a batch.

    The new dimension and the batch become one, and are parted again in what comes out.
    """

    def rule(info: Any, dims: Sequence[Any], *arguments: Any) -> Any:
        def merged(argument: Any, dim: int | None) -> Any:
            if not isinstance(argument, Tensor):
                return argument
            if dim is None:
                each = argument.unsqueeze(0).expand(info.batch_size, *argument.shape)
            else:
                each = argument.movedim(dim, 0)
            return each.flatten(0, 1)

        def parted(result: Tensor) -> tuple[Tensor, int | None]:
            if not result.numel() and result.ndim == 1:  # of what was not asked for
                return result, None
            return result.reshape(info.batch_size, -1, *result.shape[1:]), 0

        found = operator(*map(merged, arguments, dims))
        if isinstance(found, Tensor):
            return parted(found)
        results, places = zip(*map(parted, found), strict=True)
        return results, places

    return rule
