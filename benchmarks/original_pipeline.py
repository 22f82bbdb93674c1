"""The peer: label generation in the original code's arithmetic, one image at a time.

Written from the published description, for the benchmarks to run against. Each of the three steps
decodes the image again; every scale and mirror image is a forward pass of its own, in NCHW; all
classes' maps are brought to image size and the untagged ones multiplied by zero; each of the two
alphas is a pydensecrf call of its own; both ends of every pair are gathered; the transition matrix
is N x N, squared eight times, and all C + 1 channels walk. The dense CRF after the walk is the
paper's, not the code's; it gets the tagged classes only, which costs the peer less.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from dense_walk import dense_transition, gathered_affinity, pair_indices
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from affinitynet.models.affinity_net import AffinityNet
from affinitynet.models.classifier import Classifier
from affinitynet.ops.normalization import Normalization

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def normalized(image: Image.Image | Bytes, normalization: Normalization) -> Tensor:
    """Turn an RGB image into a batch of one, (1, 3, H, W) in NCHW."""
    return normalization.apply(torch.tensor(np.array(image)).permute(2, 0, 1)[None]).contiguous()


def original_cams(
    model: Classifier,
    normalization: Normalization,
    image: Bytes,
    tags: Sequence[int],
    scales: Sequence[float],
) -> Floats:
    """Sum the CAMs of all scales and mirror images, one forward each: the K tags' (K, H, W)."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    device = model.head.class_weights.device
    labels = torch.zeros(len(model.head.class_weights), 1, 1)
    labels[list(tags)] = 1
    total = np.zeros((len(labels), height, width), np.float32)
    for scale in scales:
        size = (round(width * scale), round(height * scale))
        pixels = normalized(picture.resize(size, Image.Resampling.BICUBIC), normalization)
        for mirrored in (False, True):
            batch = (pixels.flip(-1) if mirrored else pixels).contiguous().to(device)
            maps = model.cams(batch)
            maps = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)
            found = (maps[0].cpu() * labels).numpy()
            total += found[..., ::-1] if mirrored else found
    chosen = total[list(tags)]
    peak: Floats = chosen.max((1, 2), keepdims=True)
    return np.asarray(chosen / (peak + 1e-5), np.float32)


def original_crf(image: Bytes, scores: Floats, iterations: int = 10) -> Floats:
    """One pydensecrf call with the published widths and weights: (L, H, W) -> (L, H, W)."""
    # Here, so that only those who measure it need it.
    from pydensecrf.densecrf import DenseCRF2D

    labels, height, width = scores.shape
    crf = DenseCRF2D(width, height, labels)
    energy = -np.log(np.clip(scores, 1e-5, 1)).reshape(labels, -1)
    crf.setUnaryEnergy(np.ascontiguousarray(energy, np.float32))
    crf.addPairwiseGaussian(sxy=3, compat=3)
    crf.addPairwiseBilateral(sxy=80, srgb=13, rgbim=np.ascontiguousarray(image), compat=10)
    return np.array(crf.inference(iterations), np.float32).reshape(scores.shape)


def with_background(cams: Floats, alpha: float) -> Floats:
    """Put (1 - max)^alpha in front of the maps."""
    rest = (1 - cams.max(0, keepdims=True)) ** alpha if len(cams) else np.ones_like(cams[:1])
    return np.concatenate([rest, cams])


def original_confident(
    image: Bytes, cams: Floats, low_alpha: float, high_alpha: float
) -> NDArray[np.int64]:
    """Label what both CRF calls are sure of: 0, 1..K, 255 neutral; the background wins."""
    low = original_crf(image, with_background(cams, low_alpha)).argmax(0)
    high = original_crf(image, with_background(cams, high_alpha)).argmax(0)
    labels = np.where(low == 0, 255, low)
    labels[high == 0] = 0
    return labels


def original_walk(
    model: AffinityNet,
    normalization: Normalization,
    image: Bytes,
    cams: Floats,
    tags: Sequence[int],
    classes: int,
    alpha: float,
    doublings: int = 8,
) -> Floats:
    """Walk by dense squaring and upsample all channels: answer background and tags (K + 1, H, W).

    The exponent beta is 8, the published one.
    """
    height, width = image.shape[:2]
    stride = model.stride
    padding = (0, -width % stride, 0, -height % stride)
    pixels = F.pad(normalized(image, normalization), padding)
    pixels = pixels.to(model.head.mix.weight.device)
    if model.scale > 1:  # a setting that the original lacks
        pixels = F.interpolate(pixels, scale_factor=model.scale, mode="bilinear")
    features = model.head(model.backbone(pixels))
    rows, columns = features.shape[-2:]
    first, second = pair_indices(rows, columns, model.radius)
    affinity = gathered_affinity(features.float().cpu(), first, second)[0]
    matrix = dense_transition(first, second, affinity, rows * columns)
    for _ in range(doublings):
        matrix = torch.matmul(matrix, matrix)
    every = torch.zeros(classes + 1, height, width)
    scores = torch.from_numpy(with_background(cams, alpha))
    channels = [0, *(tag + 1 for tag in tags)]
    every[channels] = scores
    grid = F.avg_pool2d(F.pad(every, padding), stride)
    walked = torch.matmul(grid.flatten(1), matrix).reshape(1, classes + 1, rows, columns)
    size = (height + padding[3], width + padding[1])
    spread = F.interpolate(walked, size, mode="bilinear", align_corners=False)
    answer: Floats = spread[0, channels, :height, :width].numpy()
    return answer
