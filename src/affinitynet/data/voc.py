"""PASCAL VOC development kit folders, the original ones and your own in that layout."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from affinitynet.data.labels import ignore_index, read_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.names import Files
from affinitynet.data.rows import TABLE, Row, check_labels, read_rows
from affinitynet.data.sample import Sample
from affinitynet.data.splits import name_splits
from affinitynet.data.tags import (
    class_index,
    class_names,
    is_background,
    look_alikes,
    tag_indices,
)
from affinitynet.data.text import read_lines
from affinitynet.data.voc_lists import Images, read_lists
from affinitynet.data.voc_xml import read_objects
from affinitynet.errors import UserError

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""VOC's twenty names; the value in a mask is the place in this list + 1."""

ANNOTATIONS = "Annotations"
MASKS = "SegmentationClass"
# Where the 10,582 masks of train_aug usually lie; SBD's outlines are coarser than VOC's own.
SBD_MASKS = "SegmentationClassAug"


def voc_root(root: Path) -> Path | None:
    """The folder with JPEGImages and ImageSets: ``root``, ``root/VOC2012`` or ``root/*/VOC2012``.

    None where there is none.
    """
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "JPEGImages").is_dir() and (folder / "ImageSets").is_dir():
            return folder
    return None


def class_numbers(manifest: Manifest) -> tuple[str, ...]:
    """Return what class numbers from 0 mean in files that other programs made for a data set.

    In a VOC devkit they are VOC's twenty, whichever of them the data set has; elsewhere its own.
    """
    of_voc = voc_root(manifest.root) is not None and set(manifest.classes) <= set(VOC_CLASSES)
    return VOC_CLASSES if of_voc else manifest.classes


def read_voc(root: Path, classes: Sequence[str] | None, tags: str) -> Manifest:
    """Read a VOC devkit folder: every list of ImageSets/Segmentation (else Main) is a split.

    Tags come from ``labels.csv`` ("table"), from every object of the Annotations, those marked
    difficult or truncated included ("annotations"), or from the masks ("masks"); "auto" takes the
    first of the three that the folder has. Ground truth is SegmentationClass, and
    SegmentationClassAug (SBD) for images that the former lacks. Without a class list the classes
    are VOC's own names, as many as occur, in VOC's order; a class list of one's own names, or a
    ``classes.txt`` that begins with background, means masks with the values 0, 1 ... C in order.

    A list none of whose images has tags (VOC's test list) is left out with a note.

    Raises:
        UserError: listed images that are missing or there twice (``a.jpg`` and ``a.png``), images
            without tags in a list where others have some, tags that are not in the class list.
    """
    found_root = voc_root(root)
    if found_root is None:
        raise UserError(f"{root}: is no VOC folder (it has no JPEGImages and ImageSets)")
    root = found_root
    images, files = Images(root / "JPEGImages"), Files()
    lists = read_lists(root, images)
    names = None if classes is None else class_names(root, classes)
    vocs = True  # whether VOC's names have VOC's numbers
    if names is None and (root / "classes.txt").is_file():
        names = class_names(root, None)
        # A list that begins with background, as our own export writes it, numbers the masks.
        vocs = not is_background(read_lines(root / "classes.txt")[0])
    kind = _tag_source(root, tags)
    masks = {i: _mask(root, i, files) for ids in lists.values() for i in ids}
    source, tags_of, notes = _tags_from(
        kind, root, images, files, masks, VOC_CLASSES if names is None else names, vocs
    )
    tags_by_id = {i: tags_of(i) for i in masks}
    # A copy, since lists without tags are deleted on the way.
    for name, ids in list(lists.items()):
        without = [i for i in ids if tags_by_id[i] is None]
        if ids and len(without) == len(ids):
            notes += (f"the list {name} is left out: none of its images has tags in {source}",)
            del lists[name]
        elif without:
            raise UserError(
                f"{root}: {len(without)} images of the list {name} have no tags in {source}, "
                f"{without[0]} first; add them there or take them out of the list"
            )
    if names is None:
        occurring = {tag for found in tags_by_id.values() for tag in found or ()}
        # Before the names are chosen: an unknown one would only be missing then.
        _check_voc_names(tags_by_id, source)
        names = tuple(name for name in VOC_CLASSES if name in occurring)

    index = class_index(names)
    samples = {
        i: Sample(i, images.only(i), tag_indices(found, index, f"{i} ({source})"), masks[i])
        for i, found in tags_by_id.items()
        if found is not None
    }
    split_of, split_notes = name_splits(lists, str(root), unite=False)
    return Manifest(
        root=root,
        classes=names,
        splits={split_of[name]: tuple(samples[i] for i in ids) for name, ids in lists.items()},
        truth_values=_truth_values(names) if vocs else None,
        notes=(*notes, *split_notes, *look_alikes(names)),
        found=f"JPEGImages and ImageSets in {root.name}, tags from {source}",
    )


