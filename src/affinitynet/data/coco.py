"""COCO folders: images, and annotations/instances_*.json or panoptic_*.json."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from affinitynet.data.coco_file import find_base, load_annotations
from affinitynet.data.coco_masks import panoptic_folder
from affinitynet.data.manifest import Manifest
from affinitynet.data.names import Files, compose
from affinitynet.data.sample import Sample
from affinitynet.data.splits import DEFAULT_SPLIT, name_splits
from affinitynet.data.tags import (
    class_index,
    class_names,
    is_background,
    is_void,
    look_alikes,
    tag_indices,
)
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative


def annotation_files(root: Path) -> dict[str, Path]:
    """Image folder (``train2014``) -> annotation file; instances before panoptic.

    ``instances.json`` stands for a folder without a name.
    """
    found: dict[str, Path] = {}
    for kind in ("instances", "panoptic"):
        for path in sorted((root / "annotations").glob(f"{kind}*.json")):
            # The first kind stays: a folder with both gets its tags from the instances.
            found.setdefault(path.stem.removeprefix(kind).lstrip("_"), path)
    return found


def read_coco(
    root: Path, classes: Sequence[str] | None, tags: str, given: dict[str, Path] | None = None
) -> Manifest:
    """Read a COCO folder: the categories of an image's annotations are its tags.

    Splits are named after the annotation files without the year (``instances_train2014.json``:
    train). Without a class list the classes are all categories in the order of their ids. Images
    without annotations have no tags. The ground truth of an image is in the panoptic file where
    its PNGs are there too, else in the instances file (in neither where that has only boxes);
    `load_truth` renders it. Images lie in ``train2014/``, ``images/train2014/``, ``images/`` or the
    root. A file none of whose images is there is left out with a note. `given` are annotation files
    of other names by the folder of their images, as Roboflow's ``train/_annotations.coco.json``.

    Raises:
        UserError: a single image is missing, two images have one id, an annotation file is none.
    """
    if tags not in ("auto", "annotations"):
        raise UserError(f"dataset.tags = {tags}: a COCO data set has its tags in its annotations")
    files = given or annotation_files(root)
    if not files:
        raise UserError(f"{root}: has no annotations/instances_*.json")
    contents = {folder: load_annotations(path) for folder, path in files.items()}
    categories = _categories(contents, files)
    names = class_names(root, classes, categories.values())

    notes: list[str] = []
    found: dict[str, list[tuple[str, Path, dict[str, Any]]]] = {}
    for folder, content in contents.items():
        images = _find_images(root, folder, files[folder], content["images"])
        if images is None:
            # COCO's annotations come in one download for both splits, its images split by split.
            notes.append(f"{files[folder].name} is left out: none of its images is there")
        else:
            found[folder] = images
    stems = [stem for images in found.values() for stem, _, _ in images]
    # Roboflow's and one's own splits may each begin at 1.jpg; an id names one image of the run.
    clash = len(set(stems)) < len(stems)
    # With train2014 beside train2017 the years must stay: both would be called train.
    years = {re.sub(r"_?\d{4}$", "", folder) for folder in found}
    index = class_index(names)
    plain = len(years) == len(found)
    split_names = {f: (re.sub(r"_?\d{4}$", "", f) if plain else f) or DEFAULT_SPLIT for f in found}
    split_of, split_notes = name_splits(split_names.values(), str(root), unite=False)
    splits = {}
    for folder, images in found.items():
        split = split_of[split_names[folder]]
        notes += _orphans(contents[folder], files[folder])
        tags_of = _tags_of(contents[folder], categories)
        truth = _truth_file(root, folder, files[folder], contents[folder]["annotations"])
        if truth is None:
            notes.append(f"{files[folder].name} has no outlines: {split} has no ground truth")
        splits[split] = tuple(
            Sample(
                id=f"{split}/{stem}" if clash else stem,
                image=path,
                tags=tag_indices(tags_of.get(entry["id"], ()), index, path.name),
                mask=truth,
            )
            for stem, path, entry in images
        )
    notes += (*split_notes, *look_alikes(names))
    said = ", ".join(str(path.relative_to(root)) for path in files.values())
    return Manifest(
        root=root, classes=names, splits=splits, notes=tuple(notes), found=f"COCO's lists in {said}"
    )


def _categories(contents: dict[str, dict[str, Any]], files: dict[str, Path]) -> dict[int, str]:
    """Category id -> name over all files, in the order of the ids; stuff is left out."""
    categories: dict[int, str] = {}
    ids: dict[str, int] = {}
    for folder, content in contents.items():
        headings = _headings(content)
        for entry in content["categories"]:
            # Instance files have no isthing; all of their categories are things.
            if not entry.get("isthing", 1) or entry["id"] in headings:
                continue
            given = compose(entry["name"].strip())
            name = categories.setdefault(entry["id"], given)
            if name != given:
                raise UserError(
                    f"{files[folder]}: the category {entry['id']} is {given!r} here, but {name!r} "
                    "elsewhere; give all annotations one list of categories"
                )
            if ids.setdefault(name, entry["id"]) != entry["id"]:
                raise UserError(
                    f"{files[folder]}: the categories {ids[name]} and {entry['id']} are both named "
                    f"{name!r}; give them one id"
                )
    return dict(sorted(categories.items()))


def _headings(content: dict[str, Any]) -> set[int]:
    """Find categories that only group the others, as the first of Roboflow's does."""
    used = {item.get("category_id") for item in content["annotations"]}
    above = [
        entry.get("supercategory")  # of any type, as nothing else asks for it
        for entry in content["categories"]
        if entry.get("supercategory") != entry["name"]
    ]
    # A heading with an annotation is a class after all, and so is one that names itself alone.
    return {
        entry["id"]
        for entry in content["categories"]
        if entry["id"] not in used
        and entry["name"] in above
        and entry.get("supercategory") in (None, "none", entry["name"])
    }


