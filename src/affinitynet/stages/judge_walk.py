"""How the walk's and the pseudo mask's areas compare with those of the seeds, class by class."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from affinitynet.data import Sample
from affinitynet.data.cams import load_cams
from affinitynet.ops.guard import label_areas, walk_fault
from affinitynet.ops.propagation import label_scores
from affinitynet.run_folder.artifacts import CAMS, PSEUDO, WALK
from affinitynet.stages.context import Context
from affinitynet.walking import seeds_of

OFTEN = 1 / 3  # of a class's images with seeds: more often, and a fault is said
# Of the walk's area, in a class's middle image: with less the CRF may take away parts of objects.
# By ground truth it left 0.46 to 0.65 of five kinds of toys, whose IoU fell by 11 to 20 points, but
# 0.65 and more of photographs and leaves, whose IoU rose.
SHRUNK = 0.6
LEAST = 5  # images, to judge the CRF by


class Areas(NamedTuple):
    """Pixels of the K classes of an image in its seeds, its walk and its pseudo mask."""

    classes: tuple[int, ...]
    seeds: tuple[int, ...]
    walk: tuple[int, ...]
    pseudo: tuple[int, ...]
    pixels: int


def measure(
    classes: Iterable[int],
    seeds: torch.Tensor,
    walk: NDArray[np.integer[Any]],
    pseudo: NDArray[np.integer[Any]],
) -> Areas:
    """Count the seeds' labels (H, W) 0..K, and the data set's labels of the masks (H, W)."""
    own = tuple(int(index) for index in classes)
    counted = tuple(label_areas(seeds, len(own) + 1)[1:].tolist())
    walked, refined = (
        tuple(int((labels == index + 1).sum()) for index in own) for labels in (walk, pseudo)
    )
    return Areas(own, counted, walked, refined, seeds.numel())


def read_areas(context: Context, sample: Sample) -> Areas:
    """Measure an image that was finished before, from its files."""
    classes, cams = load_cams(context.file(CAMS, sample), classes=len(context.manifest.classes))
    seeds = label_scores(seeds_of(torch.from_numpy(cams), context.walk))
    masks = (context.labels(artifact, sample) for artifact in (WALK, PSEUDO))
    return measure(classes.tolist(), seeds, *masks)


def summarize(
    found: Iterable[Areas], names: Sequence[str], failed: Sequence[int]
) -> list[dict[str, Any]]:
    """Return a row for each class that has seeds: what became of them in how many images.

    class, images (those with seeds), floods, eats, the median of walk and of pseudo mask as shares
    of the seeds, and as `refined` that of the pseudo mask as a share of the walk where that has no
    fault (null in fewer than 5 images). The failed classes, which no mask shows, are left out.
    """
    of_class: dict[int, list[tuple[int, int, int, int]]] = {}
    for areas in found:
        for index, seed, walk, pseudo in zip(*areas[:4], strict=True):
            if seed and index not in failed:
                of_class.setdefault(index, []).append((seed, walk, pseudo, areas.pixels))
    rows = []
    for index, images in sorted(of_class.items()):
        faults = [walk_fault(seed, walk, pixels) for seed, walk, _, pixels in images]
        row = {"class": names[index], "images": len(images)}
        row |= {"floods": faults.count("floods"), "eats": faults.count("eats")}
        for name, place in (("walk", 1), ("pseudo", 2)):
            row[name] = round(median(image[place] / image[0] for image in images), 3)
        sound = [image for image, fault in zip(images, faults, strict=True) if fault is None]
        shares = [pseudo / walk for _, walk, pseudo, _ in sound]
        row["refined"] = round(median(shares), 3) if len(shares) >= LEAST else None
        rows.append(row)
    return rows


def judgements(rows: Iterable[dict[str, Any]], guarded: bool) -> list[str]:
    """Say in a line for each class which fault the walk has in more than a third of its images."""
    remedy = (
        "they keep their seeds there"
        if guarded
        else "set walk.guard = true to keep their seeds there"
    )
    words = {"eats": "leaves next to nothing of", "floods": "floods images with"}
    return [
        f"the walk {words[fault]} {row['class']} in {row[fault]} of {row['images']} images (its "
        f"area is {row['walk']:.2g} times the seeds' in the middle image); {remedy}"
        for row in rows
        for fault in words
        if row[fault] > OFTEN * row["images"]
    ]


def crf_judgements(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Say in a line for each class of which the dense CRF takes away much of the walk."""
    return [
        f"the dense CRF leaves {row['refined']:.0%} of the walk's area of {row['class']} in the "
        "middle image; compare walk/ with pseudo/: a smaller walk.crf.bilateral_sxy leaves more, "
        "walk.refine = false all"
        for row in rows
        if row["refined"] is not None and row["refined"] < SHRUNK
    ]
