"""Images and what lists their tags: a table, or the export of another program."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from affinitynet.data.folder import RUN_FILES
from affinitynet.data.found_images import BehindUrl, FoundImages
from affinitynet.data.grid import both
from affinitynet.data.images import is_image_name, walk_files
from affinitynet.data.labels import ignore_index, read_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.names import Files, compose
from affinitynet.data.rows import Listing, Row, check_labels
from affinitynet.data.sample import Sample
from affinitynet.data.splits import DEFAULT_SPLIT, label_as_split, name_splits
from affinitynet.data.tags import (
    NORMAL,
    class_index,
    class_names,
    is_background,
    is_number,
    known_names,
    look_alikes,
    tag_indices,
)
from affinitynet.errors import UserError


def read_listings(
    root: Path,
    listings: Sequence[Listing],
    classes: Sequence[str] | None,
    tags: str,
    background: Collection[str] = (),
    url: str = "",
) -> Manifest:
    """Make a data set of images and the files that list their tags, one or one for each split.

    Image names are relative to the listing's folder, to the root or to ``images/``, or are the last
    part of one image's path. Splits come from the rows (none: the listing's, else train). Ground
    truth, where given, is ``masks/<id>.png``: 0 (background), 1 ... C and 255 (void). The
    id is the path below ``images/`` (else below the root) without its extension. A row without
    labels, or with one of the labels `background`, says background only. Below a `url` images lie
    as they are named.

    Raises:
        UserError: missing images, ids that collide, unknown tags, a cell that is no list of labels;
            names file and line.
    """
    if tags not in ("auto", "table", "masks"):
        raise UserError(f"dataset.tags = {tags}: a labels.csv data set takes table or masks")
    # Names are compared composed: macOS writes an accented letter as two characters.
    empty = {compose(name) for name in background}
    known = known_names(root, classes)
    notes: list[str] = []
    found: dict[str, None] = {}
    labels: set[str] = set()
    for listing in listings:
        if not listing.rows:
            raise UserError(f"{listing.path}: lists no images; the data set is empty")
        # A name in a file's own list of classes is one name, even with a separator in it.
        own = {compose(name) for name in listing.classes}
        notes += [*listing.notes, *check_labels(listing.path, listing.rows, known | empty | own)]
        found |= dict.fromkeys(listing.classes)
        labels |= {label for row in listing.rows for label in row.labels}
    # Lists of classes come first, in their own order; what only the rows name is sorted, so that
    # the order of the rows does not decide the classes' numbers.
    found |= dict.fromkeys(sorted(labels))
    names = class_names(root, classes, [name for name in found if compose(name) not in empty])
    _check_splits(listings, labels)
    words = [_split(listing, row) for listing in listings for row in listing.rows]
    split_of, split_notes = name_splits(
        words, str(listings[0].path if len(listings) == 1 else root)
    )
    images = BehindUrl(url) if url else FoundImages(root, root / "masks")
    splits: dict[str, list[Sample]] = {}
    index, files = class_index(names), Files()
    first_of: dict[str, tuple[Listing, Row]] = {}
    for listing in listings:
        for row in listing.rows:
            image = images.find(listing, row)
            sample_id = images.sample_id(image)
            # The id names every file that the run writes: 1.jpg and 1.png would overwrite each
            # other.
            if (first := first_of.setdefault(sample_id, (listing, row)))[1] is not row:
                raise UserError(_same_id(first, (listing, row), sample_id))
            where = f"{listing.path}, {row.place} ({row.image})"
            mask = files.find(root / "masks", f"{sample_id}.png")
            if tags == "masks":
                indices = _mask_tags(mask, len(names), where)
            else:
                said = [label for label in row.labels if compose(label) not in empty]
                # Alone it says what an empty cell does; beside a class it contradicts it.
                said = [] if len(said) == 1 and is_background(said[0]) else said
                indices = tag_indices(said, index, where)
            splits.setdefault(split_of[_split(listing, row)], []).append(
                Sample(sample_id, image, indices, mask, row.group)
            )
    samples = [sample for split in splits.values() for sample in split]
    return Manifest(
        root=root,
        images=url,
        classes=names,
        splits={name: tuple(samples) for name, samples in splits.items()},
        notes=(
            *notes,
            *split_notes,
            *images.notes(),
            *look_alikes(names),
            *_normal(root, names),
            *_unlisted(root, samples, " and ".join(listing.path.name for listing in listings)),
        ),
        found="; ".join(listing.said for listing in listings),
    )


def _split(listing: Listing, row: Row) -> str:
    return row.split or listing.split or DEFAULT_SPLIT


def _check_splits(listings: Sequence[Listing], labels: Collection[str]) -> None:
    """Refuse a label in the column of splits: its image would leave the training in silence.

    Raises:
        UserError: a row's split is a label of the table; names the line.
    """
    rows = [(listing, row) for listing in listings for row in listing.rows]
    # Folds have numbers, and so may classes; but then every row has such a split.
    if all(is_number(row.split) for _, row in rows):
        return
    composed = {compose(label) for label in labels}
    for listing, row in rows:
        if label := label_as_split(row.split, composed):
            raise UserError(
                f"{listing.path}, {row.place}: the split of {row.image} is {row.split!r}, and "
                f"{label!r} is a label; separate labels by ';', or name the split otherwise"
            )


def _same_id(first: tuple[Listing, Row], second: tuple[Listing, Row], sample_id: str) -> str:
    (one, row), (other, last) = first, second
    where = f"{one.path}, {both(row.unit, row.line, last.line)}"
    if one is not other:
        where = f"{one.path}, {row.place}, and {other.path}, {last.place}"
    return f"{where}: both images would be written as {sample_id}.png; rename one"


def _mask_tags(mask: Path | None, classes: int, where: str) -> tuple[int, ...]:
    if mask is None:
        raise UserError(f"{where}: has no mask to take its tags from; add it, or use the table")
    values = set(np.unique(read_labels(mask)).tolist()) - {0, ignore_index(classes)}
    if values and max(values) > classes:
        raise UserError(
            f"{mask}: holds the value {max(values)}, but there are {classes} classes; correct the "
            "mask or the class list"
        )
    return tuple(sorted(value - 1 for value in values))


def _normal(root: Path, names: Sequence[str]) -> tuple[str, ...]:
    normal = [name for name in names if name.casefold() in NORMAL]
    # Often 0 stands for "none" in such tables, and nothing in the table can tell.
    if all(map(is_number, names)):
        zero = next((name for name in names if not float(name)), "0")
        return (
            f"{root}: the labels are numbers ({', '.join(names[:3])}), and each counts as a class; "
            f'if one says that there is none, set dataset.background to it, as ["{zero}"]',
        )
    if not normal:
        return ()
    return (
        f"{root}: the label {normal[0]} counts as a class; if its images show none of the "
        f"classes, set dataset.background to [{normal[0]}]",
    )


def _unlisted(root: Path, samples: Sequence[Sample], lists: str) -> tuple[str, ...]:
    """Note image files without a row and masks without an image: that may not be meant."""
    # As text, which takes a fifth of a path's memory.
    listed = {str(path) for sample in samples for path in (sample.image, sample.mask)}
    # Without images/ the walk goes through the root, where an earlier run's folder may lie too.
    folder = root / "images" if (root / "images").is_dir() else root
    masks = root / "masks"
    found: dict[str, list[Path]] = defaultdict(list)
    for path in walk_files(folder, RUN_FILES):
        if is_image_name(path) and str(path) not in listed and not path.is_relative_to(masks):
            found[f"image files have no row in {lists} and are left out"].append(path)
    for path in walk_files(masks):
        if is_image_name(path) and str(path) not in listed:
            found["files in masks/ are no image's mask (<image's name>.png)"].append(path)
    return tuple(
        f"{root}: {len(paths)} {why}, {paths[0].relative_to(root)} first"
        for why, paths in found.items()
    )
