"""The dense CRF's mean field: a device's kernels, or tensors where there are none."""

from collections.abc import Sequence
from typing import Any

import torch

from affinitynet.ops._choice import Choice, Form, triton_choice
from affinitynet.ops._mean_field import Settings, mean_field


def cpu_choice() -> Choice:
    """Return the choice for CPUs. Its kernels may write over the unary energies."""
    return Choice(
        mean_field,
        _load_numba,
        "the dense CRF's kernels do not compile here",
        "install the version of numba that pyproject.toml asks for",
    )


def _load_numba() -> Form:
    # Not with the package: this rests on numba's internals, and most work of the package needs no
    # CRF.
    from affinitynet.ops._crf_cpu import mean_field as kernels

    return kernels


def _load_triton() -> Form:
    from affinitynet.ops._crf_triton import mean_field as kernels

    return kernels


def _example(device: torch.device) -> Sequence[Any]:
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    image = torch.stack([20 * y, 20 * x, 10 * (x + y)], -1)
    unary = torch.stack([x, y, 3 + 0 * x, 5 - y]).reshape(2, 2, -1) / 3
    return image.to(device), unary.to(device), Settings(2, 3, 3, 80, 13, 10)


mean_field_cpu = cpu_choice()
mean_field_cuda = triton_choice(mean_field, _load_triton, "the dense CRF's", _example)
