"""Stage 6: pseudo masks -> segmenter/, and its predictions/<id>.png on the val split."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affinitynet.data import Manifest, Sample, load_image, write_labels
from affinitynet.data.corrections import correct_labels, corrected_samples
from affinitynet.data.label_statistics import count_labels, judge_segmenter, label_entropy
from affinitynet.data.transforms import (
    NO_JITTER,
    PAPER_JITTER,
    LabelMap,
    sample_generator,
    segmentation_augment,
)
from affinitynet.data.verdicts import rarity_weights
from affinitynet.hardware import inference
from affinitynet.models.classifier import Classifier
from affinitynet.models.saved import save_model
from affinitynet.models.segmenter import (
    SegmentationNet,
    Segmenter,
    build_segmentation_net,
    describe_segmenter,
    load_encoder,
)
from affinitynet.ops.crf import boundary_loss, dense_crf
from affinitynet.ops.normalization import Normalization
from affinitynet.ops.segmentation_loss import lovasz_softmax_loss, root_weights, soft_dice_loss
from affinitynet.progress import say
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.settings import SegmenterSettings
from affinitynet.run_folder.stages import (
    CLASSIFIER,
    PREDICTIONS,
    PSEUDO,
    SEGMENTER,
    trains_classifier,
)
from affinitynet.stages.context import Context
from affinitynet.stages.images import blaming, for_each, load_labelled, make_each, read_mask
from affinitynet.training import fit, needs_larger_batch

CROPS = 100  # that the labels' entropy is taken from: enough for two digits, in seconds


@dataclass
class MaskedImages:
    """Augmented crops (3, S, S), normalized, and their pseudo masks (S, S), corrected.

    root: the run folder, whose corrections win; classes: how many the data set has.
    """

    samples: tuple[Sample, ...]
    files: tuple[Path, ...]
    settings: SegmenterSettings
    normalization: Normalization
    ignore_index: int
    seed: int
    root: Path
    classes: int
    epoch: int = 0

    def __len__(self) -> int:
        """Count the images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Load and augment one image, by (seed, epoch, index) alone.

        Index i + k len(self) is image i in its k-th other augmentation.
        """
        place = index % len(self.samples)
        sample = self.samples[place]
        image, labels = load_labelled("train_segmenter", sample, self.files[place])
        with blaming("train_segmenter", sample):
            labels = correct_labels(labels, self.root, sample.id, self.classes)
        return segmentation_augment(
            image,
            labels,
            sample_generator(self.seed, self.epoch, index),
            normalization=self.normalization,
            size=self.settings.crop,
            scale=self.settings.scale_range,
            crops=self.settings.crops,
            jitter=PAPER_JITTER if self.settings.jitter else NO_JITTER,
            ignore_index=self.ignore_index,
        )


def segmentation_losses(
    model: nn.Module,
    batch: Any,
    *,
    settings: SegmenterSettings,
    normalization: Normalization,
    ignore_index: int,
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Cross entropy on labelled pixels, and beside it the losses that the settings ask for.

    `weights` (C + 1,) makes it a mean in which a pixel counts as its class. What is beside it is
    summed: Dice or Lovasz-Softmax, and the weighted boundary loss.
    """
    images, labels = batch
    logits, labels = model(images).float(), labels.long()
    entropy = _cross_entropy(logits, labels, ignore_index, weights)
    beside: dict[str, Tensor] = {}
    if settings.loss != "cross_entropy":
        loss = {"dice": soft_dice_loss, "lovasz": lovasz_softmax_loss}[settings.loss]
        beside[settings.loss] = loss(logits, labels, ignore_index)
    total = entropy + sum(beside.values())
    if settings.boundary_weight:
        pixels = normalization.invert(images).permute(0, 2, 3, 1)
        # The CRF's answer is a target: no gradient goes through it.
        refined = dense_crf(pixels, logits.detach().softmax(1), **settings.crf.model_dump())
        beside["boundary"] = boundary_loss(logits, refined)
        total = total + settings.boundary_weight * beside["boundary"]
    return {"loss": total, "entropy": entropy, **beside} if beside else {"loss": entropy}


def _cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int, weights: Tensor | None
) -> Tensor:
    labelled = labels != ignore_index
    if weights is not None:
        weights = weights.to(logits.device)
    # Summed, and divided below: torch's mean is NaN where no pixel is labelled.
    entropy = F.cross_entropy(logits, labels, weights, ignore_index=ignore_index, reduction="sum")
    if weights is None:
        return entropy / labelled.sum().clamp(min=1)
    # Of no pixel the sum is 0, as the entropy is.
    total = weights[labels.where(labelled, 0)].where(labelled, 0.0).sum()
    return entropy / total.clamp(min=weights.min())


