"""Read a data set in any of the layouts that AffinityNet knows."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from affinitynet.data.coco import annotation_files, read_coco
from affinitynet.data.folder import check_no_run, class_folders, read_folder, tag_lists
from affinitynet.data.images import is_hidden, is_image_name
from affinitynet.data.manifest import Manifest
from affinitynet.data.rows import TABLE
from affinitynet.data.table import read_table
from affinitynet.data.tags import known_names
from affinitynet.data.voc import read_voc, voc_root
from affinitynet.errors import UserError

READERS: dict[str, Callable[..., Manifest]] = {
    "voc": read_voc,
    "coco": read_coco,
    "table": read_table,
    "folder": read_folder,
}
WITH_BACKGROUND = ("table", "folder")
_NEEDS = (
    f"it needs images/ and {TABLE}, one folder of images per class, a VOC devkit (JPEGImages, "
    "ImageSets) or COCO's annotations/instances_*.json"
)


def read_dataset(
    root: Path | str,
    *,
    format: str = "auto",
    classes: Sequence[str] | None = None,
    tags: str = "auto",
    background: Sequence[str] = (),
) -> Manifest:
    """Read what a data set folder holds; no image is decoded.

    format: "voc" (devkit), "coco" (annotations/instances*.json), "table" (labels.csv and images)
        or "folder" (one folder per class); "auto" recognizes which.
    classes: the class list, which fixes the order; without it ``classes.txt`` in the folder, else
        what the tags name.
    tags: where tags come from, in layouts with several sources: "table", "annotations", "masks";
        "auto" takes the first that is there.
    background: names of folders or labels that are no class: images that show none of the classes.

    Raises:
        UserError: anything is missing or unknown; names folder, file, image or tag.
    """
    # Not resolved: a data set may be put together from symbolic links.
    folder = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such data set folder")
    if format == "auto":
        format = detect_format(folder, classes)
    if format not in READERS:
        raise UserError(f"format = {format!r}: must be auto, {', '.join(READERS)}")
    if not background:
        return READERS[format](folder, classes, tags)
    if format not in WITH_BACKGROUND:
        raise UserError(
            f"dataset.background: {folder} is of the layout {format}; only {TABLE} and class "
            "folders name the background"
        )
    return READERS[format](folder, classes, tags, background)


def detect_format(root: Path, classes: Sequence[str] | None = None) -> str:
    """Name the layout of a folder.

    Raises:
        UserError: none fits, with what was found instead.
    """
    if layout := _layout_by_files(root):
        return layout
    check_no_run(root)
    folders = [p for p in root.iterdir() if p.is_dir() and not is_hidden(p.name)]
    if len(folders) == 1 and _layout_by_files(folders[0]):
        raise UserError(f"{root}: the data set is in {folders[0].name}; give that folder")
    if class_folders(root, known_names(root, classes)).splits:
        return "folder"
    if not any(root.iterdir()):
        raise UserError(f"{root}: is empty; {_NEEDS}")
    if any(is_image_name(p) for f in (root, *folders) for p in f.iterdir()):
        raise UserError(
            f"{root}: has images, but no tags in a form that AffinityNet knows{tag_lists(root)}; "
            f"give them as {TABLE} with the columns image,labels (labels separated by ';')"
        )
    raise UserError(f"{root}: is in no layout that AffinityNet knows; {_NEEDS}")


def _layout_by_files(root: Path) -> str | None:
    if voc_root(root) is not None:
        return "voc"
    if annotation_files(root):
        return "coco"
    return "table" if (root / TABLE).is_file() else None
