"""Images and a table of tags: ``labels.csv`` with the columns image, labels and maybe split."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from affinitynet.data.images import is_image_name, walk_files
from affinitynet.data.labels import ignore_index, read_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.names import Files, compose
from affinitynet.data.rows import TABLE, Row, check_labels, read_rows
from affinitynet.data.sample import Sample
from affinitynet.data.splits import name_splits
from affinitynet.data.tags import class_index, class_names, known_names, look_alikes, tag_indices
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative


def read_table(
    root: Path, classes: Sequence[str] | None, tags: str, background: Collection[str] = ()
) -> Manifest:
    """Read a folder with ``labels.csv``; its image paths are relative to it or to ``images/``.

    Splits come from the column ``split`` (an empty cell, or no such column: train). Ground truth,
    where given, is ``masks/<id>.png`` with the values 0 (background), 1 ... C and 255 (void). The
    id is the path below ``images/`` (else below the root) without its extension. An empty labels
    cell, or one of the labels `background`, says background only.

    Raises:
        UserError: missing images, ids that collide, unknown tags, a cell that is no list of labels;
            names file and line.
    """
    if tags not in ("auto", "table", "masks"):
        raise UserError(f"dataset.tags = {tags}: a labels.csv data set takes table or masks")
    table = root / TABLE
    rows, notes = read_rows(table)
    if not rows:
        raise UserError(f"{table}: lists no images; the data set is empty")
    empty = {compose(name) for name in background}
    known = known_names(root, classes)
    notes += check_labels(table, rows, known | empty)
    labels = {label for row in rows for label in row.labels if compose(label) not in empty}
    names = class_names(root, classes, sorted(labels))
    split_of, split_notes = name_splits([row.split for row in rows], str(table))
    index = class_index(names)
    files = Files()
    splits: dict[str, list[Sample]] = {}
    line_of: dict[str, int] = {}
    for row in rows:
        image = _find_image(root, row, table, files)
        sample_id = _sample_id(root, image)
        first = line_of.setdefault(sample_id, row.line)
        if first != row.line:
            raise UserError(
                f"{table}, lines {first} and {row.line}: both images would be written as "
                f"{sample_id}.png; rename one"
            )
        where = f"{table}, line {row.line} ({row.image})"
        mask = files.find(root / "masks", f"{sample_id}.png")
        if tags == "masks":
            indices = _mask_tags(mask, len(names), where)
        else:
            said = [label for label in row.labels if compose(label) not in empty]
            indices = tag_indices(said, index, where)
        splits.setdefault(split_of[row.split], []).append(Sample(sample_id, image, indices, mask))
    samples = [sample for split in splits.values() for sample in split]
    return Manifest(
        root=root,
        classes=names,
        splits={name: tuple(samples) for name, samples in splits.items()},
        notes=(*notes, *split_notes, *look_alikes(names), *_unlisted(root, samples)),
    )


def _find_image(root: Path, row: Row, table: Path, files: Files) -> Path:
    check_relative(row.image, f"{table}, line {row.line}: the image")
    for base in (root, root / "images"):
        if (path := files.find(base, row.image)) is not None:
            return path
    folded = row.image.rpartition("/")[2].casefold()
    near = (
        path.name
        for base in (root, root / "images")
        for paths in files.list((base / row.image).parent).values()
        for path in paths
        if path.name.casefold() == folded
    )
    hint = next((f"; {name} is: write it so" for name in near), "; correct its path")
    raise UserError(f"{table}, line {row.line}: there is no image {row.image} in {root}{hint}")


def _sample_id(root: Path, image: Path) -> str:
    base = root / "images"
    relative = image.relative_to(base if image.is_relative_to(base) else root)
    return relative.with_suffix("").as_posix()


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


def _unlisted(root: Path, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Note image files without a row and masks without an image: that may not be meant."""
    listed = {path for sample in samples for path in (sample.image, sample.mask)}
    folder = root / "images" if (root / "images").is_dir() else root
    masks = root / "masks"
    found: dict[str, list[Path]] = defaultdict(list)
    for path in walk_files(folder):
        if is_image_name(path) and path not in listed and not path.is_relative_to(masks):
            found[f"image files have no row in {TABLE} and are left out"].append(path)
    for path in walk_files(masks):
        if is_image_name(path) and path not in listed:
            found["files in masks/ are no image's mask (<image's name>.png)"].append(path)
    return tuple(
        f"{root}: {len(paths)} {why}, {paths[0].relative_to(root)} first"
        for why, paths in found.items()
    )
