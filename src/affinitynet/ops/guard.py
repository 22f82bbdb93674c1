"""The walk against the seeds it starts from: where it floods an image or eats an object.

A walk moves the borders of the seeds, by color and texture; it should not make an object many times
as large, nor lose it. Both happen without truth being needed to see it: thin or small objects, a
few cells of the grid wide, are averaged away; a weak background lets a class run over the image.
"""

from typing import Literal

import torch
from torch import Tensor

from affinitynet.ops.confidence import background_map

# CAMs show the most telling part of an object, so that a walk which triples a seed may be right.
# Nor is a large object a flood if its seeds were large: both together have to be too much.
FLOOD_TIMES, FLOOD_SHARE = 4.0, 0.5
# At the alpha of the walk's background, seeds are several times the object: a good walk leaves a
# seventh to a half of them. On 40 leaves with 31 thin or small lesions any share from 0.03 to 0.15
# gave masks of 53 to 56 mIoU, where no guard gave 43 and a fifth 52.
EATEN = 0.1

Fault = Literal["floods", "eats"]


def seed_scores(cams: Tensor, alpha: float, threshold: float | None = None) -> Tensor:
    """Return what the walk starts from at image size: [(1 - max_c M_c)^alpha, M_1 .. M_K].

    With a threshold that is the background everywhere.

    Args:
        cams: (K, H, W) in [0, 1], any K from 0.
        alpha: exponent of the background, over 0.
        threshold: that of `walk_scores`.

    Returns:
        (K + 1, H, W), background first.

    Raises:
        ValueError: as `background_map`.
    """
    if threshold is not None:
        return torch.cat([cams.new_full((1, *cams.shape[1:]), threshold), cams])
    return torch.cat([background_map(cams, alpha), cams])


def label_areas(labels: Tensor, count: int) -> Tensor:
    """Count the pixels of the labels 0 .. count - 1; others, as 255, are left out.

    Args:
        labels: (H, W) integers.
        count: how many labels.

    Returns:
        (count,) int64.
    """
    # bincount would otherwise answer with a place for 255, and refuses what is below 0.
    known = labels[(labels >= 0) & (labels < count)]
    return torch.bincount(known.long().flatten(), minlength=count)


def walk_fault(seed: int, walked: int, pixels: int) -> Fault | None:
    """Say what is wrong with a class whose area in an image of `pixels` was `seed` before the walk.

    It floods where it takes more than half of the image and over four times its seeds, it is eaten
    where less than a tenth of its seeds is left. A class without seeds can't be judged.
    """
    if not seed:
        return None
    if walked > FLOOD_TIMES * seed and walked > FLOOD_SHARE * pixels:
        return "floods"
    return "eats" if walked < EATEN * seed else None


def wrong_classes(seeds: Tensor, walked: Tensor, classes: int) -> Tensor:
    """Tell of the classes 1 .. K of two label maps (H, W) which ones the walk got wrong: (K,) bool.

    As `walk_fault` of their areas.
    """
    # Off the device in one go: a number at a time would wait for it each time.
    before = label_areas(seeds, classes + 1)[1:].tolist()
    after = label_areas(walked, classes + 1)[1:].tolist()
    faults = map(walk_fault, before, after, [seeds.numel()] * classes)
    return torch.tensor([fault is not None for fault in faults], dtype=torch.bool)


def fall_back(walked: Tensor, seeds: Tensor, wrong: Tensor) -> Tensor:
    """Put the seeds' scores back for the classes that the walk got wrong.

    Those classes have their seeds' scores everywhere. Where the seeds or the walk say one of them,
    all other scores are those before the walk too, so that its rivals are of the same kind.
    Elsewhere they stay as walked, unless all classes are wrong: then nothing is left of the walk.

    Args:
        walked: (K + 1, H, W), background first.
        seeds: (K + 1, H, W), as `seed_scores`.
        wrong: (K,) bool.

    Returns:
        (K + 1, H, W), new.

    Raises:
        ValueError: shapes that do not fit each other.
    """
    if walked.shape != seeds.shape or wrong.shape != (len(walked) - 1,):
        raise ValueError(
            f"walked {tuple(walked.shape)}, seeds {tuple(seeds.shape)} and wrong "
            f"{tuple(wrong.shape)} do not fit: (K + 1, H, W) twice and (K,)"
        )
    if wrong.all():
        return seeds.to(walked.dtype)
    # The background, label 0, is not judged itself.
    rows = torch.cat([wrong.new_zeros(1), wrong])
    disputed = rows[walked.max(0).indices] | rows[seeds.max(0).indices]
    return torch.where(rows[:, None, None] | disputed, seeds.to(walked.dtype), walked)
