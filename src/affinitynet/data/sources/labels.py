"""Confident areas and pseudo masks that another program made, as label PNGs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from affinitynet.data.labels import Labels, ignore_index, read_labels
from affinitynet.data.truth import check_unturned
from affinitynet.errors import UserError

_NUMBERS = "cams.classes to the classes in the order of the numbers"


def read_labels_source(
    path: Path,
    names: Sequence[str],
    classes: Sequence[str],
    tags: Sequence[int],
    size: tuple[int, int],
) -> Labels:
    """Read a label PNG in the data set's labels: 0 background, c + 1 class c, neutral.

    Args:
        path: a palette or gray PNG: 0 background, n + 1 the class `names[n]`, and 255 (65535 from
            255 classes on) neutral.
        names: the classes in the order of the file's numbers.
        classes: the data set's classes.
        tags: the image's tags, indices of `classes`: no other class may occur.
        size: (H, W) of the image.

    Returns:
        (H, W) uint8, or uint16 from 255 classes on.

    Raises:
        UserError: the file can't be read, is turned by EXIF, has another size, or a number that
            stands for no class or for one which the image is not tagged with, as where numbers are
            counted another way.
    """
    check_unturned(path)
    raw = read_labels(path)
    if raw.shape != size:
        raise UserError(
            f"{path}: is {raw.shape[0]} x {raw.shape[1]}, the image {size[0]} x {size[1]}; "
            "save one label a pixel of the image"
        )
    neutral = ignore_index(len(classes))
    present = np.unique(raw[(raw > 0) & (raw != ignore_index(len(names)))]).tolist()
    if present and present[-1] > len(names):
        raise UserError(
            f"{path}: holds the value {present[-1]}, which stands for no class: its values may be "
            f"0 to {len(names)} and {ignore_index(len(names))}; correct the file, or set "
            f"{_NUMBERS}"
        )
    tagged = {classes[tag] for tag in tags}
    # Neutral first: the file may have another number for it than the data set.
    table = np.full(65536, neutral, np.uint16)
    table[0] = 0
    for value in present:
        name = names[value - 1]
        if name not in tagged:
            raise UserError(
                f"{path}: holds {name} ({value}), which the image is not tagged with; correct the "
                f"file or the tags, or set {_NUMBERS}"
            )
        table[value] = classes.index(name) + 1
    return table[raw] if neutral > 255 else table.astype(np.uint8)[raw]
