"""From activation maps and affinities to labels: walk, enlarge, refine, label.

Each step is one function of tensors, so that choosing alpha, beta, the CRF or a threshold
again takes the same steps as the first time: the walk on the grid of the affinities, its
scores brought to image size, the dense CRF, and the largest score of each pixel.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from affinitynet.ops._arguments import check_values
from affinitynet.ops.confidence import background_map
from affinitynet.ops.crf import dense_crf
from affinitynet.ops.random_walk import random_walk
from affinitynet.ops.restart_walk import restart_walk


def pad_to_stride(maps: Tensor, stride: int) -> Tensor:
    """Pad with zeros at the bottom and right to multiples of the stride.

    Args:
        maps: (..., H, W).
        stride: pixels of a cell's side, at least 1.

    Returns:
        (..., h * stride, w * stride) with h = ceil(H / stride), w = ceil(W / stride).

    Raises:
        ValueError: a stride below 1.

    Source: github.com/jiwoon-ahn/psa, which pads its images to multiples of 8 likewise.
    """
    if stride < 1:
        raise ValueError(f"stride must be at least 1, not {stride}")
    height, width = maps.shape[-2:]
    return F.pad(maps, (0, -width % stride, 0, -height % stride))


def walk_scores(
    cams: Tensor,
    affinity: Tensor,
    *,
    alpha: float,
    beta: float,
    steps: int,
    radius: float,
    stride: int,
    restart: float | None = None,
    threshold: float | None = None,
    relative: bool = False,
) -> Tensor:
    """Let the background map and the activation maps walk over the grid of the affinities.

    S = T^steps avgpool([(1 - max_c M_c)^alpha, M_1 .. M_K]), T as in `random_walk`. The background
    is made at image size and the averages are taken afterwards: the mean of a power is not the
    power of the mean. Padding at the bottom and right counts as 0 for every map.

    Args:
        cams: (K, H, W) in [0, 1], any K from 0.
        affinity: (P, h, w) or (1, P, h, w) in [0, 1], h = ceil(H / stride), w = ceil(W / stride).
        alpha: exponent of the background, above 0; the smaller, the stronger the background.
        beta: exponent of the affinities, above 0.
        steps: of the walk, from 0.
        radius: that of the affinities.
        stride: image pixels a side of a cell.
        restart: that of `restart_walk`, which then walks in place of the steps.
        threshold: the background everywhere, in place of a map that walks. alpha is not read.
        relative: with a threshold divide the classes' scores by the largest of all, as IRN does.

    Returns:
        (K + 1, h, w), background first, at least 0. There is no limit above: the walk averages, so
        that only maps over one make scores over one. `enlarge_scores` brings them to image size.

    Raises:
        ValueError: shapes that do not fit each other, the stride or the radius; alpha, beta,
            steps or stride out of range.

    Source: Ahn & Kwak, CVPR 2018, section 3.4; padding and averages as in their public code.
    """
    graph = affinity if affinity.ndim == 4 else affinity[None]
    # A stride of 0 divides nothing here and is refused by pad_to_stride.
    grid = tuple(-(-length // max(stride, 1)) for length in cams.shape[-2:])
    if cams.ndim != 3 or graph.ndim != 4 or len(graph) != 1 or graph.shape[2:] != grid:
        raise ValueError(
            f"cams {tuple(cams.shape)} and affinity {tuple(affinity.shape)} do not fit: cams "
            f"(K, H, W) at stride {stride} take affinities (P, h, w) with h = ceil(H / {stride}) "
            f"and w = ceil(W / {stride})"
        )
    if alpha <= 0:
        raise ValueError(f"alpha must be above 0, not {alpha}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 to 1, not {threshold}")
    cams = _single_or_double(cams)
    if threshold is None:
        cams = torch.cat([background_map(cams, alpha), cams])
    elif len(cams) == 0:  # nothing walks, and the average of no maps is refused
        return cams.new_full((1, *grid), threshold)
    cells = F.avg_pool2d(pad_to_stride(cams, stride)[None], stride)
    walked = (
        random_walk(cells, graph, beta=beta, steps=steps, radius=radius)
        if restart is None
        else restart_walk(cells, graph, beta=beta, restart=restart, radius=radius)
    )
    # The walk's polynomial is exact to 5e-5 of the largest value, so it may pass zero by that.
    scores = walked[0].clamp(min=0)
    if threshold is None:
        return scores
    if relative:
        scores = scores / scores.max().clamp(min=1e-5)
    return torch.cat([scores.new_full((1, *grid), threshold), scores])


def enlarge_scores(scores: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Bring scores of a grid to image size by bilinear interpolation.

    The grid is enlarged to its cells' size (align_corners=False: a score stands in the middle of
    its cell) and what lies outside of the image is cut off, so that scores stay where they were.

    Args:
        scores: (L, h, w).
        stride: image pixels a side of a cell.
        size: (H, W) of the image, with h = ceil(H / stride) and w = ceil(W / stride).

    Returns:
        (L, H, W), float64 where the scores are, else float32.

    Raises:
        ValueError: the grid is not that of an image of this size.

    Source: github.com/jiwoon-ahn/psa.
    """
    height, width = size
    h, w = scores.shape[-2:]
    if scores.ndim != 3 or stride < 1 or (-(-height // stride), -(-width // stride)) != (h, w):
        raise ValueError(
            f"scores {tuple(scores.shape)} do not fit an image of {height} x {width} at stride "
            f"{stride}: they must be (L, h, w) with h = ceil(H / stride) and w = ceil(W / stride)"
        )
    whole = (h * stride, w * stride)
    maps = _single_or_double(scores)[None]
    spread = F.interpolate(maps, whole, mode="bilinear", align_corners=False)
    return spread[0, :, :height, :width]


def refine_scores(
    image: Tensor | NDArray[np.generic],
    scores: Tensor,
    *,
    iterations: int = 10,
    gaussian_sxy: float = 3,
    gaussian_compat: float = 3,
    bilateral_sxy: float = 80,
    bilateral_srgb: float = 13,
    bilateral_compat: float = 10,
) -> Tensor:
    """Let scores follow the image's edges: `dense_crf`, where there is more than the background.

    A single label wins everywhere whatever its scores, and its refinement would be 1 everywhere:
    those scores come back as they are.

    Args:
        image: (H, W, 3) uint8 or float, values from 0 to 255.
        scores: (L, H, W), the background first; those over one count as one.

    The other arguments are those of `dense_crf`.

    Returns:
        (L, H, W): for L > 1 float32 and summing to one over L, for L = 1 the scores themselves.

    Raises:
        ValueError: as `dense_crf`.

    Source: Krähenbühl & Koltun, NeurIPS 2011; applied to the walk's scores by Ahn & Kwak, CVPR
    2018.
    """
    if len(scores) == 1:
        return scores
    return dense_crf(
        image,
        scores,
        iterations=iterations,
        gaussian_sxy=gaussian_sxy,
        gaussian_compat=gaussian_compat,
        bilateral_sxy=bilateral_sxy,
        bilateral_srgb=bilateral_srgb,
        bilateral_compat=bilateral_compat,
    )


def label_scores(scores: Tensor) -> Tensor:
    """Give each pixel its best label: argmax_l S_l, of equal ones the smallest.

    Args:
        scores: (L, H, W), L from 1.

    Returns:
        (H, W) int64: 0 background, c for the map that stands at place c.

    Raises:
        ValueError: scores of another shape, without a label, or not finite.

    Source: Ahn & Kwak, CVPR 2018, section 3.4.
    """
    if scores.ndim != 3 or len(scores) == 0:
        raise ValueError(f"scores must be (L, H, W) with L from 1, not {tuple(scores.shape)}")
    if scores.is_floating_point():  # the largest of NaN is none
        check_values(scores, "scores")
    # Not argmax, which takes several times as long over planes of pixels on a CPU.
    return scores.max(0).indices


def _single_or_double(maps: Tensor) -> Tensor:
    # Maps and scores kept on disk may be float16, too coarse to calculate with.
    return maps.to(torch.promote_types(maps.dtype, torch.float32))