def _find_images(
    root: Path, folder: str, file: Path, entries: list[dict[str, Any]]
) -> list[tuple[str, Path, dict[str, Any]]] | None:
    """(path without extension, image, entry) for each image; None where no image is there."""
    for entry in entries:
        check_relative(entry["file_name"], f"{file}: the image")
    names = Files()
    base = find_base(root, folder, entries, names)
    if base is None:
        return None
    paths = [names.find(base, entry["file_name"]) for entry in entries]
    missing = [e["file_name"] for e, path in zip(entries, paths, strict=True) if path is None]
    if missing:
        raise UserError(
            f"{file}: {len(missing)} of its images are not in {base}, {missing[0]} first; complete "
            "the download, or take them out of the annotation file"
        )
    return [
        (entry["file_name"].rpartition(".")[0], path, entry)
        for entry, path in zip(entries, paths, strict=True)
        if path is not None
    ]


def _tags_of(content: dict[str, Any], categories: dict[int, str]) -> dict[int | str, set[str]]:
    """Image id -> names of the categories its annotations have; background and void are none."""
    tags: dict[int | str, set[str]] = {}
    for item in content["annotations"]:
        # A panoptic annotation lists its segments; an instance is its own only one.
        for segment in item.get("segments_info", [item]):
            name = categories.get(segment["category_id"])
            if name is not None and not is_background(name) and not is_void(name):
                tags.setdefault(item["image_id"], set()).add(name)
    return tags


def _orphans(content: dict[str, Any], file: Path) -> list[str]:
    """Note annotations of images that are not listed; UserError where ids are written otherwise."""
    ids = {entry["id"] for entry in content["images"]}
    found = [item["image_id"] for item in content["annotations"]]
    orphans = [image_id for image_id in found if image_id not in ids]
    if not orphans:
        return []
    # Tools mix 12, "12" and "000012" (from the file's name). Left out silently, such images would
    # all say background only.
    alike = {str(known).lstrip("0"): known for known in ids}
    for image_id in orphans:
        known = alike.get(str(image_id).strip().lstrip("0"))
        if known is not None:
            raise UserError(
                f"{file}: annotations are of the image {image_id!r}, which is not listed, but "
                f"{known!r} is; write ids alike in images and annotations"
            )
    if len(orphans) == len(found):
        raise UserError(
            f"{file}: none of its annotations is of a listed image ({orphans[0]!r} is the first); "
            "correct image_id"
        )
    return [
        f"{file.name}: {len(orphans)} annotations are of images that are not listed and count for "
        f"nothing, image_id {orphans[0]!r} first"
    ]


def _truth_file(
    root: Path, folder: str, tags_file: Path, annotations: list[dict[str, Any]]
) -> Path | None:
    panoptic = root / "annotations" / f"panoptic_{folder}.json"
    if panoptic.is_file() and panoptic_folder(panoptic) is not None:
        return panoptic
    # Boxes alone are no ground truth, as they'd render as empty masks; without any annotation an
    # empty mask is the truth.
    outlined = any(item.get("segmentation") or "segments_info" in item for item in annotations)
    return tags_file if outlined or not annotations else None
