"""Stage 1: images and tags -> classifier/."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from affinitynet.data import Sample, load_image
from affinitynet.data.transforms import (
    NO_JITTER,
    PAPER_JITTER,
    classifier_augment,
    sample_generator,
)
from affinitynet.errors import UserError
from affinitynet.models.classifier import build_classifier, describe_classifier
from affinitynet.models.saved import save_model
from affinitynet.ops.normalization import Normalization
from affinitynet.run_folder.settings import ClassifierSettings
from affinitynet.run_folder.stages import CLASSIFIER
from affinitynet.stages.context import Context
from affinitynet.stages.images import blaming
from affinitynet.training import discard_checkpoint, fit

UNLEARNT = 0.8  # of the loss without looking: what CAMs such a classifier has are no use


@dataclass
class TaggedImages:
    """Augmented training images (3, S, S) with their tags as a 0/1 vector (C,)."""

    samples: tuple[Sample, ...]
    classes: int
    settings: ClassifierSettings
    normalization: Normalization
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        """Count the images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Load and augment one image, by (seed, epoch, index) alone."""
        sample = self.samples[index]
        with blaming("train_classifier", sample):
            pixels = load_image(sample.image)
        image = classifier_augment(
            pixels,
            sample_generator(self.seed, self.epoch, index),
            normalization=self.normalization,
            size=self.settings.crop,
            long_side=self.settings.long_side,
            jitter=PAPER_JITTER if self.settings.jitter else NO_JITTER,
        )
        tags = torch.zeros(self.classes)
        tags[list(sample.tags)] = 1
        return image, tags


def classification_losses(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    """Multi-label soft-margin loss of a batch of images and tag vectors."""
    images, tags = batch
    return {"loss": F.multilabel_soft_margin_loss(model(images).float(), tags)}


def work(context: Context) -> dict[str, Any]:
    """Train the classifier and save it; returns its figures."""
    recipe, classes = context.recipe, context.manifest.classes
    samples = context.samples("train")
    _check(samples, context)
    torch.manual_seed(recipe.seed)
    model = build_classifier(recipe.backbone, recipe.classifier, classes, data=recipe.data)
    normalization: Normalization = model.backbone.normalization  # type: ignore[assignment]
    dataset = TaggedImages(samples, len(classes), recipe.classifier, normalization, recipe.seed)
    folder = context.folder(CLASSIFIER)
    figures = fit(
        "train_classifier",
        model,
        dataset,
        classification_losses,
        recipe.classifier,
        folder=folder,
        seed=recipe.seed,
        hardware=context.hardware,
    )
    save_model(folder, model, describe_classifier(recipe.backbone, recipe.classifier, classes))
    discard_checkpoint(folder)
    frequencies = tag_frequencies(samples, len(classes))
    chance = chance_loss(frequencies)
    warnings = [
        *_rare(frequencies * len(samples), classes),
        *_unlearnt(figures["loss"], chance),
    ]
    return {**figures, "chance": chance, "images": len(samples), "warnings": warnings}


def _check(samples: tuple[Sample, ...], context: Context) -> None:
    if not samples:
        raise UserError(f"{context.manifest.root}: split {context.recipe.dataset.train!r} is empty")
    if not any(sample.tags for sample in samples):
        raise UserError(f"{context.manifest.root}: no training image has a tag, nothing to learn")


def tag_frequencies(samples: Sequence[Sample], classes: int) -> NDArray[np.float64]:
    """Return the share of the images that show each class, (C,)."""
    counts = np.zeros(classes)
    for sample in samples:
        counts[list(sample.tags)] += 1
    return counts / len(samples)


def chance_loss(frequencies: NDArray[np.float64]) -> float:
    """Return the loss of a classifier that looks at no image: the mean entropy of the tags, nats.

    -p log p - (1 - p) log (1 - p) for each class's frequency p is the least that the soft-margin
    loss can be when every image gets the same scores.
    """
    p = np.clip(frequencies, 1e-12, 1 - 1e-12)
    return float(np.mean(-p * np.log(p) - (1 - p) * np.log(1 - p)))


def _rare(counts: NDArray[np.float64], classes: tuple[str, ...]) -> list[str]:
    return [
        f"class {name} has {count:.0f} training images: expect poor CAMs"
        for name, count in zip(classes, counts.tolist(), strict=True)
        if count < 20
    ]


def _unlearnt(loss: float, chance: float) -> list[str]:
    if loss < UNLEARNT * chance:
        return []
    return [
        f"the classifier learnt next to nothing: its loss is {loss:.2f}, without looking at the "
        f"images it could be {chance:.2f}; change classifier.learning_rate or classifier.epochs"
    ]
