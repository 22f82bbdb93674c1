"""Stage 2: classifier -> cams/<id>.npz, the maps of the tagged classes at image size.

With `cams.source = text` a CLIP tower and embedded texts make them in place of the classifier; with
`auto` they are one of two kinds to choose from: cams_classifier/<id>.npz.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T

from affinitynet.data import Sample, load_image
from affinitynet.data.cams import save_cams
from affinitynet.errors import UserError
from affinitynet.hardware import compiled, inference
from affinitynet.models.attention import attended_cams, check_class_token
from affinitynet.models.classifier import Classifier
from affinitynet.models.contrast import FEWEST, FOR_SCALE, images_by_classes, images_without
from affinitynet.models.text import Texts, TextTower, check_tower, read_texts
from affinitynet.models.transformer import multiple_of
from affinitynet.ops.cam import scale_to_one
from affinitynet.ops.contrast import as_cams, calibrate, calibration
from affinitynet.ops.normalization import Normalization
from affinitynet.ops.tiles import in_tiles
from affinitynet.progress import say
from affinitynet.run_folder.artifacts import CLASSIFIER, RANGES
from affinitynet.run_folder.folder import read_json, write_json
from affinitynet.run_folder.recipe import Recipe, find_file
from affinitynet.stages.context import Context
from affinitynet.stages.images import for_each, make_each

NAME = "compute_cams"
Ranges = Mapping[int, tuple[float, float]]  # class -> what becomes zero and one in its maps
Maps = Callable[[Tensor, list[int]], Tensor]  # (B, 3, H, W), K tags -> (B, K, h, w)


def work(context: Context) -> dict[str, Any]:
    """Write the CAMs of every image of the splits asked for that has tags or no need of any."""
    settings = context.recipe.cams
    artifact = context.stage(NAME).artifacts[0]
    hardware = context.hardware_at(settings.precision)
    if settings.compile:
        hardware = replace(hardware, fold=False)  # a compiled network folds by itself
    model, maps = _source(context)
    with inference(model, hardware) as device:

        def summed(image: Tensor, tags: Sequence[int]) -> Tensor:
            return multi_scale_cams(
                lambda images: maps(images, list(tags)),
                cast(Normalization, model.backbone.normalization),
                image,
                range(len(tags)),
                scales=settings.scales,
                flip=settings.flip,
                multiple=multiple_of(model.backbone),
                tile=context.recipe.tile,
            )

        ranges: Ranges = {}
        if settings.threshold == "quantile":
            ranges = _ranges(context, lambda image, tags: summed(image.to(device), tags))

        def compute(sample: Sample, image: Tensor) -> Tensor:
            if not sample.tags:
                # No map, but the size stays: later stages compare it with the image's.
                return torch.zeros(0, *image.shape[-2:])
            maps = _finite(summed(image.to(device), sample.tags))
            return scale_maps(maps, sample.tags, ranges).cpu()

        counts = make_each(
            context,
            NAME,
            artifact,
            context.samples(*settings.splits, "figures"),
            load=_load,
            compute=compute,
            finish=lambda sample, cams: save_cams(
                context.file(artifact, sample), sample.tags, cams.numpy()
            ),
        )
    return {**counts, **_figures(context, ranges), "precision": hardware.chosen_precision}


def check_source(recipe: Recipe, classes: Sequence[str]) -> None:
    """Refuse, before a run begins, a backbone or texts that the maps can't be made with.

    Raises:
        UserError: as `check_class_token`, `read_texts` and `check_tower`.
    """
    if recipe.cams.source == "attention":
        check_class_token(recipe.backbone.name)
    elif recipe.cams.source == "text":
        _texts(recipe, classes)


def _source(context: Context) -> tuple[Classifier | TextTower, Maps]:
    """Return the network that makes the maps, and how: normalized images and tags -> maps."""
    recipe = context.recipe
    if recipe.cams.source == "text":
        torch.manual_seed(recipe.seed)  # of weights = none, which have to be the same on resuming
        texts = _texts(recipe, context.manifest.classes)
        tower = TextTower(recipe.backbone, texts, data=recipe.data)
        return tower, tower.cams
    model = Classifier.load(context.folder(CLASSIFIER))
    attends = recipe.cams.source == "attention"
    network: Callable[[Tensor], Tensor] = partial(attended_cams, model) if attends else model.cams
    if recipe.cams.compile:
        say("compute_cams: compiles the network with the first image, in about half a minute")
        network = compiled(network)
    return model, lambda images, tags: network(images)[:, tags]


def _texts(recipe: Recipe, classes: Sequence[str]) -> Texts:
    assert recipe.cams.text is not None  # the recipe is checked
    file = find_file(recipe.cams.text, "cams.text", recipe.data)
    texts = read_texts(file, classes)
    check_tower(recipe.backbone, texts, file)
    return texts


def multi_scale_cams(
    network: Callable[[Tensor], Tensor],
    normalization: Normalization,
    image: Tensor,
    tags: Sequence[int],
    scales: Sequence[float],
    flip: bool,
    multiple: int = 1,
    tile: int = 0,
) -> Tensor:
    """Sum the rectified CAMs over scales and flips.

    network is `Classifier.cams`; image (C, H, W) uint8; returns (K, H, W) float32, not negative,
    for the K classes of `tags`. An image and its mirror image go through the network as one batch,
    larger ones than `tile` pixels in tiles. Scaled sides are rounded to a `multiple`, a
    transformer's patch.
    """

    def maps_of(images: Tensor) -> Tensor:
        pixels = normalization.apply(images).contiguous(memory_format=torch.channels_last)
        return network(pixels)[:, list(tags)]

    height, width = image.shape[-2:]
    total = torch.zeros(len(tags), height, width, device=image.device)
    for scale in scales:
        size = [max(1, round(s * scale / multiple)) * multiple for s in (height, width)]
        scaled = T.resize(image, size, InterpolationMode.BICUBIC, antialias=True)
        batch = torch.stack([scaled, scaled.flip(-1)]) if flip else scaled[None]
        # float32 before the sum over scales: the network may run in half precision.
        maps = in_tiles(maps_of, batch, tile=tile).float()
        for number, row in enumerate(maps):  # one by one, as each is of the image's size
            found = F.interpolate(row[None], (height, width), mode="bilinear", align_corners=False)
            total += found[0].flip(-1) if number else found[0]
    return total


def scale_maps(maps: Tensor, tags: Sequence[int], ranges: Ranges) -> Tensor:
    """Bring summed maps (K, H, W) of the classes `tags` to [0, 1].

    A class that has a range is measured by it (`calibrate`), any other by its map's own maximum.
    """
    size = (maps.shape[-2], maps.shape[-1])
    rows = [
        as_cams(calibrate(row[None], *ranges[tag]), size)
        if tag in ranges
        else scale_to_one(row)[None]
        for row, tag in zip(maps, tags, strict=True)
    ]
    return torch.cat(rows)


def _ranges(context: Context, summed: Callable[[Tensor, Sequence[int]], Tensor]) -> Ranges:
    """Return what the maps of images without a tag reach, of each class: its zero and one.

    They are kept in a file, so that a stage that was interrupted goes on with the same numbers.
    """
    file = context.folder(context.stage(NAME).artifacts[0]) / RANGES
    context.borrow(file)
    context.let_lead(file)
    if file.is_file():
        return {int(label): (zero, one) for label, (zero, one) in read_json(file, NAME).items()}
    samples, recipe = context.samples("train"), context.recipe
    without = images_without(samples, len(context.manifest.classes), recipe.seed)
    asked = images_by_classes({label: ids[:FOR_SCALE] for label, ids in without.items()})
    found: dict[int, list[Tensor]] = {label: [] for label in without}

    def measure(sample: Sample, image: Tensor) -> None:
        labels = asked[sample.id]
        for label, row in zip(labels, _finite(summed(image, labels)), strict=True):
            found[label].append(row.flatten())

    for_each(
        f"{NAME}, scales",
        [sample for sample in samples if sample.id in asked],
        load=_load,
        compute=measure,
        finish=lambda sample, _: None,
        workers=recipe.workers,
    )
    ranges = {
        label: calibration(rows, recipe.contrast.quantile) for label, rows in found.items() if rows
    }
    write_json(file, {str(label): list(ends) for label, ends in ranges.items()})
    return ranges


def _figures(context: Context, ranges: Ranges) -> dict[str, Any]:
    if context.recipe.cams.threshold == "maximum":
        return {}
    classes = context.manifest.classes
    lacking = [name for label, name in enumerate(classes) if label not in ranges]
    return {
        "zero and one": {classes[label]: list(ends) for label, ends in ranges.items()},
        "warnings": [
            f"class {name} is in all training images but {FEWEST - 1} or fewer: its maps are "
            "measured by their own maximum"
            for name in lacking
        ],
    }


def _load(sample: Sample) -> Tensor:
    return torch.from_numpy(load_image(sample.image, sample.reading)).permute(2, 0, 1)


def _finite(cams: Tensor) -> Tensor:
    if not cams.isfinite().all():
        raise UserError(
            "its CAMs hold NaN or infinite values: train with a lower classifier.learning_rate, "
            "or compute with precision = float32"
        )
    return cams
