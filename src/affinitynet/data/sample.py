"""One image and what is known about it, and a choice among several."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from affinitynet.run_folder.settings_base import InputSettings


@dataclass(frozen=True)
class Sample:
    """One image of a data set.

    id: names the sample in every file the stages write (``<id>.png``); may contain ``/``.
    image: the image file.
    tags: sorted 0-based indices into the manifest's classes; ``()`` says background only.
    mask: the file that holds the ground truth, where there is one: a label PNG, or a COCO
        annotation file (JSON). Read it with `affinitynet.data.load_truth`.
    group: images of one group (one plant, one patient) are kept aside together; "": none.
    reading: how the image becomes bytes, for `load_image`; None: as 8-bit RGB.
    """

    id: str
    image: Path
    tags: tuple[int, ...]
    mask: Path | None = None
    group: str = ""
    reading: InputSettings | None = None


def evenly(pool: Sequence[Sample], count: int) -> list[Sample]:
    """Take so many samples, evenly over the list; all where there are no more."""
    if len(pool) <= count:
        return list(pool)
    # From the middle of each of `count` equal parts of the list.
    return [pool[int((i + 0.5) * len(pool) / count)] for i in range(count)]
