"""The dense CRF of Krähenbühl & Koltun, and the loss that teaches a network its edges."""

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.errors import NotFiniteError
from affinitynet.ops._arguments import check_count, check_floating
from affinitynet.ops._crf_choice import mean_field_cpu, mean_field_cuda
from affinitynet.ops._mean_field import Settings, mean_field
from affinitynet.ops._operators import is_traced

MOST_ITERATIONS = 1_000_000


def dense_crf(
    image: Tensor | NDArray[np.generic],
    probabilities: Tensor | NDArray[np.generic],
    *,
    iterations: int = 10,
    gaussian_sxy: float = 3,
    gaussian_compat: float = 3,
    bilateral_sxy: float = 80,
    bilateral_srgb: float = 13,
    bilateral_compat: float = 10,
    origin: tuple[int, int] = (0, 0),
) -> Tensor:
    """Refine label probabilities to follow the image's edges: mean field of a dense CRF.

    U = -log(clip(p, 1e-5, 1)), Q = softmax(-U), then `iterations` times

        Q <- softmax(-U + gaussian_compat G Q + bilateral_compat B Q)

    where G and B are Gaussian kernels over (x, y) / gaussian_sxy and over (x, y) / bilateral_sxy
    with color / bilateral_srgb, filtered in the permutohedral lattice and normalized on both
    sides: K -> n K n with n = 1 / sqrt(K 1). A pixel's message to itself is included.

    Args:
        image: (H, W, channels) or gray (H, W), values as bilateral_srgb measures them: uint8 or
            float, any number of channels. With a batch (B, H, W, channels).
        probabilities: (L, H, W), any L from 1; need not sum to one. Extra dimensions in front,
            (A, L, H, W), are A label sets of the one image, which share its lattices. With a
            batch, (B, L, H, W) or (B, A, L, H, W).
        iterations: mean-field steps, from 0.
        gaussian_sxy: deviation of G in pixels.
        gaussian_compat: weight of G, at least 0.
        bilateral_sxy: deviation of B in pixels.
        bilateral_srgb: deviation of B in units of the image's values.
        bilateral_compat: weight of B, at least 0.
        origin: (y, x) of the image's first pixel where it is a part of a larger one: the lattices
            then lie as in the whole, see `in_blocks`.

    Returns:
        Q in the shape and on the device of `probabilities`, float32, summing to one over L.

    Raises:
        ValueError: shapes that do not fit each other, probabilities that are not floating point, a
            deviation that is not positive, a weight that is negative or not finite, a number of
            iterations that is negative or not whole, NaN or an infinity in the image or the
            probabilities.

    Source: Krähenbühl & Koltun, NeurIPS 2011; parameters as in Ahn & Kwak's public code.
    """
    scores = as_tensor(probabilities).detach()  # the mean field has no derivative
    pixels = as_tensor(image).to(scores.device)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels  # gray
    batched = pixels.ndim == 4
    fits = (
        pixels.ndim in (3, 4)
        and scores.ndim >= pixels.ndim
        and (
            pixels.shape[-3:-1] == scores.shape[-2:] and (not batched or len(pixels) == len(scores))
        )
    )
    if not fits or 0 in scores.shape[-3:]:
        raise ValueError(
            f"image {tuple(pixels.shape)} and probabilities {tuple(scores.shape)} do not fit: an "
            "image (H, W, channels) takes (L, H, W), a batch of them takes (B, L, H, W)"
        )
    if min(gaussian_sxy, bilateral_sxy, bilateral_srgb) <= 0:
        raise ValueError("gaussian_sxy, bilateral_sxy and bilateral_srgb must be above 0")
    if min(iterations, gaussian_compat, bilateral_compat) < 0:
        raise ValueError("iterations, gaussian_compat and bilateral_compat must be at least 0")
    check_count(iterations, "iterations", MOST_ITERATIONS)
    if not (math.isfinite(gaussian_compat) and math.isfinite(bilateral_compat)):
        raise ValueError("gaussian_compat and bilateral_compat must be finite")
    check_floating(scores, "probabilities")
    if not is_traced(scores):
        _check_finite(scores)

    L, H, W = scores.shape[-3:]
    # A new tensor: on the CPU the mean field writes its result over it.
    unary = scores.float().clamp(1e-5, 1).log_().neg_()
    sets = unary.contiguous().reshape(len(pixels) if batched else 1, -1, L, H * W)  # (B, A, L, N)
    settings = Settings(
        iterations,
        gaussian_sxy,
        gaussian_compat,
        bilateral_sxy,
        bilateral_srgb,
        bilateral_compat,
        origin,
    )
    traced = _traced_mean_field if scores.is_cpu else mean_field
    forms = {"cpu": mean_field_cpu, "cuda": mean_field_cuda}
    run = traced if is_traced(scores) else forms.get(scores.device.type, mean_field)
    pictures = (pixels if batched else pixels[None]).float()
    refined = [run(*pair, settings) for pair in zip(pictures, sets, strict=True)]
    return (torch.stack(refined) if batched else refined[0]).reshape(scores.shape)


