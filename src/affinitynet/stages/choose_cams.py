"""Stage 2, last part: two sources' CAMs -> cams/<id>.npz, of each class those that serve it better.

No truth is asked. What a good map points at is what the classifier needs: its strongest pixels are
painted over with their surroundings, and the map after which the tag's probability falls more is
the better one (`ops/deletion.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from affinitynet.data import Sample, load_image
from affinitynet.data.cams import load_cams, save_cams
from affinitynet.data.chosen_maps import STAGE, MapSource, read_choice
from affinitynet.data.transforms import resize_long_side
from affinitynet.data.verdicts import failed_classes
from affinitynet.hardware import inference
from affinitynet.models.classifier import Classifier
from affinitynet.ops._arguments import check_values
from affinitynet.ops.deletion import fill_from_surroundings, strongest_pixels
from affinitynet.ops.normalization import Normalization
from affinitynet.progress import say
from affinitynet.run_folder.artifacts import (
    CAMS,
    CAMS_CLASSIFIER,
    CAMS_CONTRAST,
    CHOICE,
    CLASSIFIER,
    Artifact,
)
from affinitynet.run_folder.folder import write_json
from affinitynet.run_folder.records import StageFolder
from affinitynet.stages.context import Context
from affinitynet.stages.images import check_size, for_each, make_each

IMAGES = 30  # of a class that are looked at
SHARE = 0.02  # of an image's pixels that are painted over
# A map by contrast is calibrated, a classifier's is divided by its own maximum, and is wide where
# its normalization was trained. With this power the walk's border, 0.12 at an alpha of 16, lies at
# 0.19 of the map, as with an alpha of 8: pseudo masks of 370 VOC photographs have 56.7 mIoU without
# it and 66.2 with it (one seed; truth chose it). A quantile has calibrated the map already.
POWER = {"maximum": 1.25, "quantile": 1.0}
_MOVED = 0.01  # of a tag's probability: below it, the classifier needs neither map's pixels
# Contrast's share of the drops above which it serves all classes: between that of leaves, 0.53 to
# 0.62, and that of photographs, up to 0.36 (docs/contrast.md; the truth says which is which).
_COMMON = 0.45
_FEWEST = 8  # images with which a class may decide against the others
_ERRORS = 2.0  # standard errors that make a difference of one class a clear one
_CLEAR = 0.75  # of the two drops, that of the map which one class takes against the others

ARTIFACTS: dict[MapSource, Artifact] = {"classifier": CAMS_CLASSIFIER, "contrast": CAMS_CONTRAST}


class Drops(NamedTuple):
    """By how much a tag's probability fell in each image, for the two sources' maps."""

    classifier: list[float]
    contrast: list[float]


class Loaded(NamedTuple):
    """An image (3, H, W) with both sources' maps (K, H, W) of its tags."""

    image: Tensor
    maps: dict[MapSource, Tensor]


class Choice(NamedTuple):
    """The source of one class's maps, and why."""

    source: MapSource
    reason: str


def work(context: Context) -> dict[str, Any]:
    """Choose a source for each class, and write its maps for every image."""
    file = context.folder(CAMS) / CHOICE
    context.borrow(file)
    context.let_lead(file)
    if not file.is_file():  # a stage that was interrupted goes on with what it chose
        write_json(file, _choose(context))
    classes = context.manifest.classes
    chosen = read_choice(context.root, classes)
    sources: list[MapSource] = [chosen[name]["source"] for name in classes]

    def finish(sample: Sample, _: None) -> None:
        maps = {source: _on_one_scale(context, sample, source) for source in dict.fromkeys(sources)}
        rows = [maps[sources[tag]][number] for number, tag in enumerate(sample.tags)]
        size = next(iter(maps.values())).shape[1:]
        # Without tags there is no map, but later stages still compare the size.
        picked = np.stack(rows) if rows else np.zeros((0, *size), np.float32)
        save_cams(context.file(CAMS, sample), sample.tags, picked)

    counts = make_each(
        context,
        STAGE,
        CAMS,
        context.samples(*context.recipe.cams.splits, "figures"),
        load=lambda sample: None,
        compute=lambda sample, _: None,
        finish=finish,
    )
    return {**counts, "choice": chosen}