def _mask(root: Path, sample_id: str, files: Files) -> Path | None:
    # VOC's own first: its outlines are finer.
    found = (files.find(root / folder, f"{sample_id}.png") for folder in (MASKS, SBD_MASKS))
    return next((path for path in found if path is not None), None)


def _tag_source(root: Path, tags: str) -> str:
    """Choose where tags come from: "table", "annotations" or "masks"."""
    places = {"table": (TABLE,), "annotations": (ANNOTATIONS,), "masks": (MASKS, SBD_MASKS)}
    if tags != "auto" and tags not in places:
        raise UserError(f"dataset.tags = {tags}: must be auto, {', '.join(places)}")
    wanted = places if tags == "auto" else {tags: places[tags]}
    there = [kind for kind, names in wanted.items() if any((root / n).exists() for n in names)]
    if not there:
        missing = ", ".join(name for names in wanted.values() for name in names)
        raise UserError(f"{root}: has nothing to take tags from; there is no {missing}")
    return there[0]


def _tags_from(
    kind: str,
    root: Path,
    images: Images,
    files: Files,
    masks: dict[str, Path | None],
    classes: Sequence[str],
    vocs: bool,
) -> tuple[str, Callable[[str], tuple[str, ...] | None], tuple[str, ...]]:
    """The source's name for messages, a function id -> tags (None where it has none), and notes."""
    if kind == "table":
        listing = read_rows(root / TABLE, classes)
        notes = (*listing.notes, *check_labels(root / TABLE, listing.rows, classes))
        return TABLE, _tags_by_id(listing.rows, root / TABLE, images).get, notes
    if kind == "masks":
        return "the masks", lambda sample_id: _mask_tags(masks[sample_id], classes, vocs), ()

    def read(sample_id: str) -> tuple[str, ...] | None:
        path = files.find(root / ANNOTATIONS, f"{sample_id}.xml")
        return None if path is None else read_objects(path)

    return ANNOTATIONS, read, ()


def _tags_by_id(rows: Iterable[Row], table: Path, images: Images) -> dict[str, tuple[str, ...]]:
    tags: dict[str, tuple[str, ...]] = {}
    for row in rows:
        sample_id = images.identify(row.image)
        if sample_id in tags:
            raise UserError(
                f"{table}, line {row.line}: a line before has tags of {sample_id} too; unite them"
            )
        tags[sample_id] = row.labels
    return tags


def _mask_tags(mask: Path | None, classes: Sequence[str], vocs: bool) -> tuple[str, ...] | None:
    if mask is None:
        return None
    # Tags from masks need the same reading of their values as the ground truth later.
    values = (_truth_values(classes) if vocs else None) or {i: i for i in range(len(classes) + 1)}
    void = ignore_index(len(classes))
    tags = []
    for value in np.unique(read_labels(mask)).tolist():
        if value not in values and value != void:
            raise UserError(
                f"{mask}: holds the value {value}, which stands for none of the {len(classes)} "
                "classes; correct the mask or the class list"
            )
        if value not in (0, void):
            tags.append(classes[values[value] - 1])
    return tuple(tags)


def _truth_values(classes: Sequence[str]) -> dict[int, int] | None:
    """VOC's numbers -> labels where all classes are VOC's; else the masks hold the labels."""
    if not set(classes) <= set(VOC_CLASSES):
        return None
    numbers = {VOC_CLASSES.index(name) + 1: label for label, name in enumerate(classes, start=1)}
    return {0: 0, **dict(sorted(numbers.items())), 255: 255}


def _check_voc_names(tags_by_id: dict[str, tuple[str, ...] | None], source: str) -> None:
    index = class_index(VOC_CLASSES)
    for sample_id, tags in tags_by_id.items():
        tag_indices(tags or (), index, f"{sample_id} ({source})")
