"""Stage 2 without training: images that lack a tag -> cams/<id>.npz, by what sets others apart."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from affinitynet.data import Sample, load_image
from affinitynet.data.cams import save_cams
from affinitynet.data.transforms import resize_long_side
from affinitynet.errors import UserError
from affinitynet.hardware import inference
from affinitynet.models.backbone import build_backbone
from affinitynet.models.classifier import Classifier
from affinitynet.models.contrast import (
    FEWEST,
    BankBuilder,
    Banks,
    PatchNetwork,
    images_without,
)
from affinitynet.ops._arguments import check_values
from affinitynet.ops.contrast import as_cams
from affinitynet.ops.tiles import in_tiles
from affinitynet.progress import say
from affinitynet.run_folder.artifacts import BANKS, CLASSIFIER
from affinitynet.run_folder.settings import ContrastSettings
from affinitynet.stages.context import Context
from affinitynet.stages.images import for_each, make_each

NAME = "compute_contrast"
Describe = Callable[[Tensor], Tensor]  # an image (3, H, W) uint8 -> its patches (D, h, w)
_UNDILATED = 32  # output stride of a backbone whose maps have the strides they were trained with


def work(context: Context) -> dict[str, Any]:
    """Write the contrast maps of every image of the splits asked for that has tags."""
    settings = context.recipe.contrast
    artifact = context.stage(NAME).artifacts[0]
    network = _network(context)
    samples = context.samples(*context.recipe.cams.splits, "figures")
    hardware = context.hardware_at(settings.precision)
    with inference(network, hardware) as device:

        def patches(image: Tensor) -> Tensor:
            pixels = network.normalization.apply(resize_long_side(image, settings.long_side)[None])
            found = in_tiles(
                lambda part: network(part.to(device, memory_format=torch.channels_last)),
                pixels,
                tile=context.recipe.tile,
            )
            # A bank of NaN would be kept, and every distance to it is NaN.
            check_values(found, "the network's features")
            return found[0].float()

        banks = _banks(context, network, patches).to(device)

        def compute(sample: Sample, image: Tensor) -> Tensor:
            if not sample.tags:
                return torch.zeros(0, *image.shape[-2:])
            scores = banks.scores(sample.tags, patches(image), settings.neighbors)
            return as_cams(scores, (image.shape[-2], image.shape[-1])).cpu()

        counts = make_each(
            context,
            NAME,
            artifact,
            samples,
            load=_load,
            compute=compute,
            finish=lambda sample, cams: save_cams(
                context.file(artifact, sample), sample.tags, cams.numpy()
            ),
        )
    return {
        **counts,
        **_figures(context, banks),
        "precision": hardware.chosen_precision,
    }


def _network(context: Context) -> PatchNetwork:
    recipe = context.recipe
    torch.manual_seed(recipe.seed)  # of weights = none, which have to be the same on resuming
    if recipe.contrast.features == "classifier":
        backbone: Any = Classifier.load(context.folder(CLASSIFIER)).backbone
    else:
        backbone = build_backbone(recipe.backbone, _UNDILATED, data=recipe.data)
    return PatchNetwork(backbone, recipe.contrast.strides)


def _load(sample: Sample) -> Tensor:
    return torch.from_numpy(load_image(sample.image, sample.reading)).permute(2, 0, 1)


def _banks(context: Context, network: PatchNetwork, patches: Describe) -> Banks:
    """Read the banks of an interrupted stage, or build them out of the training images."""
    file = context.folder(context.stage(NAME).artifacts[0]) / BANKS
    context.borrow(file)
    context.let_lead(file)
    banks = Banks.read(file)
    if banks is None:
        samples, classes = context.samples("train"), len(context.manifest.classes)
        banks = build_banks(
            samples,
            classes,
            network.channels,
            patches,
            settings=context.recipe.contrast,
            seed=context.recipe.seed,
            workers=context.recipe.workers,
            # With `auto` there are the classifier's maps.
            required=context.recipe.cams.source == "contrast",
        )
        banks.write(file)
    return banks


def build_banks(
    samples: Sequence[Sample],
    classes: int,
    channels: Sequence[int],
    patches: Describe,
    *,
    settings: ContrastSettings,
    seed: int,
    workers: int,
    required: bool = True,
) -> Banks:
    """Go twice through images without tags: to fill the banks, and to set their scales.

    Without `required` it may be that there is no class to contrast, and no bank.

    Raises:
        UserError: every class is in all but a few images.
    """
    without = images_without(samples, classes, seed)
    if not without and required:
        raise UserError(
            f"cams.source = contrast: each class is in all training images but {FEWEST - 1} or "
            "fewer, so there is nothing to contrast it with; add images without it, or use "
            "cams.source = classifier"
        )
    if not without:
        return Banks(torch.zeros(sum(channels)), torch.ones(sum(channels)), {}, {})
    builder = BankBuilder(without, channels, settings)
    numbers = {sample.id: number for number, sample in enumerate(samples)}
    by_id = {sample.id: sample for sample in samples}

    def go_through(what: str, ids: Sequence[str], take: Callable[[str, Tensor], None]) -> None:
        for_each(
            f"{NAME}, {what}",
            [by_id[name] for name in ids],
            load=_load,
            compute=lambda sample, image: take(sample.id, patches(image)),
            finish=lambda sample, _: None,
            workers=workers,
        )

    go_through(
        "banks",
        builder.bank_images,
        lambda name, found: builder.collect(name, found, seed + numbers[name]),
    )
    builder.fill(seed)
    go_through("scales", builder.scale_images, builder.measure)
    return builder.banks


def _figures(context: Context, banks: Banks) -> dict[str, Any]:
    classes = context.manifest.classes
    lacking = [name for label, name in enumerate(classes) if label not in banks.patches]
    if lacking:
        say(f"{NAME}: nothing to contrast {', '.join(lacking)} with")
    return {
        "bank": {classes[label]: len(bank) for label, bank in banks.patches.items()},
        "zero and one": {classes[label]: list(ends) for label, ends in banks.range.items()},
        "warnings": [
            f"class {name} is in all training images but {FEWEST - 1} or fewer: there is nothing "
            "to contrast it with, its maps are empty"
            for name in lacking
        ],
    }
