"""Tagged images whose seeds or masks hold nothing of their tag, counted without truth.

A seed is *empty* where the class's map stays below the strong background of the confident areas
everywhere: no pixel of it could become confident foreground, whatever the CRF does. It is counted
before the CRF, so that small objects, which the CRF takes for noise, don't count as a failure of
the maps.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import Path
from typing import Any

from affinitynet.data.cams import load_peaks
from affinitynet.data.sample import Sample

MOST = 1 / 3  # of a class's images may have empty seeds; more, and its maps are no use
LEAST = 5  # images of a class below which nothing is said of it


def background_border(alpha: float) -> float:
    """Return the value m at which a lone map ties with its background: (1 - m)^alpha = m."""
    low, high = 0.0, 1.0
    # By halving, as there is no closed form: the left side falls and the right one rises.
    for _ in range(60):  # halvings, to the last bit
        middle = (low + high) / 2
        low, high = (middle, high) if (1 - middle) ** alpha > middle else (low, middle)
    return high


def empty_seeds(
    samples: Sequence[Sample],
    file: Callable[[Sample], Path],
    classes: Sequence[str],
    alpha: float,
    threshold: float | None = None,
) -> list[dict[str, Any]]:
    """Count for each class the tagged images and those with empty seeds, from their CAM files.

    What a map has to exceed is the background of an alpha, or a constant threshold if given.

    A row is class, images and empty; an image whose file lacks the tag's map counts as empty.

    Raises:
        UserError: a file can't be read.
    """
    border = background_border(alpha) if threshold is None else threshold
    images: Counter[int] = Counter()
    empty: Counter[int] = Counter()
    for sample in samples:
        indices, peaks = load_peaks(file(sample), classes=len(classes))
        # The peak of each map suffices: a pixel is foreground where its map exceeds the background.
        shown = set(indices[peaks > border].tolist())
        images.update(sample.tags)
        empty.update(tag for tag in sample.tags if tag not in shown)
    return _rows(classes, images, empty)


def empty_masks(
    samples: Iterable[Sample],
    shown: Callable[[Sample], Set[int]],
    classes: Sequence[str],
    failed: Sequence[int] = (),
) -> dict[str, Any]:
    """Count the tagged images whose masks have no pixel of their tags, per class and in all.

    Returns images and empty (without any class) in all, and `classes`: rows of class, images and
    empty. The failed classes, which masks don't show on purpose, are left out.

    shown: gives the labels of an image's mask.
    """
    images: Counter[int] = Counter()
    empty: Counter[int] = Counter()
    whole = [0, 0]
    for sample in samples:
        tags = [tag for tag in sample.tags if tag not in failed]
        if not tags:
            continue
        labels = shown(sample)
        missing = [tag for tag in tags if tag + 1 not in labels]
        images.update(tags)
        empty.update(missing)
        whole = [whole[0] + 1, whole[1] + (len(missing) == len(tags))]
    rows = [row for row in _rows(classes, images, empty) if row["images"]]
    return {"images": whole[0], "empty": whole[1], "classes": rows}


def too_many(row: dict[str, Any], most: float = MOST) -> bool:
    """Tell whether more than a third of a class's images are empty; never of fewer than five."""
    return bool(row["images"] >= LEAST and row["empty"] > most * row["images"])


def say_empty(found: dict[str, Any], what: str, advice: str) -> list[str]:
    """Say in a line for each class that masks are empty in more than a third of its images."""
    return [
        f"{what} hold nothing of {row['class']} in {row['empty']} of its {row['images']} images; "
        f"{advice}"
        for row in found["classes"]
        if too_many(row)
    ]


def _rows(
    classes: Sequence[str], images: Counter[int], empty: Counter[int]
) -> list[dict[str, Any]]:
    return [
        {"class": name, "images": images[index], "empty": empty[index]}
        for index, name in enumerate(classes)
    ]
