"""New images as a run's networks know them: its classes by their numbers, all images one split."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.data.tags import class_index, tag_indices

SPLIT = "all"  # of images that get masks from the networks of another run


def for_networks(read: Callable[..., Manifest], classes: Sequence[str], split: str) -> Manifest:
    """Read a data set for the classes of another run; all its images are in the one split.

    read: reads it with a class list, `classes=`; None leaves the classes to the data set.

    Raises:
        UserError: an image has a tag that is none of the classes, or it can't be read.
    """
    found = read(classes=classes)
    if (found.root / "classes.txt").is_file():
        # Its own list says what the numbers in its ground truth mean.
        found = _renumbered(read(classes=None), classes)
    return replace(found, splits={split: found.samples})


def _renumbered(manifest: Manifest, classes: Sequence[str]) -> Manifest:
    """Give a data set the class list of another; in its ground truth what that lacks is void."""
    if manifest.classes == tuple(classes):
        return manifest
    index = class_index(classes)

    def renumber(sample: Sample) -> Sample:
        names = [manifest.classes[tag] for tag in sample.tags]
        return sample.replace(tags=tag_indices(names, index, f"{sample.image}"))

    def label(own: int) -> int:
        if 0 < own <= len(manifest.classes):
            place = index.get(manifest.classes[own - 1])
            return void if place is None else place + 1
        return void if own == manifest.ignore_index else own

    other = replace(
        manifest,
        splits={name: tuple(map(renumber, group)) for name, group in manifest.splits.items()},
        classes=tuple(classes),
    )
    void = other.ignore_index
    same = {value: value for value in (*range(len(manifest.classes) + 1), manifest.ignore_index)}
    values = manifest.truth_values or same
    return replace(other, truth_values={value: label(own) for value, own in values.items()})
