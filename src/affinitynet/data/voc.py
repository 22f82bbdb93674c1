"""PASCAL VOC development kit folders, the original ones and one's own in that layout."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import ParseError

import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from affinitynet.data.images import IMAGE_SUFFIXES, is_image_name
from affinitynet.data.labels import ignore_index, read_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.data.table import TABLE, Row, read_rows
from affinitynet.data.tags import class_index, class_names, look_alikes, tag_indices
from affinitynet.data.text import read_lines
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""VOC's twenty names; the value in a mask is the place in this list + 1."""

MASKS = "SegmentationClass"
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
    are VOC's own names, as many as occur, in VOC's order; a class list of one's own names means
    masks with the values 0, 1 ... C in its order.

    A list none of whose images has tags (VOC's test list) is left out with a note. Raises
    UserError for listed images that are missing or there twice (``a.jpg`` and ``a.png``), images
    without tags in a list where others have some, and tags that are not in the class list.
    """
    found_root = voc_root(root)
    if found_root is None:
        raise UserError(f"{root} is no VOC folder: it has no JPEGImages and ImageSets.")
    root = found_root
    lists = _lists(root)
    names = None if classes is None else class_names(root, classes)
    if names is None and (root / "classes.txt").is_file():
        names = class_names(root, None)
    source, tags_of, notes = _tag_source(root, tags, VOC_CLASSES if names is None else names)

    tags_by_id = {i: tags_of(i) for i in dict.fromkeys(i for ids in lists.values() for i in ids)}
    for name, ids in list(lists.items()):
        without = [i for i in ids if tags_by_id[i] is None]
        if ids and len(without) == len(ids):
            notes += (f"The list {name} is left out: none of its images has tags in {source}.",)
            del lists[name]
        elif without:
            raise UserError(
                f"{len(without)} images of the list {name} have no tags in {source}, "
                f"{without[0]} first: add them there or take them out of the list."
            )
    if names is None:
        occurring = {tag for found in tags_by_id.values() for tag in found or ()}
        _check_voc_names(tags_by_id, source)
        names = tuple(name for name in VOC_CLASSES if name in occurring)

    index = class_index(names)
    tagged = {i: found for i, found in tags_by_id.items() if found is not None}
    images = _images(root, tagged)
    samples = {
        i: Sample(i, images[i], tag_indices(found, index, f"{i} ({source})"), _mask(root, i))
        for i, found in tagged.items()
    }
    return Manifest(
        root=root,
        classes=names,
        splits={name: tuple(samples[i] for i in ids) for name, ids in lists.items()},
        truth_values=_truth_values(names),
        notes=(*notes, *look_alikes(names)),
    )


def _lists(root: Path) -> dict[str, list[str]]:
    """Split name -> ids, from the lists of one id a line.

    Lines may also be paths (``/JPEGImages/x.jpg /SegmentationClass/x.png``), as published for
    train_aug. The per-class lists of Main (two columns, ``x -1``) are no splits.
    """
    for folder in (root / "ImageSets" / "Segmentation", root / "ImageSets" / "Main"):
        lists: dict[str, list[str]] = {}
        for path in sorted(folder.glob("*.txt")):
            lines = [line.split() for line in read_lines(path)]
            if any(len(cells) == 2 and cells[1] in ("-1", "0", "1") for cells in lines):
                continue
            ids = [_listed_id(cells[0]) for cells in lines]
            for sample_id in ids:
                check_relative(sample_id, f"{path}: the image")
            lists[path.stem] = list(dict.fromkeys(ids))
        if any(lists.values()):
            return lists
    raise UserError(
        f"{root} has no list of images: put one as ImageSets/Segmentation/train.txt, one id a line."
    )


def _listed_id(cell: str) -> str:
    path = cell.lstrip("/").removeprefix("JPEGImages/")
    suffix = PurePosixPath(path).suffix
    return path.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else path


def _images(root: Path, ids: Iterable[str]) -> dict[str, Path]:
    """Id -> image file, for the ids given; UserError where an id has no file, or several."""
    base = root / "JPEGImages"
    found: dict[str, list[Path]] = defaultdict(list)
    # Listing a folder costs less than looking each id up with each suffix.
    for folder in {(base / sample_id).parent for sample_id in ids}:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if is_image_name(path):
                found[path.relative_to(base).with_suffix("").as_posix()].append(path)
    for sample_id in ids:
        files = found[sample_id]
        if not files:
            raise UserError(f"A list in {root / 'ImageSets'} names {sample_id}: no such image.")
        if len(files) > 1:
            raise UserError(
                f"{base} has both {files[0].name} and {files[1].name} for {sample_id}: rename one."
            )
    return {sample_id: found[sample_id][0] for sample_id in ids}


def _mask(root: Path, sample_id: str) -> Path | None:
    for folder in (MASKS, SBD_MASKS):
        path = root / folder / f"{sample_id}.png"
        if path.is_file():
            return path
    return None


def _tag_source(
    root: Path, tags: str, classes: Sequence[str]
) -> tuple[str, Callable[[str], tuple[str, ...] | None], tuple[str, ...]]:
    """The source's name for messages, a function id -> tags (None where it has none), and notes."""
    places = {"table": (TABLE,), "annotations": ("Annotations",), "masks": (MASKS, SBD_MASKS)}
    if tags != "auto" and tags not in places:
        raise UserError(f"tags is 'auto', 'table', 'annotations' or 'masks', not {tags!r}.")
    wanted = places if tags == "auto" else {tags: places[tags]}
    there = [kind for kind, names in wanted.items() if any((root / n).exists() for n in names)]
    if not there:
        missing = ", ".join(name for names in wanted.values() for name in names)
        raise UserError(f"{root} has nothing to take tags from: there is no {missing}.")
    if there[0] == "table":
        rows, notes = read_rows(root / TABLE)
        return TABLE, _tags_by_id(rows, root / TABLE).get, notes
    if there[0] == "annotations":
        return "Annotations", lambda sample_id: _xml_tags(root / "Annotations", sample_id), ()
    return "the masks", lambda sample_id: _mask_tags(_mask(root, sample_id), classes), ()


def _tags_by_id(rows: Iterable[Row], table: Path) -> dict[str, tuple[str, ...]]:
    tags: dict[str, tuple[str, ...]] = {}
    for row in rows:
        sample_id = _listed_id(row.image)
        if sample_id in tags:
            raise UserError(f"{table}, line {row.line}: a line before has tags of {sample_id} too.")
        tags[sample_id] = row.labels
    return tags


def _xml_tags(folder: Path, sample_id: str) -> tuple[str, ...] | None:
    path = folder / f"{sample_id}.xml"
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from error
    try:
        # Entities can blow a small file up to gigabytes; no VOC annotation declares any.
        objects = fromstring(content, forbid_dtd=True).findall("object")
    except DefusedXmlException as error:
        raise UserError(
            f"{path} declares XML entities, which no VOC annotation needs: remove it"
        ) from error
    # An encoding that the parser doesn't know is a ValueError or a LookupError.
    except (ParseError, ValueError, LookupError) as error:
        raise UserError(f"{path} is not valid XML ({error}): save it as UTF-8") from error
    return tuple(dict.fromkeys((item.findtext("name") or "").strip() for item in objects))


def _mask_tags(mask: Path | None, classes: Sequence[str]) -> tuple[str, ...] | None:
    if mask is None:
        return None
    values = _truth_values(classes) or {i: i for i in range(len(classes) + 1)}
    void = ignore_index(len(classes))
    tags = []
    for value in np.unique(read_labels(mask)).tolist():
        if value not in values and value != void:
            raise UserError(
                f"{mask} holds the value {value}, which stands for none of the "
                f"{len(classes)} classes."
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
