"""Stage 5: CAMs and affinities -> walk/<id>.png (random walk) and pseudo/<id>.png (dense CRF)."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from affinitynet.data import Sample, load_image, write_labels
from affinitynet.hardware import inference
from affinitynet.models.normalization import Normalization
from affinitynet.ops.affinity import cropped_pairs
from affinitynet.ops.confidence import background_map
from affinitynet.ops.crf import dense_crf
from affinitynet.ops.random_walk import random_walk
from affinitynet.stages.compute_cams import FOLDER as CAMS
from affinitynet.stages.compute_cams import load_cams, save_cams
from affinitynet.stages.context import Context, check_size, each_image
from affinitynet.stages.mine_confident import to_labels
from affinitynet.stages.train_affinity import load_affinity_net

FOLDER = "pseudo"
WALK = "walk"
SCORES = "scores"


def work(context: Context) -> dict[str, Any]:
    """Write the walk's and the refined masks of every training image."""
    model = load_affinity_net(context)
    normalization: Normalization = model.backbone.normalization  # type: ignore[assignment]
    hardware = context.hardware_at(context.recipe.walk.precision)
    with inference(model, hardware) as device:

        def compute(sample: Sample, image: Tensor) -> tuple[Tensor, Tensor]:
            pixels = pad_to_stride(normalization.apply(image[None].to(device)), model.stride)
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            return image, model(pixels).float().cpu()

        counts = each_image(
            "propagate",
            context.samples("train", "figures"),
            lambda sample: context.file(FOLDER, sample),
            load=lambda sample: torch.from_numpy(load_image(sample.image)).permute(2, 0, 1),
            compute=compute,
            finish=lambda sample, computed: _finish(context, sample, *computed, model.stride),
            workers=context.recipe.workers,
        )
    return {**counts, "precision": hardware.chosen_precision}


def pad_to_stride(maps: Tensor, stride: int) -> Tensor:
    """Pad (..., H, W) with zeros at the bottom and right to multiples of the stride."""
    height, width = maps.shape[-2:]
    return F.pad(maps, (0, -width % stride, 0, -height % stride))


def walk_cams(
    cams: Tensor,
    affinity: Tensor,
    *,
    alpha: float,
    beta: float,
    steps: int,
    radius: int,
    stride: int,
) -> Tensor:
    """Let the background map and the CAMs walk: (K, H, W), (1, P, h, w) -> (K + 1, H, W).

    The background (1 - max)^alpha is made at image size; all maps are averaged over the cells of
    the grid, walked, and brought back by bilinear interpolation (align_corners=False).
    """
    height, width = cams.shape[-2:]
    maps = pad_to_stride(torch.cat([background_map(cams, alpha), cams]), stride)
    grid = F.avg_pool2d(maps[None], stride)
    walked = random_walk(grid, affinity, beta=beta, steps=steps, radius=radius)
    spread = F.interpolate(walked, maps.shape[-2:], mode="bilinear", align_corners=False)
    return spread[0, :, :height, :width].clamp(0, 1)


def _finish(context: Context, sample: Sample, image: Tensor, affinity: Tensor, stride: int) -> None:
    settings, grid = context.recipe.walk, context.recipe.affinity
    file = context.file(CAMS, sample, ".npz")
    classes, cams = load_cams(file)
    check_size(image.shape[1:], cams.shape[1:], file)
    if grid.pairs == "cropped":
        affinity = cropped_pairs(affinity, grid.radius)
    scores = walk_cams(
        torch.from_numpy(cams),
        affinity,
        alpha=settings.alpha,
        beta=settings.beta,
        steps=settings.steps,
        radius=grid.radius,
        stride=stride,
    )
    if settings.scores:
        save_cams(context.file(SCORES, sample, ".npz"), classes.tolist(), scores[1:])
    refined = scores
    if settings.refine and len(classes):
        refined = dense_crf(image.permute(1, 2, 0), scores, **settings.crf.model_dump())
    for folder, maps in ((WALK, scores), (FOLDER, refined)):  # the stage's own output last
        # Not argmax, which takes several times as long over planes of pixels on a CPU.
        labels = maps.max(0).indices.numpy().astype(np.uint8)
        write_labels(
            context.file(folder, sample),
            to_labels(labels, classes, context.manifest.ignore_index),
            context.manifest.palette,
        )
