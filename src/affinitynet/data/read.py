"""Read a data set in any of the layouts that AffinityNet knows."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from affinitynet.data.coco import annotation_files, read_coco
from affinitynet.data.cvat import read_cvat
from affinitynet.data.folder import ClassFolders, check_no_run, class_folders, read_folder
from affinitynet.data.images import is_hidden, is_image_name, walk_files
from affinitynet.data.label_studio import read_label_studio
from affinitynet.data.manifest import Manifest
from affinitynet.data.mvtec import is_mvtec, mvtec_sets, read_mvtec
from affinitynet.data.names import compose
from affinitynet.data.rows import TABLE, Listing, read_rows
from affinitynet.data.splits import known_split
from affinitynet.data.table import read_listings
from affinitynet.data.tag_files import TagFile, TagFiles, as_tag_file, find_tag_files
from affinitynet.data.tags import is_background, is_void, known_names
from affinitynet.data.voc import read_voc, voc_root
from affinitynet.errors import UserError
from affinitynet.run_folder.urls import is_url

FOLDERS: dict[str, Callable[..., Manifest]] = {
    "voc": read_voc,
    "folder": read_folder,
    "mvtec": read_mvtec,
}
FILES: dict[str, Callable[..., Listing]] = {
    "table": read_rows,
    "labelstudio": lambda path, known: read_label_studio(path),
    "cvat": lambda path, known: read_cvat(path),
}
FORMATS = ("voc", "coco", "table", "folder", "labelstudio", "cvat", "mvtec")
WITH_BACKGROUND = ("table", "folder", "labelstudio", "cvat", "mvtec")
_SHOWN = 5  # files that are not read
_NEEDS = (
    f"it needs images and {TABLE} (or another table, an export of Label Studio, CVAT or COCO), one "
    "folder of images per class, MVTec's layout or a VOC devkit (JPEGImages, ImageSets)"
)


def read_dataset(
    root: Path | str,
    *,
    format: str = "auto",
    classes: Sequence[str] | None = None,
    tags: str = "auto",
    background: Sequence[str] = (),
    images: str | None = None,
) -> Manifest:
    """Read what a data set holds; no image is decoded.

    root: its folder, or the file that lists the tags.
    format: "voc" (devkit), "coco" (annotations), "table" (CSV in its kinds, JSON lines), "folder"
        (one folder per class), "labelstudio", "cvat" or "mvtec"; "auto" recognizes which.
    classes: the class list, which fixes the order; without it ``classes.txt`` in the folder, else
        what the tags name.
    tags: where tags come from, in layouts with several sources: "table", "annotations", "masks";
        "auto" takes the first that is there.
    background: names of folders or labels that are no class: images that show none of the classes.
    images: a URL below which the images of a table lie; None: they lie in the folder.

    Raises:
        UserError: anything is missing, unknown or ambiguous; names folder, file, image or tag.
    """
    if images and not is_url(images):
        raise UserError(f"dataset.images = {images!r}: a URL is written as s3://bucket/folder")
    # Not resolved: a data set may be put together from symbolic links.
    folder = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100
    if format not in ("auto", *FORMATS):
        raise UserError(f"format = {format!r}: must be auto, {', '.join(FORMATS)}")
    given = folder if folder.is_file() else None
    if given is not None:
        file = as_tag_file(given, format)
        folder, format = file.path.parent if images else _root_of(file), file.format
        found = TagFiles((file,), {})
    elif not folder.is_dir():
        raise UserError(f"{folder}: there is no such data set folder")
    else:
        format = detect_format(folder, classes) if format == "auto" else format
        found = _files_of(folder, format)
    if background and format not in WITH_BACKGROUND:
        raise UserError(
            f"dataset.background: {folder} is of the layout {format}; only {TABLE}, exports of "
            "tags and folders name the background"
        )
    if images and format != "table":
        raise UserError(
            f"dataset.images: {folder} is of the layout {format}; only a table ({TABLE}) names "
            "images that lie behind a URL"
        )
    manifest = _read(folder, format, found, classes, tags, tuple(background), images or "")
    notes = [f"{path.relative_to(folder)} is not read: {why}" for path, why in found.unread.items()]
    if len(notes) > _SHOWN:
        notes = [*notes[:_SHOWN], f"{len(notes) - _SHOWN} more files are not read"]
    return replace(manifest, layout=format, notes=(*manifest.notes, *notes))


def detect_format(root: Path, classes: Sequence[str] | None = None) -> str:
    """Name the layout of a folder.

    Raises:
        UserError: none fits, with what was found instead, or two do.
    """
    # By names of files first: the search of tag files opens them, and class folders need a walk
    # over all images.
    if layout := _layout_by_files(root):
        return layout
    check_no_run(root)
    folders = [p for p in root.iterdir() if p.is_dir() and not is_hidden(p.name)]
    if len(folders) == 1 and (_layout_by_files(folders[0]) or is_mvtec(folders[0])):
        raise UserError(f"{root}: the data set is in {folders[0].name}; give that folder")
    if sets := mvtec_sets(root):
        raise UserError(
            f"{root}: holds data sets in MVTec's layout ({', '.join(sets[:3])}); give one's folder"
        )
    found = find_tag_files(root)
    known = known_names(root, classes)
    sorted_images = class_folders(root, known)
    # Folders may be by date or camera, so a file of tags comes before them.
    if found.files:
        _check_rival(root, found.files, sorted_images, known)
        return found.files[0].format
    if sorted_images.splits and (_class_names(sorted_images) or not found.unread):
        return "folder"
    if not any(root.iterdir()):
        raise UserError(f"{root}: is empty; {_NEEDS}")
    unread = [
        f"{path.relative_to(root)} may hold tags, but is not read ({why})"
        for path, why in found.unread.items()
    ]
    others = [
        p.name for p in root.iterdir() if p.suffix.lower() in (".xlsx", ".xls", ".ods", ".parquet")
    ]
    unread += [f"{name} may hold tags, but is not read; save it as CSV" for name in sorted(others)]
    if any(is_image_name(path) for path in walk_files(root)):
        raise UserError(
            f"{root}: has images, but no tags in a form that AffinityNet knows"
            f"{''.join(f'; {said}' for said in unread[:3])}; "
            f"give them as {TABLE} with the columns image,labels (labels separated by ';')"
        )
    raise UserError(
        f"{root}: is in no layout that AffinityNet knows{''.join(f'; {u}' for u in unread[:3])}; "
        f"{_NEEDS}"
    )


def _layout_by_files(root: Path) -> str | None:
    """Name the layout that a folder shows by the names of its files."""
    if voc_root(root) is not None:
        return "voc"
    coco, table = bool(annotation_files(root)), (root / TABLE).is_file()
    if coco and table:
        raise UserError(
            f"{root}: {TABLE} (table) and annotations/ (coco) may hold the tags; name one of the "
            "two by --format (dataset.format in a recipe)"
        )
    if coco:
        return "coco"
    if table:
        return "table"
    return "mvtec" if is_mvtec(root) else None


def _check_rival(
    root: Path, files: Sequence[TagFile], found: ClassFolders, known: frozenset[str]
) -> None:
    """Refuse a data set whose folders are classes as well as the labels of its tag file.

    Folders by date or place, whose names are no labels, are folders only.
    """
    names = _class_names(found)
    # COCO's reader makes a manifest, not rows, so it is not among FILES.
    if not names or files[0].format == "coco":
        return
    listed = {
        compose(label)
        for file in files
        for row in FILES[file.format](file.path, known).rows
        for label in row.labels
    }
    if both := sorted(names & listed):
        named = " and ".join(str(file.path.relative_to(root)) for file in files[:2])
        raise UserError(
            f"{root}: {named} ({files[0].format}) and folders named after classes ({both[0]}, "
            f"folder) may hold the tags; name one of the two by --format (dataset.format in a "
            "recipe)"
        )


def _class_names(found: ClassFolders) -> set[str]:
    """Return the folders' names where they tell images apart, none where they don't."""
    names = {compose(n) for n in found.classes if not (is_background(n) or is_void(n))}
    alone = len(names) < 2 and len(found.classes) == len(names)
    return set() if alone or all(known_split(name) for name in names) else names


def _files_of(root: Path, format: str) -> TagFiles:
    """Find the tag files of a layout.

    Raises:
        UserError: there is none, though the layout was given.
    """
    if format in FILES:
        found, table = find_tag_files(root, format), root / TABLE
        # It is taken whatever is in it and beside it: its reader says what is wrong with it.
        if format == "table" and table.is_file() and all(f.path != table for f in found.files):
            others = {file.path: f"{TABLE} is there" for file in found.files}
            unread = {path: why for path, why in found.unread.items() if path != table}
            return TagFiles((TagFile(table, "table"),), unread | others)
        if not found.files:
            faults = (f"; {p.relative_to(root)}: {why}" for p, why in found.unread.items())
            raise UserError(
                f"{root}: has no tags of the format {format}{''.join(list(faults)[:3])}; add them, "
                "or leave the format out"
            )
        return found
    if format == "coco" and not annotation_files(root):
        return find_tag_files(root, format)
    return TagFiles((), {})


def _read(
    root: Path,
    format: str,
    found: TagFiles,
    classes: Sequence[str] | None,
    tags: str,
    background: tuple[str, ...],
    images: str,
) -> Manifest:
    if format == "coco":
        files = {file.split: file.path for file in found.files}
        return read_coco(root, classes, tags, files)
    if format in FOLDERS:
        return FOLDERS[format](root, classes, tags, *([background] if background else []))
    known = known_names(root, classes)
    listings = []
    for file in found.files:
        listing = FILES[format](file.path, known)
        # The reader sees one file; which split it is, its name or folder says.
        listings.append(replace(listing, split=file.split, base=file.path.parent))
    return read_listings(root, listings, classes, tags, background, images)


def _root_of(file: TagFile) -> Path:
    """Return the folder of the data set whose tag file was given: images lie below it.

    It is the file's own, else the one around it (``meta/tags.csv`` beside ``images/``).
    """
    own = file.path.parent
    return own if any(is_image_name(path) for path in walk_files(own)) else own.parent