def _maps(context: Context, sample: Sample, source: MapSource) -> NDArray[np.float32]:
    file = context.file(ARTIFACTS[source], sample)
    return load_cams(file, classes=len(context.manifest.classes))[1]


def _on_one_scale(context: Context, sample: Sample, source: MapSource) -> NDArray[np.float32]:
    """Return a source's maps (K, H, W) such that the border of a class is where contrast has it."""
    maps = _maps(context, sample, source)
    power = POWER[context.recipe.cams.threshold] if source == "classifier" else 1.0
    return maps if power == 1 else maps ** np.float32(power)


def _choose(context: Context) -> dict[str, Any]:
    """Return for each class by name its source, the reason, and what it follows from."""
    classes = context.manifest.classes
    drops = _measure(context)
    contrasted = [label for label in drops if classes[label] in _contrasted(context)]
    choices = choose(drops, contrasted, failed_classes(context.root))
    for label, choice in choices.items():
        say(f"{STAGE}: {classes[label]}: {choice.source}, {choice.reason}")
    return {
        classes[label]: {
            **choice._asdict(),
            "images": len(drops[label].contrast),
            "drop": {
                source: round(float(np.mean(values)), 4) if values else None
                for source, values in drops[label]._asdict().items()
            },
        }
        for label, choice in choices.items()
    }


def _contrasted(context: Context) -> Collection[str]:
    """Return the classes that there was something to contrast with."""
    record = StageFolder(context.folder(CAMS_CONTRAST), "compute_contrast").record()
    assert record is not None  # done before
    found: dict[str, int] = record.figures["bank"]
    return found


def choose(
    drops: Mapping[int, Drops],
    contrasted: Collection[int] | None = None,
    unlearned: Collection[int] = (),
) -> dict[int, Choice]:
    """Choose the source of each class's maps.

    All classes together choose contrast where the mean of its share of the two drops, c / (c + k),
    is above 0.45: a class counts alike whatever the classifier loses at all. A class takes the
    other source where that one's drop is three times as large, and the difference more than two
    standard errors.

    Args:
        drops: class -> what was measured. A class without images follows the others.
        contrasted: the classes that contrast has maps of, None for all.
        unlearned: those that the classifier did not learn: its probabilities say nothing of them.
    """
    able = drops.keys() if contrasted is None else contrasted
    shares = {label: _share(drops[label]) for label in able if label not in unlearned}
    heard = [share for share in shares.values() if share is not None]
    common: MapSource = "contrast" if heard and np.mean(heard) > _COMMON else "classifier"
    return {
        label: _choice(drops[label], shares.get(label), common, learned=label not in unlearned)
        if label in able
        else Choice("classifier", "nothing to contrast it with")
        for label in drops
    }


def _share(drops: Drops) -> float | None:
    """Return contrast's share of what both sources' deletion takes, None where that is nothing."""
    if not drops.contrast:
        return None
    contrast, classifier = (max(0.0, float(np.mean(found))) for found in drops[::-1])
    return contrast / (contrast + classifier) if max(contrast, classifier) >= _MOVED else None


def _choice(drops: Drops, share: float | None, common: MapSource, *, learned: bool) -> Choice:
    if not drops.contrast:
        return Choice(common, "as the other classes: no image of it to look at")
    if not learned:
        return Choice(common, "as the other classes: the classifier did not learn it")
    said = (
        f"filling its strongest {SHARE:.0%} takes {np.mean(drops.contrast):.2f} of the tag's "
        f"probability for contrast, {np.mean(drops.classifier):.2f} for the classifier "
        f"({len(drops.contrast)} images)"
    )
    if share is None:
        return Choice(common, f"as the other classes: {said}")
    own: MapSource = "contrast" if share > 0.5 else "classifier"
    if own == common:
        return Choice(common, said)
    if max(share, 1 - share) > _CLEAR and _is_clear(drops):
        return Choice(own, f"{said}; clear enough to differ from the other classes")
    return Choice(common, f"{said}; not clear, so as the other classes")


