"""Stage 6: pseudo masks -> segmenter/, and its predictions/<id>.png on the val split.

In a further round the final masks of the one before take the place of the pseudo masks.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from affinitynet.channels import three_channels
from affinitynet.data import Manifest, Sample, load_image
from affinitynet.data.corrections import correct_labels, corrected_samples
from affinitynet.data.label_statistics import (
    LabelCounts,
    count_labels,
    judge_segmenter,
    label_entropy,
)
from affinitynet.data.transforms import (
    NO_JITTER,
    PAPER_JITTER,
    LabelMap,
    sample_generator,
    segmentation_augment,
)
from affinitynet.data.verdicts import rarity_weights
from affinitynet.errors import UserError
from affinitynet.hardware import inference
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
from affinitynet.ops.segmentation_loss import (
    clamp_to_patches,
    lovasz_softmax_loss,
    root_weights,
    soft_dice_loss,
)
from affinitynet.progress import say
from affinitynet.run_folder.artifacts import PSEUDO, Artifact
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.rounds import leaves_out, round_before
from affinitynet.run_folder.settings import SegmenterSettings
from affinitynet.run_folder.stages import Stage
from affinitynet.stages.context import Context
from affinitynet.stages.images import Shown, blaming, for_each, load_labeled, make_each, read_mask
from affinitynet.stages.starting import classifier_to_start_from
from affinitynet.training import fit, needs_larger_batch

ODD = (97, 131)  # pixels: sides of an image that no stride divides
CROPS = 100  # that the labels' entropy is taken from: enough for two digits, in seconds


@dataclass
class MaskedImages:
    """Augmented crops (3, S, S), normalized, and their pseudo masks (S, S), corrected.

    root: the run folder, whose corrections win; classes: how many the data set has. stage, maker:
    of the masks' reader and maker, for messages.
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
    stage: str = "train_segmenter"
    maker: str = "propagate"

    def __len__(self) -> int:
        """Count the images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Load and augment one image, by (seed, epoch, index) alone.

        Index i + k len(self) is image i in its k-th other augmentation.
        """
        place = index % len(self.samples)
        sample = self.samples[place]
        image, labels = load_labeled(self.stage, sample, self.files[place], self.maker)
        with blaming(self.stage, sample):
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
    entropy = _cross_entropy(logits, labels, ignore_index, weights, settings.clamp)
    beside: dict[str, Tensor] = {}
    if settings.loss != "cross_entropy":
        loss = {"dice": soft_dice_loss, "lovasz": lovasz_softmax_loss}[settings.loss]
        beside[settings.loss] = loss(logits, labels, ignore_index)
    total = entropy + sum(beside.values())
    if settings.boundary_weight:
        pixels = three_channels(normalization.invert(images).permute(0, 2, 3, 1))
        # The CRF's answer is a target: no gradient goes through it.
        refined = dense_crf(pixels, logits.detach().softmax(1), **settings.crf.model_dump())
        beside["boundary"] = boundary_loss(logits, refined)
        total = total + settings.boundary_weight * beside["boundary"]
    return {"loss": total, "entropy": entropy, **beside} if beside else {"loss": entropy}


def _cross_entropy(
    logits: Tensor, labels: Tensor, ignore_index: int, weights: Tensor | None, clamp: float = 0.0
) -> Tensor:
    labelled = labels != ignore_index
    if weights is not None:
        weights = weights.to(logits.device)
    # Summed, and divided below: torch's mean is NaN where no pixel is labelled.
    if clamp:
        # Before the weights: what stands out is to be a pixel among its neighbors, not its class.
        each = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="none")
        each = clamp_to_patches(each, labelled, clamp)
        entropy = (each if weights is None else each * weights[labels.where(labelled, 0)]).sum()
    else:
        entropy = F.cross_entropy(
            logits, labels, weights, ignore_index=ignore_index, reduction="sum"
        )
    if weights is None:
        return entropy / labelled.sum().clamp(min=1)
    # Of no pixel the sum is 0, as the entropy is.
    total = weights[labels.where(labelled, 0)].where(labelled, 0.0).sum()
    return entropy / total.clamp(min=weights.min())


def work(context: Context, stage: Stage) -> dict[str, Any]:
    """Train the segmenter, save it and let it predict the val split."""
    taught_by, (own, predictions) = labels_of(context, stage), stage.artifacts
    recipe, manifest = context.recipe, context.manifest
    settings, ignored = recipe.segmenter, manifest.ignore_index
    samples = context.samples("train")
    net = _start_net(context)
    dataset = MaskedImages(
        samples,
        tuple(context.file(taught_by, sample) for sample in samples),
        settings,
        net.normalization,
        manifest.ignore_index,
        recipe.seed,
        context.root,
        len(manifest.classes),
        stage=stage.name,
        maker=context.maker(taught_by),
    )
    corrected = len(corrected_samples(context.root, samples))
    if corrected:
        say(f"{stage.name}: {corrected} of {len(samples)} masks are corrected by hand")
    folder = context.folder(own)
    taught = count_masks(context, stage)
    _check_taught(context, stage, taught)
    weights = root_weights(taught.sum(0).tolist()) if settings.class_weights == "root" else None
    balance = rarity_weights(samples, len(manifest.classes)) if settings.balance else None
    figures: dict[str, Any] = fit(
        stage.name,
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
        trackers=recipe.trackers,
        weights=balance,
        ema=settings.ema,
    )
    if weights is not None:
        names = ("background", *manifest.classes)
        figures["class_weights"] = dict(zip(names, weights.tolist(), strict=True))
    description = describe_segmenter(recipe.backbone, settings, manifest.classes, recipe.tile)
    save_model(folder, net, description)
    predicted = predict_split(context, Segmenter(net, description), predictions)
    pixels = count_pixels(
        dataset,
        ignored,
        None if weights is None else weights.tolist(),
        balance,
    )
    entropy = label_entropy(pixels)
    counted = count_labels((set(np.flatnonzero(row).tolist()) for row in taught), ignored)
    judgements = judge_segmenter(
        figures.get("entropy", figures["loss"]), entropy, counted, predicted, manifest.classes
    )
    return {
        **figures,
        "images": len(samples),
        "corrected": corrected,
        "judgements": judgements,
        "warnings": judgements,
    }


