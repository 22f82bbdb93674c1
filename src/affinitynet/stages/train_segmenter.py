"""Stage 6: pseudo masks -> segmenter/, and its predictions/<id>.png on the val split."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affinitynet.data import Manifest, Sample, load_image, write_labels
from affinitynet.data.transforms import (
    NO_JITTER,
    PAPER_JITTER,
    sample_generator,
    segmentation_augment,
)
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
from affinitynet.stages.images import load_labelled, make_each
from affinitynet.training import fit, needs_larger_batch


@dataclass
class MaskedImages:
    """Augmented crops (3, S, S), normalized, and their pseudo masks (S, S)."""

    samples: tuple[Sample, ...]
    files: tuple[Path, ...]
    settings: SegmenterSettings
    normalization: Normalization
    ignore_index: int
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        """Count the images."""
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Load and augment one image, by (seed, epoch, index) alone."""
        image, labels = load_labelled("train_segmenter", self.samples[index], self.files[index])
        return segmentation_augment(
            image,
            labels,
            sample_generator(self.seed, self.epoch, index),
            normalization=self.normalization,
            size=self.settings.crop,
            scale=self.settings.scale_range,
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
) -> dict[str, Tensor]:
    """Cross entropy on labelled pixels, and the weighted boundary loss where asked for."""
    images, labels = batch
    logits = model(images).float()
    entropy = F.cross_entropy(logits, labels.long(), ignore_index=ignore_index, reduction="sum")
    entropy = entropy / (labels != ignore_index).sum().clamp(min=1)
    if not settings.boundary_weight:
        return {"loss": entropy}
    pixels = normalization.invert(images).permute(0, 2, 3, 1)
    refined = dense_crf(pixels, logits.detach().softmax(1), **settings.crf.model_dump())
    boundary = boundary_loss(logits, refined)
    return {
        "loss": entropy + settings.boundary_weight * boundary,
        "entropy": entropy,
        "boundary": boundary,
    }


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
    )
    folder = context.folder(SEGMENTER)
    figures = fit(
        "train_segmenter",
        net,
        dataset,
        partial(
            segmentation_losses,
            settings=settings,
            normalization=net.normalization,
            ignore_index=manifest.ignore_index,
        ),
        settings,
        folder=folder,
        seed=recipe.seed,
        hardware=context.hardware,
    )
    description = describe_segmenter(recipe.backbone, settings, manifest.classes)
    save_model(folder, net, description)
    predict_split(context, Segmenter(net, description))
    return {**figures, "images": len(samples)}


def check_net(recipe: Recipe, manifest: Manifest) -> None:
    """Refuse at the start of a run a network that could not be made or trained after hours.

    Raises:
        UserError: no such architecture or backbone, or it can't learn from one image a step.
    """
    settings = recipe.segmenter
    net = _make_net(recipe, manifest, pretrained=False)
    if min(settings.batch_size, len(manifest.split(recipe.dataset.train))) == 1:
        with torch.no_grad(), needs_larger_batch("train_segmenter"):
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
