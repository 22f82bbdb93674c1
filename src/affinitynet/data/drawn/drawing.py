"""A drawn mask of one image, whatever program it comes from, and the regions it is painted with."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from affinitynet.data.labels import Labels, ignore_index
from affinitynet.data.manifest import Manifest
from affinitynet.data.names import compose
from affinitynet.data.sample import Sample
from affinitynet.data.tags import is_background, is_void
from affinitynet.errors import UserError, did_you_mean

Mask = NDArray[np.bool_]
Size = tuple[int, int]  # (H, W)


@dataclass(frozen=True)
class Drawing:
    """The mask that a file holds for an image.

    where: file and entry, for messages. size: of the image as the file says. paint: makes the
    labels (H, W) in the data set's numbers; late, so that a file of many images takes no memory.
    """

    sample: Sample
    where: str
    size: Size
    paint: Callable[[], Labels]


@dataclass(frozen=True)
class Region:
    """A part of an image with one label; `mask` makes its (H, W) bool."""

    label: int
    mask: Callable[[], Mask]


def paint_regions(
    regions: Iterable[Region], size: Size, rest: int, classes: int, where: str
) -> Labels:
    """Paint regions in their order onto (H, W) of the label `rest`: the last one is on top.

    Raises:
        UserError: there are regions, and none covers a pixel: the mask would say `rest` everywhere.
    """
    labels: Labels = np.zeros(size, np.uint8) if classes < 255 else np.zeros(size, np.uint16)
    labels[:] = rest
    covers = []
    for region in regions:
        mask = region.mask()
        covers.append(bool(mask.any()))
        labels[mask] = region.label
    if covers and not any(covers):
        raise UserError(
            f"{where}: no shape covers a pixel of the image of {size[1]} x {size[0]}; are the "
            "coordinates fractions, or of an image of another size?"
        )
    return labels


def label_of(name: str, classes: Sequence[str], where: str) -> int:
    """Return the label of a name: of background 0, of `__ignore__` neutral, else the class's.

    Raises:
        UserError: no class has the name; with the nearest one.
    """
    name = compose(name.strip())
    if name in classes:
        return classes.index(name) + 1
    if is_background(name):
        return 0
    if is_void(name):
        return ignore_index(len(classes))
    hint = did_you_mean(name, classes) or f"choose from {', '.join(classes)}"
    raise UserError(f"{where}: has the label {name!r}, which is no class of the run: {hint}")


class Owners:
    """The images of a data set, found by what other programs call them."""

    def __init__(self, manifest: Manifest) -> None:
        """Know each image by its id, its path below the data set's root, and its file's name."""
        self._found: dict[str, list[Sample]] = {}
        for sample in manifest.samples:
            path = sample.image.relative_to(manifest.images_root).as_posix()
            last = path.rpartition("/")[2]
            stem = sample.id.rpartition("/")[2]
            for name in {sample.id, path, last, stem}:
                self._found.setdefault(compose(name), []).append(sample)
        self._whole = {compose(sample.id): sample for sample in manifest.samples}
        self._whole |= {
            compose(sample.image.relative_to(manifest.images_root).as_posix()): sample
            for sample in manifest.samples
        }

    def find(self, where: str, *names: str) -> Sample:
        """Return the image of the first of these names that one has.

        Raises:
            UserError: none has, or two images have the name.
        """
        for name in map(compose, names):
            # A whole path names one image, though another folder may hold its file's name too.
            if name in self._whole:
                return self._whole[name]
            found = self._found.get(name, [])
            if len(found) > 1:
                raise UserError(
                    f"{where}: {name!r} may be {found[0].id} or {found[1].id}; give the path below "
                    "the data set's folder"
                )
            if found:
                return found[0]
        said = f"{names[0]!r} is" if names else "names"
        raise UserError(f"{where}: {said} no image of the run; take it out")


def endings(path: str) -> list[str]:
    """Return a path and what is left without its first folders, the longest first."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return ["/".join(parts[start:]) for start in range(len(parts))] or [path]