def _check_taught(context: Context, stage: Stage, taught: NDArray[np.int64]) -> None:
    """Refuse to train on masks without a single labelled pixel: the loss would be 0 for ever.

    Raises:
        UserError: where the masks lie, and what made them so.
    """
    if taught.any():
        return
    masks = labels_of(context, stage)
    uncertain = masks is not PSEUDO and leaves_out(context.recipe)
    advice = (
        "lower relabel.confidence, or set relabel.agreement to false"
        if uncertain
        else f"make them again with --redo {context.maker(masks)}"
    )
    raise UserError(
        f"{stage.name}: all masks in {masks.folder}/ are neutral everywhere, so there is nothing "
        f"to learn; {advice}"
    )


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


def labels_of(context: Context, stage: Stage) -> Artifact:
    """Return the masks that teach this round: pseudo masks, or final ones of the round before."""
    assert stage.round is not None
    before = round_before(context.recipe, stage.round)
    if before is None:
        return PSEUDO
    return before.certain if before.certain and leaves_out(context.recipe) else before.masks


def count_masks(context: Context, stage: Stage) -> NDArray[np.int64]:
    """Count the pixels of each label but the neutral one in the masks of train: (N, C + 1).

    Raises:
        UserError: a mask can't be read.
    """
    samples, taught_by = context.samples("train"), labels_of(context, stage)
    counts = np.zeros((len(samples), len(context.manifest.classes) + 1), dtype=np.int64)
    rows = {sample.id: row for sample, row in zip(samples, counts, strict=True)}

    def count(sample: Sample, labels: LabelMap) -> None:
        found = np.bincount(labels.ravel(), minlength=counts.shape[1])
        # Behind the classes there is the neutral label alone.
        rows[sample.id][:] = found[: counts.shape[1]]

    for_each(
        f"{stage.name}, labels",
        samples,
        load=lambda sample: read_mask(context, taught_by, sample),
        compute=count,
        finish=lambda sample, _: None,
        workers=context.recipe.workers,
    )
    return counts


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
            net.train()(torch.zeros(1, _channels(net), settings.crop, settings.crop))
    check_sizes(net, settings, (settings.backbone or recipe.backbone).name)


def _channels(net: SegmentationNet) -> int:
    return len(net.normalization.mean)


def check_sizes(net: SegmentationNet, settings: SegmenterSettings, backbone: str) -> None:
    """Let the network predict one image whose sides nothing divides.

    Raises:
        UserError: it can't, though it learns from square crops.
    """
    rows, columns = ODD
    try:
        with torch.inference_mode():
            logits = net.eval()(torch.zeros(1, _channels(net), rows, columns))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise UserError(
            f"segmenter.architecture = {settings.architecture!r} on {backbone} can't predict an "
            f"image of {rows} x {columns} ({' '.join(str(error).split())[:150]}); choose another "
            "architecture"
        ) from error
    if logits.shape[-2:] != ODD:
        raise UserError(
            f"segmenter.architecture = {settings.architecture!r} on {backbone} predicts "
            f"{logits.shape[-2]} x {logits.shape[-1]} for an image of {rows} x {columns}; choose "
            "another architecture"
        )


def _start_net(context: Context) -> SegmentationNet:
    """Make the network with the weights that its training starts from."""
    recipe = context.recipe
    classifier = classifier_to_start_from(context, recipe.segmenter.start)
    net = _make_net(recipe, context.manifest, pretrained=classifier is None)
    if classifier is not None:
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


def predict_split(context: Context, segmenter: Segmenter, predictions: Artifact) -> LabelCounts:
    """Write the segmenter's masks of the val split, from the image alone; count what they show."""
    shown, samples = Shown(context, predictions), context.samples("val")
    with inference(segmenter.net, context.hardware) as device:
        make_each(
            context,
            "predict val",
            predictions,
            samples,
            load=lambda sample: torch.from_numpy(load_image(sample.image, sample.reading)),
            compute=lambda sample, image: (image, segmenter.scores(image.to(device))),
            finish=lambda sample, result: shown.write(sample, segmenter.decide(*result)),
        )
    return count_labels(map(shown, samples), context.manifest.ignore_index)
