"""Read a data set in any of the layouts that AffinityNet knows."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from affinitynet.data.coco import annotation_files, read_coco
from affinitynet.data.folder import class_folders, read_folder
from affinitynet.data.manifest import Manifest
from affinitynet.data.table import TABLE, read_table
from affinitynet.data.voc import read_voc, voc_root
from affinitynet.errors import UserError

READERS: dict[str, Callable[[Path, Sequence[str] | None, str], Manifest]] = {
    "voc": read_voc,
    "coco": read_coco,
    "table": read_table,
    "folder": read_folder,
}


def read_dataset(
    root: Path | str,
    *,
    format: str = "auto",
    classes: Sequence[str] | None = None,
    tags: str = "auto",
) -> Manifest:
    """Read what a data set folder holds; no image is decoded.

    format: "voc" (devkit), "coco" (annotations/instances*.json), "table" (labels.csv and images)
        or "folder" (one folder per class); "auto" recognises which.
    classes: the class list, which fixes the order; without it ``classes.txt`` in the folder, else
        what the tags name.
    tags: where tags come from, in layouts with several sources: "table", "annotations", "masks";
        "auto" takes the first that is there.

    Raises UserError, naming folder, file, image or tag, for anything that is missing or unknown.
    """
    # Not resolved: a data set may be put together from symbolic links.
    folder = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100
    if not folder.is_dir():
        raise UserError(f"There is no data set folder {folder}.")
    if format == "auto":
        format = detect_format(folder)
    if format not in READERS:
        raise UserError(f"format is 'auto', {', '.join(map(repr, READERS))}, not {format!r}.")
    return READERS[format](folder, classes, tags)


def detect_format(root: Path) -> str:
    """Name of the layout of a folder; UserError, naming the layouts, where none fits."""
    if voc_root(root) is not None:
        return "voc"
    if annotation_files(root):
        return "coco"
    if (root / TABLE).is_file():
        return "table"
    if class_folders(root):
        return "folder"
    empty = "is empty" if not any(root.iterdir()) else "is in no layout that AffinityNet knows"
    raise UserError(
        f"{root} {empty}: it needs images/ and {TABLE}, one folder of images per class, a VOC "
        "devkit (JPEGImages, ImageSets) or COCO's annotations/instances_*.json."
    )
