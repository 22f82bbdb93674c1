"""COCO annotation files: read once and checked, so that what reads them can rely on their keys."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

from affinitynet.data.names import Files
from affinitynet.data.text import read_text
from affinitynet.errors import UserError

Kind = type | tuple[type, ...]

_ID = (int, str)
_NEEDED: dict[str, dict[str, Kind]] = {
    "images": {"id": _ID, "file_name": str},
    "categories": {"id": int, "name": str},
    "annotations": {"image_id": _ID},
}
# Neither bbox nor segmentation is needed: the category alone is a tag.
_INSTANCE: dict[str, Kind] = {"category_id": int}
_PANOPTIC: dict[str, Kind] = {"file_name": str, "segments_info": list}
_SEGMENT: dict[str, Kind] = {"id": int, "category_id": int}


def load_annotations(path: Path) -> dict[str, Any]:
    """Read a COCO annotation file: lists of images, annotations and categories.

    Raises:
        UserError: one of the lists is missing, an entry lacks a key or has a value of another kind,
            two images have one id or one name, an annotation's category is not listed; names file
            and entry.
    """
    try:
        content = json.loads(read_text(path))
    # RecursionError is what the json module raises at brackets nested too deep.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not valid JSON ({error}); write it again") from error
    if not isinstance(content, dict) or any(not isinstance(content.get(k), list) for k in _NEEDED):
        raise UserError(f"{path}: is no COCO annotation file (it needs lists {', '.join(_NEEDED)})")
    for kind, keys in _NEEDED.items():
        for number, entry in enumerate(content[kind]):
            _check(entry, keys, f"{path}, {kind}[{number}]")
    for key in ("id", "file_name"):
        _check_unique(path, content["images"], key)
    known = {entry["id"] for entry in content["categories"]}
    for number, item in enumerate(content["annotations"]):
        _check_annotation(item, known, f"{path}, annotations[{number}]")
    return content


def find_base(root: Path, folder: str, entries: list[dict[str, Any]], files: Files) -> Path | None:
    """Return the folder that file names are relative to, the first that has one of the images."""
    places = (root / folder, root / "images" / folder, root / "images", root)
    # data/ is FiftyOne's; any other folder may be one's own.
    others = (path for path in sorted(root.iterdir()) if path.is_dir() and path not in places)
    for base in chain(places, others):
        if any(files.find(base, entry["file_name"]) is not None for entry in entries):
            return base
    return None


def _check_unique(path: Path, entries: list[dict[str, Any]], key: str) -> None:
    first: dict[Any, int] = {}
    for number, entry in enumerate(entries):
        other = first.setdefault(entry[key], number)
        if other != number:
            raise UserError(
                f"{path}: images[{other}] and images[{number}] both have {key} = {entry[key]!r}; "
                "give each image its own"
            )


def _check_annotation(item: dict[str, Any], known: set[int], where: str) -> None:
    panoptic = "segments_info" in item
    _check(item, _PANOPTIC if panoptic else _INSTANCE, where)
    for segment in item["segments_info"] if panoptic else (item,):
        if panoptic:
            _check(segment, _SEGMENT, where)
        if segment["category_id"] not in known:
            raise UserError(
                f"{where}: the category {segment['category_id']} is not listed; add it to "
                "categories"
            )


def _check(entry: Any, keys: dict[str, Kind], where: str) -> None:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: is no JSON object; correct the annotation file")
    for key, kind in keys.items():
        value = entry.get(key)
        # In Python a bool is an int: true would pass as the id 1.
        if not isinstance(value, kind) or isinstance(value, bool):
            said = f"{key} = {value!r:.60}" if key in entry else f"no {key}"
            raise UserError(f"{where}: has {said}; correct the annotation file")