def work(context: Context) -> dict[str, Any]:
    """Train the segmenter, save it and let it predict the val split."""
    recipe, manifest = context.recipe, context.manifest
    settings = recipe.segmenter
    samples = context.samples("train")
    net = _start_net(context)
    dataset = MaskedImages(
        samples,
        tuple(context.file(PSEUDO, sample) for sample in samples),
        settings,
        net.normalization,
        manifest.ignore_index,
        recipe.seed,
        context.root,
        len(manifest.classes),
    )
    corrected = len(corrected_samples(context.root, samples))
    if corrected:
        say(f"train_segmenter: {corrected} of {len(samples)} masks are corrected by hand")
    folder = context.folder(SEGMENTER)
    weights = class_weights(context) if settings.class_weights == "root" else None
    balance = rarity_weights(samples, len(manifest.classes)) if settings.balance else None
    figures: dict[str, Any] = fit(
        "train_segmenter",
        net,
        dataset,
        partial(
            segmentation_losses,
            settings=settings,
            normalization=net.normalization,
            ignore_index=manifest.ignore_index,
            weights=weights,
        ),
        settings,
        folder=folder,
        seed=recipe.seed,
        hardware=context.hardware,
        weights=balance,
    )
    if weights is not None:
        names = ("background", *manifest.classes)
        figures["class_weights"] = dict(zip(names, weights.tolist(), strict=True))
    description = describe_segmenter(recipe.backbone, settings, manifest.classes)
    save_model(folder, net, description)
    predict_split(context, Segmenter(net, description))
    pixels = count_pixels(
        dataset,
        manifest.ignore_index,
        None if weights is None else weights.tolist(),
        balance,
    )
    entropy = label_entropy(pixels)
    judgements = _judge(context, figures.get("entropy", figures["loss"]), entropy)
    return {
        **figures,
        "images": len(samples),
        "corrected": corrected,
        "judgements": judgements,
        "warnings": judgements,
    }


def count_pixels(
    dataset: MaskedImages,
    ignore_index: int,
    weights: Sequence[float] | None = None,
    draws: Sequence[float] | None = None,
) -> dict[int, float]:
    """Count the labels of up to `CROPS` training crops, which are not those of whole images.

    weights: (C + 1,), what a pixel of each label counts; draws: (N,), how often each image is
    drawn; None: alike. So the labels' entropy is of the kind that the training's loss is.
    """
    found: dict[int, float] = defaultdict(float)
    # Evenly over the set; rounded up, so that there are at most CROPS.
    for index in range(0, len(dataset), -(-len(dataset) // CROPS)):
        labels, counts = np.unique(dataset[index][1].numpy(), return_counts=True)
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            found[label] += count * (draws[index] if draws else 1)
    found.pop(ignore_index, None)
    return {label: count * (weights[label] if weights else 1) for label, count in found.items()}


def _judge(context: Context, loss: float, entropy: float) -> list[str]:
    """Hold the segmenter's cross entropy in the last epoch, and its predictions, against labels."""
    taught, predicted = (
        count_labels(
            (read_mask(context, artifact, sample) for sample in context.samples(role)),
            context.manifest.ignore_index,
        )
        for artifact, role in ((PSEUDO, "train"), (PREDICTIONS, "val"))
    )
    return judge_segmenter(loss, entropy, taught, predicted, context.manifest.classes)


def class_weights(context: Context) -> Tensor:
    """Count the pixels of each class in the pseudo masks of train; return `root_weights` (C + 1,).

    Raises:
        UserError: a mask can't be read.
    """
    counts = np.zeros(len(context.manifest.classes) + 1, dtype=np.int64)

    def count(_: Sample, labels: LabelMap) -> None:
        found = np.bincount(labels.ravel(), minlength=len(counts))
        counts[:] += found[: len(counts)]  # behind the classes there is the neutral label alone

    for_each(
        "train_segmenter, weights of classes",
        context.samples("train"),
        load=lambda sample: read_mask(context, PSEUDO, sample),
        compute=count,
        finish=lambda sample, _: None,
        workers=context.recipe.workers,
    )
    return root_weights(counts.tolist())


def check_net(recipe: Recipe, manifest: Manifest) -> None:
    """Refuse at the start of a run a network that could not be made or trained after hours.

    Raises:
        UserError: no such architecture or backbone, or it can't learn from one image a step.
    """
    settings = recipe.segmenter
    net = _make_net(recipe, manifest, pretrained=False)
    if min(settings.batch_size, len(manifest.split(recipe.dataset.train))) == 1:
        with torch.no_grad(), needs_larger_batch("train_segmenter"):
            # Only in training mode does batch normalization refuse a single value.
            net.train()(torch.zeros(1, 3, settings.crop, settings.crop))


def _start_net(context: Context) -> SegmentationNet:
    """Make the network with the weights that its training starts from."""
    recipe = context.recipe
    torch.manual_seed(recipe.seed)
    from_classifier = recipe.segmenter.start == "classifier" and trains_classifier(recipe)
    net = _make_net(recipe, context.manifest, pretrained=not from_classifier)
    if from_classifier:
        classifier = Classifier.load(context.folder(CLASSIFIER))
        load_encoder(net, classifier.state_dict(), "the classifier")
    return net


def _make_net(recipe: Recipe, manifest: Manifest, *, pretrained: bool) -> SegmentationNet:
    settings = recipe.segmenter
    return build_segmentation_net(
        settings,
        settings.backbone or recipe.backbone,
        len(manifest.classes) + 1,
        data=recipe.data,
        pretrained=pretrained,
    )


def predict_split(context: Context, segmenter: Segmenter) -> None:
    """Write the segmenter's masks of the val split: from the image alone, no tags."""
    with inference(segmenter.net, context.hardware) as device:
        make_each(
            context,
            "predict val",
            PREDICTIONS,
            context.samples("val"),
            load=lambda sample: torch.from_numpy(load_image(sample.image)),
            compute=lambda sample, image: (image, segmenter.scores(image.to(device))),
            finish=lambda sample, result: write_labels(
                context.file(PREDICTIONS, sample),
                segmenter.decide(*result),
                context.manifest.palette,
            ),
        )
