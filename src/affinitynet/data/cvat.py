"""CVAT's XML ("CVAT for images 1.1"): the tags of each image."""

from pathlib import Path

from affinitynet.data.names import compose
from affinitynet.data.rows import Listing, Row
from affinitynet.data.xml_file import parse_xml
from affinitynet.errors import UserError

SHAPES = ("box", "polygon", "polyline", "points", "mask", "cuboid", "ellipse", "skeleton")


def read_cvat(path: Path) -> Listing:
    """Read an annotation file of CVAT: an image's tags are its labels, its subset is its split.

    Where no image has a tag, the labels of its shapes say what it shows. The classes are the
    labels of the project or task, in its order.

    Raises:
        UserError: the file is no XML, none of CVAT's images, declares entities; an image has no
            name or a tag no label; names the entry.
    """
    root = parse_xml(path, "which CVAT never does; export it again", "export it again")
    images = root.findall("image") if root.tag == "annotations" else []
    if not images:
        what = "tracks of a video" if root.find("track") is not None else "no images"
        raise UserError(
            f"{path}: has {what}, but CVAT's images are needed; export it as 'CVAT for images 1.1'"
        )
    # Asked of the file, not of each image: beside tagged images, one without a tag says none.
    tagged = any(image.find("tag") is not None for image in images)
    rows = []
    shapes = 0
    for number, image in enumerate(images, 1):
        where = f"{path}, entry {number}"
        name = (image.get("name") or "").strip()
        if not name:
            raise UserError(f"{where}: names no image; export the task again")
        marks = [mark for mark in image if mark.tag in (("tag",) if tagged else SHAPES)]
        labels = [(mark.get("label") or "").strip() for mark in marks]
        if not all(labels):
            raise UserError(
                f"{where} ({name}): has a {marks[labels.index('')].tag} without a label; "
                "export the task again"
            )
        shapes += tagged and any(mark.tag in SHAPES for mark in image)
        split = (image.get("subset") or "").strip()
        # "default" is the subset of images for which nobody chose one.
        split = "" if split.casefold() == "default" else split
        rows.append(Row(number, name, tuple(dict.fromkeys(labels)), split, unit="entry"))
    notes = []
    if shapes:
        notes.append(f"{path.name}: {shapes} images have shapes beside tags, which are not read")
    if without := [row.image for row in rows if not row.labels]:
        notes.append(
            f"{path.name}: {len(without)} images have no {'tag' if tagged else 'shape'} and count "
            f"as background only, {without[0]} first"
        )
    classes = [
        compose(label.findtext("name", "").strip())
        # At any depth: they stand in the task's part of an export, or in the project's.
        for label in root.iter("label")
        if label.find("name") is not None
    ]
    kind = "tags of images" if tagged else "labels of shapes (no image has a tag)"
    said = f"{path.name}: CVAT's {kind}"
    return Listing(path, rows, said, tuple(notes), tuple(dict.fromkeys(filter(None, classes))))
