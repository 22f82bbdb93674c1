"""The paper's mathematics: pure functions on tensors, no files, no settings, no global state."""

from affinitynet.ops.affinity import (
    AffinityLoss,
    PairTargets,
    affinity_loss,
    affinity_targets,
    neighbor_offsets,
    pairwise_affinity,
)
from affinitynet.ops.boundary import boundary_affinity
from affinitynet.ops.cam import class_activation_maps, normalize_cams
from affinitynet.ops.confidence import background_map, confident_labels
from affinitynet.ops.crf import boundary_loss, dense_crf
from affinitynet.ops.features import feature_affinity
from affinitynet.ops.par import pixel_adaptive_refinement
from affinitynet.ops.propagation import (
    enlarge_scores,
    label_scores,
    refine_scores,
    walk_scores,
)
from affinitynet.ops.random_walk import random_walk
from affinitynet.ops.restart_walk import restart_walk

__all__ = [
    "AffinityLoss",
    "PairTargets",
    "affinity_loss",
    "affinity_targets",
    "background_map",
    "boundary_affinity",
    "boundary_loss",
    "class_activation_maps",
    "confident_labels",
    "dense_crf",
    "enlarge_scores",
    "feature_affinity",
    "label_scores",
    "neighbor_offsets",
    "normalize_cams",
    "pairwise_affinity",
    "pixel_adaptive_refinement",
    "random_walk",
    "refine_scores",
    "restart_walk",
    "walk_scores",
]
