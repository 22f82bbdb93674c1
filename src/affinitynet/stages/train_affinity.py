"""Stage 4: confident areas -> affinity/, the network that knows what belongs together."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from affinitynet.data import Sample
from affinitynet.data.transforms import (
    NO_JITTER,
    PAPER_JITTER,
    affinity_augment,
    sample_generator,
)
from affinitynet.models.affinity_net import build_affinity_net, describe_affinity_net
from affinitynet.models.boundary_net import TRAIN_RADIUS, describe_boundary_net
from affinitynet.models.saved import save_model
from affinitynet.ops.affinity import affinity_loss, affinity_targets, cropped_pairs
from affinitynet.ops.normalization import Normalization
from affinitynet.run_folder.artifacts import AFFINITY, CONFIDENT
from affinitynet.run_folder.settings import AffinitySettings
from affinitynet.stages.context import Context
from affinitynet.stages.images import load_labeled
from affinitynet.stages.starting import classifier_to_start_from
from affinitynet.training import fit

VANISHED = 3.0  # loss of pairs that belong together: a mean affinity below 0.05


@dataclass
class ConfidentCrops:
    """Augmented crops (3, S, S) with the confident labels of their grid cells (S/d, S/d)."""

    samples: tuple[Sample, ...]
    files: tuple[Path, ...]
    settings: AffinitySettings
    normalization: Normalization
    stride: int
    ignore_index: int
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        """Count the images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Load and augment one image, by (seed, epoch, index) alone."""
        image, labels = load_labeled(
            "train_affinity", self.samples[index], self.files[index], "mine_confident"
        )
        return affinity_augment(
            image,
            labels,
            sample_generator(self.seed, self.epoch, index),
            normalization=self.normalization,
            size=self.settings.crop,
            stride=self.stride,
            padding=self.settings.padding,
            jitter=PAPER_JITTER if self.settings.jitter else NO_JITTER,
            ignore_index=self.ignore_index,
        )


def pair_losses(
    model: nn.Module, batch: Any, *, settings: AffinitySettings, ignore_index: int
) -> dict[str, Tensor]:
    """Three-part affinity loss of a batch of crops and grid labels."""
    images, labels = batch
    radius = train_radius(settings)
    affinity = model(images) if radius == settings.radius else model(images, radius)
    affinity = affinity.float()
    targets = affinity_targets(labels, radius, ignore_index=ignore_index)
    if settings.pairs == "cropped":
        targets = type(targets)(*(cropped_pairs(t, radius) for t in targets))
    parts = affinity_loss(affinity, targets)
    return {"loss": parts.total, **parts._asdict()}


def train_radius(settings: AffinitySettings) -> int:
    """Return the radius of the pairs to train on.

    A boundary is learned from pairs on both of its sides, and near to it the labels are neutral:
    a larger radius finds more of them.
    """
    if settings.train_radius is None and settings.source == "boundary":
        return TRAIN_RADIUS
    return settings.train_radius or settings.radius


def work(context: Context) -> dict[str, Any]:
    """Train the affinity network and save it; returns its figures."""
    recipe = context.recipe
    samples = context.samples("train")
    classifier = classifier_to_start_from(context, recipe.affinity.start)
    model = build_affinity_net(
        recipe.backbone, recipe.affinity, data=recipe.data, pretrained=classifier is None
    )
    if classifier is not None:
        model.backbone.load_state_dict(classifier.backbone.state_dict())
    normalization: Normalization = model.backbone.normalization  # type: ignore[assignment]
    dataset = ConfidentCrops(
        samples,
        tuple(context.file(CONFIDENT, sample) for sample in samples),
        recipe.affinity,
        normalization,
        model.stride,
        context.manifest.ignore_index,
        recipe.seed,
    )
    folder = context.folder(AFFINITY)
    losses = partial(
        pair_losses, settings=recipe.affinity, ignore_index=context.manifest.ignore_index
    )
    figures = fit(
        "train_affinity",
        model,
        dataset,
        losses,
        recipe.affinity,
        folder=folder,
        seed=recipe.seed,
        hardware=context.hardware,
        trackers=recipe.trackers,
    )
    describe = (
        describe_boundary_net if recipe.affinity.source == "boundary" else describe_affinity_net
    )
    save_model(folder, model, describe(recipe.backbone, recipe.affinity))
    judgements = judge(figures, recipe.affinity)
    return {
        **figures,
        "images": len(samples),
        "judgements": judgements,
        "warnings": judgements,
    }


def judge(figures: dict[str, float], settings: AffinitySettings) -> list[str]:
    """Say in a line whether the network learned less than one affinity for all pairs would tell.

    An affinity of 1/2 everywhere has a loss of log 2 in each of the three parts, and no other
    constant has less in all. Where the affinities of pairs that belong together stay at zero,
    whose loss is 11.5, the gradient has vanished.
    """
    if figures["total"] < math.log(2):
        return []
    said = (
        f"the affinity network learned nothing: its loss is {figures['total']:.2f}, the same "
        f"affinity for all pairs has {math.log(2):.2f}"
    )
    worst = max(figures["background"], figures["foreground"])
    if worst > VANISHED and settings.distance == "sum":
        return [f"{said}; affinities stay at zero: set affinity.distance = mean"]
    return [f"{said}; train longer (affinity.epochs, now {settings.epochs})"]
