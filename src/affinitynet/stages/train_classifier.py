"""Stage 1: images and tags -> classifier/, judged by held-out images."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from affinitynet.data import Sample, load_image
from affinitynet.data.check import FEW_IMAGES
from affinitynet.data.holdout import hold_out, judges, read_groups
from affinitynet.data.transforms import (
    NO_JITTER,
    PAPER_JITTER,
    classifier_augment,
    resize_image,
    sample_generator,
)
from affinitynet.data.verdicts import (
    LEAST,
    judge_tags,
    rarity_weights,
    suspicious_tags,
    table_lines,
)
from affinitynet.errors import UserError
from affinitynet.hardware import inference
from affinitynet.models.classifier import Classifier, build_classifier, describe_classifier
from affinitynet.models.saved import save_model
from affinitynet.ops._arguments import check_values
from affinitynet.ops.normalization import Normalization
from affinitynet.progress import say, task
from affinitynet.run_folder.artifacts import CLASSIFIER
from affinitynet.run_folder.folder import atomic_write
from affinitynet.run_folder.settings import ClassifierSettings
from affinitynet.stages.context import Context
from affinitynet.stages.images import blaming
from affinitynet.training import fit

SUSPICIOUS = "suspicious_tags.csv"
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
        """Load and augment one image, by (seed, epoch, index) alone.

        Index i + k len(self) is image i in its k-th other augmentation.
        """
        sample = self.samples[index % len(self.samples)]
        with blaming("train_classifier", sample):
            pixels = load_image(sample.image, sample.reading)
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
    """Train the classifier, save it and judge it; returns its figures."""
    recipe, classes = context.recipe, context.manifest.classes
    settings = recipe.classifier
    _check(context.samples("train"), context)
    samples, held, notes = split_samples(context)
    torch.manual_seed(recipe.seed)
    model = build_classifier(recipe.backbone, settings, classes, data=recipe.data)
    normalization: Normalization = model.backbone.normalization  # type: ignore[assignment]
    dataset = TaggedImages(samples, len(classes), settings, normalization, recipe.seed)
    folder = context.folder(CLASSIFIER)
    weights = rarity_weights(samples, len(classes)) if settings.balance else None
    figures: dict[str, Any] = fit(
        "train_classifier",
        model,
        dataset,
        classification_losses,
        settings,
        folder=folder,
        seed=recipe.seed,
        hardware=context.hardware,
        trackers=recipe.trackers,
        weights=weights,
    )
    save_model(folder, model, describe_classifier(recipe.backbone, settings, classes))
    if held:
        figures |= judge(context, model, held)
    chance = chance_loss(tag_frequencies(samples, len(classes), weights))
    rare = _rare(tag_frequencies(samples, len(classes)) * len(samples), classes)
    judgements = [*_unlearnt(figures["loss"], chance), *_failed(figures.get("tags", []))]
    return {
        **figures,
        "chance": chance,
        "images": len(samples),
        "judgements": judgements,
        "warnings": [*notes, *rare, *judgements],
    }


def split_samples(context: Context) -> tuple[tuple[Sample, ...], tuple[Sample, ...], list[str]]:
    """Return the images to learn from, those to judge by, and what is to be said of it.

    The latter are those of val where it has tags, which costs no training image; else a share of
    train, if with it any class can be judged at all.
    """
    samples, settings = context.samples("train"), context.recipe.classifier
    if not settings.hold_out:
        return samples, (), []
    if val := judges(samples, context.samples("val")):
        return samples, val, []
    groups = read_groups(context.manifest.root)
    rest, held = hold_out(samples, settings.hold_out, context.recipe.seed, groups)
    counts = tag_frequencies(held, len(context.manifest.classes)) * len(held) if held else None
    if counts is None or not (np.minimum(counts, len(held) - counts) >= LEAST).any():
        note = (
            f"too few of {len(samples)} images can be held out to judge a tag (that takes {LEAST} "
            f"with it and {LEAST} without): all are learned from, and no class is judged"
        )
        return samples, (), [note]
    return rest, held, []


def judge(context: Context, model: Classifier, held: tuple[Sample, ...]) -> dict[str, Any]:
    """Score held-out images; return what is said of each class and of suspicious tags."""
    recipe, classes = context.recipe, context.manifest.classes
    logits = tag_scores(context, model, held)
    tagged = np.zeros(logits.shape, dtype=bool)
    for row, sample in zip(tagged, held, strict=True):
        row[list(sample.tags)] = True
    rows = judge_tags(logits, tagged, classes, recipe.seed)
    say(f"train_classifier: average precision of the tags on {len(held)} held-out images, in %")
    for line in table_lines(rows):
        say(f"  {line}")
    listed = suspicious_tags(1 / (1 + np.exp(-logits)), held, rows, context.manifest.images_root)
    with (
        atomic_write(context.folder(CLASSIFIER) / SUSPICIOUS) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, ("image", "class", "tagged", "score"))
        writer.writeheader()
        writer.writerows(
            {**entry, "tagged": "yes" if entry["tagged"] else "no"} for entry in listed
        )
    return {"tags": rows, "suspicious_tags": listed}


def tag_scores(
    context: Context, model: Classifier, samples: Sequence[Sample]
) -> NDArray[np.float64]:
    """Return the logits (N, C) of whole images, at the middle of the sizes learned from."""
    low, high = context.recipe.classifier.long_side
    normalization: Normalization = model.backbone.normalization  # type: ignore[assignment]
    scores: list[NDArray[np.float64]] = []
    with (
        inference(model, context.hardware) as device,
        task("judge tags", len(samples)) as progress,
    ):
        for sample in samples:
            with blaming("train_classifier", sample):
                pixels = load_image(sample.image, sample.reading)
                factor = (low + high) / 2 / max(pixels.shape[:2])
                size = [max(1, round(side * factor)) for side in pixels.shape[:2]]
                image = normalization.apply(resize_image(pixels, *size)[None].to(device))
                logits = model(image.contiguous(memory_format=torch.channels_last))
                check_values(logits, "the classifier's logits")
            scores.append(logits[0].double().cpu().numpy())
            progress.advance()
    return np.stack(scores)


def _check(samples: tuple[Sample, ...], context: Context) -> None:
    if not samples:
        raise UserError(f"{context.manifest.root}: split {context.recipe.dataset.train!r} is empty")
    if not any(sample.tags for sample in samples):
        raise UserError(f"{context.manifest.root}: no training image has a tag, nothing to learn")


def tag_frequencies(
    samples: Sequence[Sample], classes: int, weights: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """Return the share of the images that show each class, (C,); `weights` as images are drawn."""
    chances = np.array([1.0] * len(samples) if weights is None else weights)
    counts: NDArray[np.float64] = np.zeros(classes)
    for sample, chance in zip(samples, chances, strict=True):
        counts[list(sample.tags)] += chance
    return counts / float(chances.sum())


def chance_loss(frequencies: NDArray[np.float64]) -> float:
    """Return the loss of a classifier that looks at no image: the mean entropy of the tags, nats.

    -p log p - (1 - p) log (1 - p) for each class's frequency p is the least that the soft-margin
    loss can be when every image gets the same scores.
    """
    # A tag of all images or of none: 0 log 0 counts as 0, but would be NaN.
    p = np.clip(frequencies, 1e-12, 1 - 1e-12)
    return float(np.mean(-p * np.log(p) - (1 - p) * np.log(1 - p)))


def _rare(counts: NDArray[np.float64], classes: tuple[str, ...]) -> list[str]:
    return [
        f"class {name} has {count:.0f} training images: expect poor CAMs"
        for name, count in zip(classes, counts.tolist(), strict=True)
        if count < FEW_IMAGES
    ]


def _unlearnt(loss: float, chance: float) -> list[str]:
    if loss < UNLEARNT * chance:
        return []
    return [
        f"the classifier learnt next to nothing: its loss is {loss:.2f}, without looking at the "
        f"images it could be {chance:.2f}; set classifier.norm = trained, or change "
        "classifier.learning_rate or the length of the training"
    ]


def _failed(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"class {row['class']} was not learned: on held-out images its average precision is "
        f"{100 * row['ap']:.0f} %, chance reaches {100 * row['chance']:.0f} %"
        for row in rows
        if row["verdict"] == "not learned"
    ]