@torch.library.custom_op(
    "affinitynet::mean_field",
    mutates_args=(),
    schema="(Tensor image, Tensor unary, int iterations, float[] numbers, int[] origin) -> Tensor",
)
def _mean_field(
    image: Tensor, unary: Tensor, iterations: int, numbers: Sequence[float], origin: Sequence[int]
) -> Tensor:
    """Run the kernels on an image (H, W, channels) and label sets (A, L, N), which stay as are."""
    one, other, sxy, srgb, compat = numbers
    settings = Settings(iterations, one, other, sxy, srgb, compat, (origin[0], origin[1]))
    return mean_field_cpu(image, unary.clone(), settings).contiguous()


@_mean_field.register_fake
def _(
    image: Tensor, unary: Tensor, iterations: int, numbers: Sequence[float], origin: Sequence[int]
) -> Tensor:
    return torch.empty_like(unary, memory_format=torch.contiguous_format)


def _traced_mean_field(image: Tensor, unary: Tensor, settings: Settings) -> Tensor:
    # The kernels write over what they are given, which a traced operator may not.
    iterations, *numbers, origin = settings
    return cast(Tensor, _mean_field(image, unary, iterations, list(map(float, numbers)), origin))


def boundary_loss(logits: Tensor, crf_probabilities: Tensor) -> Tensor:
    """Compare a network's output with its refinement by the dense CRF.

    KL(Q || softmax(logits)) = sum_l Q_l (log Q_l - log softmax(logits)_l), mean over the pixels
    and the batch. Only the logits get a gradient; it pulls the network towards the CRF's edges.

    Args:
        logits: (B, L, H, W).
        crf_probabilities: (B, L, H, W), as from `dense_crf`.

    Returns:
        A scalar.

    Raises:
        ValueError: the shapes differ.

    Source: Kolesnikov & Lampert, ECCV 2016, constrain-to-boundary loss.
    """
    if logits.shape != crf_probabilities.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and CRF {tuple(crf_probabilities.shape)} must match"
        )
    target = crf_probabilities.detach()
    # xlogy, since 0 log 0 is 0 here and NaN in floating point.
    entropy = torch.special.xlogy(target, target)
    loss: Tensor = (entropy - target * logits.log_softmax(1)).sum(1).mean()
    return loss


def _check_finite(probabilities: Tensor) -> None:
    # One pass that needs no memory; only where numbers are so large that the sum leaves the
    # range of their type does it ask each of them.
    if probabilities.sum().isfinite():
        return
    wrong = (~probabilities.isfinite()).nonzero()
    if len(wrong):
        raise NotFiniteError(
            f"the probabilities {tuple(probabilities.shape)} hold NaN or infinite values, "
            f"{len(wrong)} of them, the first at {tuple(wrong[0].tolist())}: check the maps, "
            "perhaps for a division by zero"
        )


def as_tensor(values: Tensor | NDArray[np.generic]) -> Tensor:
    """Take an array for a tensor; copied, since it may be read-only memory."""
    return values if isinstance(values, Tensor) else torch.tensor(np.ascontiguousarray(values))
