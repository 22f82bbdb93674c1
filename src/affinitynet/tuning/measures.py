"""How good masks look without ground truth. Each measure is higher for what should be better.

What each is worth against the truth stands in docs/choosing-settings.md, measured by
`benchmarks/tune_measures.py`.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from affinitynet.channels import three_channels
from affinitynet.data.trust import agreement, agreement_with_maps, combine, map_contrast
from affinitynet.ops.affinity import pairwise_affinity
from affinitynet.ops.propagation import enlarge_scores, label_scores, pad_to_stride
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.tuning.decide import Case, Decision, tags_of
from affinitynet.walking import score_key, walked

Measure = Callable[[Case, Decision, WalkSettings], float]
COLOR_WIDTH = 12.0  # of 0 to 255: cells whose mean colors differ by this are bound by 1 / e
Probabilities = Callable[[torch.Tensor], torch.Tensor]  # images (B, 3, H, W) -> (B, C)


def with_cam(case: Case, decision: Decision, walk: WalkSettings) -> float:
    """Return how well mask and CAM agree: the IoU of a map of values and a mask."""
    return agreement_with_maps(
        tuple(tags_of(case)), case.cams.numpy(), decision.mask, tags_of(case)
    )


def area_as_cam(case: Case, decision: Decision, walk: WalkSettings) -> float:
    """Return how like the mask's area is to the CAM's (the sum of its values): min / max."""
    found = []
    for tag in tags_of(case):
        sizes = float(case.cams[tag].sum()), float(np.count_nonzero(decision.mask == tag + 1))
        found.append(min(sizes) / max(max(sizes), 1e-9))
    return float(np.mean(found)) if found else 1.0


def walk_and_crf(case: Case, decision: Decision, walk: WalkSettings) -> float:
    """Return how well the walk and the mask after the CRF agree."""
    return agreement(decision.walk, decision.refined, tags_of(case))


def second_affinity(case: Case, decision: Decision, walk: WalkSettings) -> float:
    """Return how well the mask agrees with a walk by color alone, of the same settings."""
    key = ("color", *score_key(walk))
    if key not in case.walks:
        pixels = pad_to_stride(case.image.permute(2, 0, 1).float(), case.stride)[None]
        cells = F.avg_pool2d(pixels, case.stride) / COLOR_WIDTH
        color = pairwise_affinity(cells, case.radius)
        case.walks[key] = walked(case.cams, color, walk, radius=case.radius, stride=case.stride)
    size = (case.image.shape[0], case.image.shape[1])
    other = label_scores(enlarge_scores(case.walks[key], case.stride, size)).numpy()
    return agreement(decision.mask, other, tags_of(case))


def border_contrast(case: Case, decision: Decision, walk: WalkSettings) -> float:
    """Return r / (1 + r), r the color step across the mask's border over that of the image.

    A step is the mean difference of two neighbors' colors; 0 where there is no border.
    """
    image, labels = three_channels(case.image).numpy().astype(np.float32), decision.mask
    across = total = 0.0
    borders = pairs = 0
    for axis in (0, 1):
        steps = np.abs(np.diff(image, axis=axis)).mean(2)
        border = np.diff(labels.astype(np.int64), axis=axis) != 0
        across, borders = across + float(steps[border].sum()), borders + int(border.sum())
        total, pairs = total + float(steps.sum()), pairs + steps.size
    if not borders or total == 0:
        return 0.0
    ratio = (across / borders) / (total / pairs)
    return ratio / (1 + ratio)


def not_empty(case: Case, decision: Decision, walk: WalkSettings) -> float:
    """Return the share of the tags that the mask shows."""
    shown = set(np.unique(decision.mask).tolist())
    tags = list(tags_of(case))
    return sum(tag + 1 in shown for tag in tags) / len(tags) if tags else 1.0


def trust(case: Case, decision: Decision, walk: WalkSettings) -> float:
    """Return the trust of the mask as in `trust.csv`, without the walk's margin."""
    tags = tags_of(case)
    maps = agreement_with_maps(tuple(tags), case.cams.numpy(), decision.walk, tags)
    contrast = map_contrast(case.cams.numpy(), decision.mask > 0)
    parts = [maps, agreement(decision.walk, decision.mask, tags), contrast]
    return combine(parts, not_empty(case, decision, walk))


MEASURES: dict[str, Measure] = {
    "agreement with the CAM": with_cam,
    "area as the CAM's": area_as_cam,
    "agreement of walk and CRF": walk_and_crf,
    "agreement with a walk by color": second_affinity,
    "contrast at the border": border_contrast,
    "tags shown": not_empty,
    "trust": trust,
}


def deletion(case: Case, decision: Decision, probabilities: Probabilities, side: int) -> float:
    """Return how much more of its tags' probability the mask keeps than all that is outside of it.

    mean over tags of p(image where all but the mask is painted over) - p(image where the mask is),
    in [-1, 1]. Painted over is with the image's mean color, at most `side` pixels long.
    """
    image = case.image.permute(2, 0, 1).float()
    scale = min(1.0, side / max(image.shape[1:]))
    size = [max(1, math.floor(length * scale)) for length in image.shape[1:]]
    small = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    mask = F.interpolate(torch.from_numpy(decision.mask)[None, None].float(), size)[0, 0]
    paint = small.mean((1, 2), keepdim=True)
    found = []
    for tag in tags_of(case):
        inside = mask == tag + 1
        pair = torch.stack([torch.where(inside, small, paint), torch.where(inside, paint, small)])
        kept, left = probabilities(pair)[:, case.classes[tag]].tolist()
        found.append(kept - left)
    return float(np.mean(found)) if found else 0.0