def _is_clear(drops: Drops) -> bool:
    values = np.subtract(drops.contrast, drops.classifier)
    return len(values) >= _FEWEST and abs(values.mean()) > _ERRORS * _standard_error(values)


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def images_to_look_at(samples: Sequence[Sample], classes: int, seed: int) -> dict[str, list[int]]:
    """Choose up to `IMAGES` images with each tag: image -> the classes it is looked at for."""
    order = torch.randperm(len(samples), generator=Generator().manual_seed(seed)).tolist()
    left, found = [IMAGES] * classes, dict[str, list[int]]()
    for number in order:
        for tag in samples[number].tags:
            if left[tag]:
                left[tag] -= 1
                found.setdefault(samples[number].id, []).append(tag)
    return found


def _measure(context: Context) -> dict[int, Drops]:
    """Take the drops of both sources in a sample of the training images."""
    recipe, classes = context.recipe, len(context.manifest.classes)
    samples = context.samples("train")
    looked_at = images_to_look_at(samples, classes, recipe.seed)
    drops = {label: Drops([], []) for label in range(classes)}
    model = Classifier.load(context.folder(CLASSIFIER))
    normalization: Normalization = model.backbone.normalization  # type: ignore[assignment]
    with inference(model, context.hardware_at(recipe.cams.precision)) as device:

        def probabilities(images: Tensor) -> Tensor:
            pixels = normalization.apply(images).to(device, memory_format=torch.channels_last)
            logits = cast(Tensor, model(pixels)).float()
            check_values(logits, "the classifier's logits")
            return logits.sigmoid().cpu()

        def compute(sample: Sample, loaded: Loaded) -> None:
            # At a size that the classifier was trained on, where its probabilities mean most.
            low, high = recipe.classifier.long_side
            side = min(max(low, *loaded.image.shape[-2:]), high)
            image = resize_long_side(loaded.image, side)
            tags = looked_at[sample.id]
            looked = [(source, tag) for source in loaded.maps for tag in tags]
            rows = [loaded.maps[source][sample.tags.index(tag)] for source, tag in looked]
            found = deletion_drops(image, rows, [tag for _, tag in looked], probabilities)
            for (source, tag), drop in zip(looked, found, strict=True):
                getattr(drops[tag], source).append(drop)

        for_each(
            f"{STAGE}, deletion",
            [sample for sample in samples if sample.id in looked_at],
            load=lambda sample: _load(context, sample),
            compute=compute,
            finish=lambda sample, _: None,
            workers=recipe.workers,
        )
    return drops


def deletion_drops(
    image: Tensor,
    cams: Sequence[Tensor],
    tags: Sequence[int],
    probabilities: Any,
    share: float = SHARE,
) -> list[float]:
    """Return by how much each tag's probability falls when its map's strongest pixels are filled.

    image: (3, H, W), 0..255. cams: K maps (h, w), each of any size, of the K `tags`. probabilities:
    the classifier, (B, 3, H, W) -> (B, C).
    """
    pixels = image.float()
    size = (image.shape[-2], image.shape[-1])
    maps = (
        F.interpolate(cam[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        for cam in cams
    )
    filled = [fill_from_surroundings(pixels, strongest_pixels(cam, share)) for cam in maps]
    before, *after = probabilities(torch.stack([pixels, *filled]))
    return [float(before[tag] - row[tag]) for tag, row in zip(tags, after, strict=True)]


def _load(context: Context, sample: Sample) -> Loaded:
    image, maps = load_image(sample.image, sample.reading), {}
    for source, artifact in ARTIFACTS.items():
        found = _maps(context, sample, source)
        check_size(image.shape[:2], found.shape[1:], context.file(artifact, sample))
        maps[source] = torch.from_numpy(found)
    return Loaded(torch.from_numpy(image).permute(2, 0, 1), maps)
