"""One image and what is known about it, and a choice among several."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from affinitynet.run_folder.settings_base import InputSettings


class _Place(NamedTuple):
    """A file's path but for the image's id in it; `has_id` tells whether that stands there."""

    before: str
    has_id: bool
    after: str


class _Common(NamedTuple):
    """What many images have in common: it is kept once, which is most of a sample's memory."""

    image: _Place
    mask: _Place | None
    group: str
    reading: InputSettings | None


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Sample:
    """One image of a data set: 150 bytes of memory where its files are named after its id.

    id: names the sample in every file the stages write (``<id>.png``); may contain ``/``.
    image: the image file.
    tags: sorted 0-based indices into the manifest's classes; ``()`` says background only.
    mask: the file that holds the ground truth, where there is one: a label PNG, or a COCO
        annotation file (JSON). Read it with `affinitynet.data.load_truth`.
    group: images of one group (one plant, one patient) are kept aside together; "": none.
    reading: how the image becomes bytes, for `load_image`; None: as 8-bit RGB.
    """

    id: str
    tags: tuple[int, ...]
    _common: _Common = field(init=False)

    def __init__(
        self,
        id: str,
        image: Path | str,
        tags: tuple[int, ...],
        mask: Path | str | None = None,
        group: str = "",
        reading: InputSettings | None = None,
    ) -> None:
        """Keep what is said of an image."""
        places = _place(id, image), None if mask is None else _place(id, mask)
        set_once = object.__setattr__
        set_once(self, "id", id)
        set_once(self, "tags", _one(tags))
        set_once(self, "_common", _one(_Common(*places, group, reading)))

    @property
    def image(self) -> Path:
        """The image file."""
        return Path(self.image_text)

    @property
    def image_text(self) -> str:
        """The image file's path as text, for millions of which paths cost too much."""
        return _text(self.id, self._common.image)

    @property
    def mask(self) -> Path | None:
        """The file that holds the ground truth, where there is one."""
        return None if self._common.mask is None else Path(_text(self.id, self._common.mask))

    @property
    def group(self) -> str:
        """The group of images that it belongs to, "" for none."""
        return self._common.group

    @property
    def reading(self) -> InputSettings | None:
        """How the image becomes bytes; None: as 8-bit RGB."""
        return self._common.reading

    def replace(self, **changes: Any) -> "Sample":
        """Return the same sample but for some of what `Sample` is made of."""
        names = ("id", "image", "tags", "mask", "group", "reading")
        return Sample(**{name: getattr(self, name) for name in names} | changes)

    def __repr__(self) -> str:
        """Show what it was made of."""
        return (
            f"Sample({self.id!r}, {self.image!r}, {self.tags}, {self.mask!r}, {self.group!r}, "
            f"{self.reading!r})"
        )


@lru_cache(maxsize=1 << 16)
def _one(value: Any) -> Any:
    """Return the first of equal values that was asked for, so that it is kept once."""
    return value


def _place(sample_id: str, file: Path | str) -> _Place:
    if not sample_id:  # a manifest refuses it
        return _Place("", False, str(file))
    before, found, after = str(file).rpartition(_below(sample_id))
    return _Place(before, bool(found), after)


def _text(sample_id: str, place: _Place) -> str:
    return place.before + _below(sample_id) * place.has_id + place.after


def _below(sample_id: str) -> str:
    return sample_id.replace("/", os.sep)


def evenly(pool: Sequence[Sample], count: int) -> list[Sample]:
    """Take so many samples, evenly over the list; all where there are no more."""
    if len(pool) <= count:
        return list(pool)
    # From the middle of each of `count` equal parts of the list.
    return [pool[int((i + 0.5) * len(pool) / count)] for i in range(count)]
