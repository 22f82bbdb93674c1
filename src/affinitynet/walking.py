"""The walk and its dense CRF as a recipe's settings say, for all who decide masks by them.

`propagate`, the page and `tune` go through these, so that a setting means the same to each.
"""

from functools import partial
from typing import Any

from torch import Tensor

from affinitynet.channels import three_channels
from affinitynet.ops.blocks import in_blocks
from affinitynet.ops.crf import dense_crf
from affinitynet.ops.guard import fall_back, seed_scores, wrong_classes
from affinitynet.ops.propagation import refine_scores, walk_scores
from affinitynet.run_folder.settings import RelabelSettings, SegmenterSettings, WalkSettings

Refining = WalkSettings | RelabelSettings | SegmenterSettings
# What the scores of a walk depend on, beside its maps and affinities.
SCORED = ("alpha", "beta", "steps", "method", "restart", "background", "background_score")


def score_key(settings: WalkSettings) -> tuple[Any, ...]:
    """Return what tells walks over the same maps and affinities apart; None where it isn't read."""
    unread = {
        "background_score" if settings.background == "alpha" else "alpha",
        "restart" if settings.method == "power" else "steps",
    }
    return tuple(None if name in unread else getattr(settings, name) for name in SCORED)


def threshold_of(settings: WalkSettings) -> float | None:
    """Return the constant score of the background, None where it is a map."""
    if settings.background == "auto":
        raise ValueError("walk.background: auto says nothing before `settled` has decided it")
    return None if settings.background == "alpha" else settings.background_score


def seeds_of(cams: Tensor, settings: WalkSettings) -> Tensor:
    """Return the scores (K + 1, H, W) that a walk starts from, for maps (K, H, W)."""
    return seed_scores(cams, settings.alpha, threshold_of(settings))


def walked(
    cams: Tensor, affinity: Tensor, settings: WalkSettings, *, radius: int, stride: int
) -> Tensor:
    """Walk maps (K, H, W) over affinities (P, h, w); returns scores (K + 1, h, w), not rounded."""
    return walk_scores(
        cams,
        affinity,
        alpha=settings.alpha,
        beta=settings.beta,
        steps=settings.steps,
        radius=radius,
        stride=stride,
        restart=settings.restart if settings.method == "restart" else None,
        threshold=threshold_of(settings),
        relative=settings.background == "relative",
    )


def guarded(spread: Tensor, seeds: Tensor, seed_labels: Tensor, walk_labels: Tensor) -> Tensor:
    """Return the walk's scores (K + 1, H, W) with the seeds' where the walk is wrong.

    The labels (H, W) are those of the seeds and of the walk.
    """
    wrong = wrong_classes(seed_labels, walk_labels, len(spread) - 1)
    return fall_back(spread, seeds, wrong) if wrong.any() else spread


def refined(image: Tensor, scores: Tensor, settings: Refining) -> Tensor:
    """Refine scores (K + 1, H, W) of an image (H, W, N) by the dense CRF, large ones in blocks.

    The CRF sees the colors that people see (`three_channels`).
    """
    crf = settings.crf.model_dump()
    if len(scores) == 1:  # nothing to refine in the background alone
        return refine_scores(image, scores, **crf)
    return in_blocks(
        partial(dense_crf, **crf),
        three_channels(image),
        scores,
        block=settings.block,
        bilateral_sxy=settings.crf.bilateral_sxy,
    )
