"""How Triton's kernels are launched."""

from typing import Any

import torch
from torch import Tensor

from affinitynet.ops._numba import CannotCompileError


def launch(kernel: Any, grid: tuple[int, ...], first: Tensor, *others: Any, **options: Any) -> None:
    """Launch a kernel on its first tensor's device: compile it, if that is still to do, and run it.

    Raises:
        CannotCompileError: it does not compile; then no argument has been touched.
    """
    try:
        # Triton takes the current device, whatever the tensors'.
        with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
            # Said, since the default is to change, and Triton warns of that.
            kernel[grid](first, *others, enable_fp_fusion=True, **options)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise CannotCompileError from error
