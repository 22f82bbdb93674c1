"""COCO folders: images, and annotations/instances_*.json or panoptic_*.json."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affinitynet.data.coco_file import load_annotations
from affinitynet.data.coco_masks import panoptic_folder
from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.data.table import DEFAULT_SPLIT
from affinitynet.data.tags import class_index, class_names, look_alikes, tag_indices
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative


def annotation_files(root: Path) -> dict[str, Path]:
    """Image folder (``train2014``) -> annotation file; instances before panoptic.

    ``instances.json`` stands for a folder without a name.
    """
    found: dict[str, Path] = {}
    for kind in ("instances", "panoptic"):
        for path in sorted((root / "annotations").glob(f"{kind}*.json")):
            found.setdefault(path.stem.removeprefix(kind).lstrip("_"), path)
    return found


def read_coco(root: Path, classes: Sequence[str] | None, tags: str) -> Manifest:
    """Read a COCO folder: the categories of an image's annotations are its tags.

    Splits are named after the annotation files without the year (``instances_train2014.json``:
    train). Without a class list the classes are all categories in the order of their ids. Images
    without annotations have no tags. The ground truth of an image is in the panoptic file where
    its PNGs are there too, else in the instances file (in neither where that has only boxes);
    `load_truth` renders it. Images lie in ``train2014/``, ``images/train2014/``, ``images/`` or the
    root. A file none of whose images is there is left out with a note; a single missing image
    raises UserError.
    """
    if tags not in ("auto", "annotations"):
        raise UserError(f"A COCO data set has its tags in its annotations, not in {tags!r}.")
    files = annotation_files(root)
    if not files:
        raise UserError(f"{root} has no annotations/instances_*.json.")
    contents = {folder: load_annotations(path) for folder, path in files.items()}
    categories = _categories(contents, files)
    names = class_names(root, classes, categories.values())

    notes: list[str] = []
    found: dict[str, list[tuple[str, Path, dict[str, Any]]]] = {}
    for folder, content in contents.items():
        images = _find_images(root, folder, files[folder], content["images"])
        if images is None:
            notes.append(f"{files[folder].name} is left out: none of its images is there.")
        else:
            found[folder] = images
    stems = [stem for images in found.values() for stem, _, _ in images]
    clash = len(set(stems)) < len(stems)
    years = {re.sub(r"_?\d{4}$", "", folder) for folder in found}
    index = class_index(names)
    splits = {}
    for folder, images in found.items():
        split = re.sub(r"_?\d{4}$", "", folder) if len(years) == len(found) else folder
        split = split or DEFAULT_SPLIT
        tags_of = _tags_of(contents[folder], categories)
        truth = _truth_file(root, folder, files[folder], contents[folder]["annotations"])
        if truth is None:
            notes.append(f"{files[folder].name} has boxes only: {split} has no ground truth.")
        splits[split] = tuple(
            Sample(
                id=f"{split}/{stem}" if clash else stem,
                image=path,
                tags=tag_indices(tags_of.get(entry["id"], ()), index, path.name),
                mask=truth,
            )
            for stem, path, entry in images
        )
    return Manifest(root=root, classes=names, splits=splits, notes=(*notes, *look_alikes(names)))


def _categories(contents: dict[str, dict[str, Any]], files: dict[str, Path]) -> dict[int, str]:
    """Category id -> name over all files, in the order of the ids; stuff is left out."""
    categories: dict[int, str] = {}
    ids: dict[str, int] = {}
    for folder, content in contents.items():
        for entry in content["categories"]:
            if not entry.get("isthing", 1):
                continue
            name = categories.setdefault(entry["id"], entry["name"])
            if name != entry["name"]:
                raise UserError(
                    f"The category {entry['id']} is {entry['name']!r} in {files[folder]} but "
                    f"{name!r} in another annotation file: give them one list of categories."
                )
            if ids.setdefault(name, entry["id"]) != entry["id"]:
                raise UserError(
                    f"{files[folder]}: the categories {ids[name]} and {entry['id']} are both named "
                    f"{name!r}."
                )
    return dict(sorted(categories.items()))


def _find_images(
    root: Path, folder: str, file: Path, entries: list[dict[str, Any]]
) -> list[tuple[str, Path, dict[str, Any]]] | None:
    """(path without extension, image, entry) for each image; None where no image is there."""
    for entry in entries:
        check_relative(entry["file_name"], f"{file}: the image")
    bases = (root / folder, root / "images" / folder, root / "images", root)
    for base in bases if entries else ():
        if any((base / entry["file_name"]).is_file() for entry in entries):
            break
    else:
        return None
    missing = [e["file_name"] for e in entries if not (base / e["file_name"]).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} images of {file.name} are not in {base}, {missing[0]} first: complete "
            "the download, or take them out of the annotation file."
        )
    return [(e["file_name"].rpartition(".")[0], base / e["file_name"], e) for e in entries]


def _tags_of(content: dict[str, Any], categories: dict[int, str]) -> dict[int, set[str]]:
    """Image id -> names of the categories its annotations have."""
    tags: dict[int, set[str]] = {}
    for item in content["annotations"]:
        for segment in item.get("segments_info", [item]):
            name = categories.get(segment["category_id"])
            if name is not None:
                tags.setdefault(item["image_id"], set()).add(name)
    return tags


def _truth_file(
    root: Path, folder: str, tags_file: Path, annotations: list[dict[str, Any]]
) -> Path | None:
    panoptic = root / "annotations" / f"panoptic_{folder}.json"
    if panoptic.is_file() and panoptic_folder(panoptic) is not None:
        return panoptic
    outlined = any(item.get("segmentation") or "segments_info" in item for item in annotations)
    return tags_file if outlined or not annotations else None
