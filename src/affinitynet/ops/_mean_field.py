"""The dense CRF in whole-tensor operations: for CUDA, and the twin of the CPU's kernels."""

from typing import NamedTuple

import torch
from torch import Tensor

from affinitynet.ops.permutohedral import build_lattice, filter_lattice


class Settings(NamedTuple):
    """The parameters of `dense_crf`."""

    iterations: int
    gaussian_sxy: float
    gaussian_compat: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_compat: float
    origin: tuple[int, int] = (0, 0)


def mean_field(
    image: Tensor,
    unary: Tensor,
    settings: Settings,
) -> Tensor:
    """Run the mean field in whole-tensor operations, on the tensors' device.

    Args:
        image: (H, W, channels) float32.
        unary: (A, L, H * W) energies of A label sets.
        settings: those of `dense_crf`.

    Returns:
        Q, (A, L, H * W).
    """
    kernels = []
    for features, compat in kernel_features(image, settings):
        lattice = build_lattice(features)
        # n = 1 / sqrt(K 1), finite by the reference's 1e-20.
        norm = (filter_lattice(lattice, torch.ones_like(features[:, :1])) + 1e-20).rsqrt()
        kernels.append((lattice, norm, compat))
    A, L, N = unary.shape
    q = (-unary).softmax(1)
    for _ in range(settings.iterations):
        rows = q.reshape(A * L, N).T  # (H * W, A * L), as the lattice takes values
        energy = -unary
        # Both messages start from the same Q. They raise a pixel's own label where a Potts model
        # lowers all others: the two differ by what the softmax does not see.
        for lattice, norm, compat in kernels:
            message = norm * filter_lattice(lattice, norm * rows)
            energy = energy + compat * message.T.reshape(A, L, N)
        q = energy.softmax(1)
    return q


def kernel_features(image: Tensor, settings: Settings) -> list[tuple[Tensor, float]]:
    """Give the features (H * W, d) of the two Gaussian kernels, in deviations, and their weights.

    Args:
        image: (H, W, channels) float32.
        settings: those of `dense_crf`.
    """
    H, W, _ = image.shape
    y, x = torch.meshgrid(
        torch.arange(H, device=image.device), torch.arange(W, device=image.device), indexing="ij"
    )
    y, x = y + settings.origin[0], x + settings.origin[1]
    # x before y, as in the reference: ties in the lattice then fall the same way.
    positions = torch.stack([x, y], -1).reshape(H * W, 2).float()
    colors = image.reshape(H * W, -1) / settings.bilateral_srgb
    return [
        (positions / settings.gaussian_sxy, settings.gaussian_compat),
        (torch.cat([positions / settings.bilateral_sxy, colors], 1), settings.bilateral_compat),
    ]
