"""One folder per class: ``cat/1.jpg``, or ``train/cat/1.jpg`` with splits."""

import os
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from affinitynet.data.copies import identical
from affinitynet.data.images import UNREAD_SUFFIXES, is_image_name, walk_files
from affinitynet.data.manifest import RUN_FILE, Manifest
from affinitynet.data.names import compose
from affinitynet.data.sample import Sample
from affinitynet.data.splits import DEFAULT_SPLIT, known_split, name_splits
from affinitynet.data.tags import (
    NORMAL,
    class_index,
    class_names,
    is_background,
    is_void,
    known_names,
    look_alikes,
    tag_indices,
)
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import RECIPE

RUN_FILES = frozenset((RECIPE, RUN_FILE))  # what every run folder holds
# Folders that say what kind of files they hold, and so are no classes.
_KINDS = (
    "images image imgs img jpegimages masks mask labels label annotations annotation gt "
    "ground_truth groundtruth segmentation segmentations segmentationclass segmentationclassaug "
    "segmentationobject"
)
KINDS = frozenset(_KINDS.split())
LISTS = (".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet")


@dataclass(frozen=True)
class ClassFolders:
    """Images by split and class, the folder that holds them, and what is not among them."""

    base: Path
    splits: dict[str, dict[str, list[Path]]]
    notes: tuple[str, ...]

    @property
    def classes(self) -> list[str]:
        """The folders' names, each once."""
        return sorted({name for classes in self.splits.values() for name in classes})


def class_folders(root: Path, known: Collection[str] = ()) -> ClassFolders:
    """Find the class folders of a data set; folders without an image are none.

    ``train/``, ``val/`` and ``test/`` (or training, validation ...) above the classes are splits, a
    single folder around all is passed through, and folders that name a kind (images, masks) are no
    classes unless they are among the `known` ones.
    """
    there = list(walk_files(root, RUN_FILES))
    files = [file for file in there if file.suffix.lower() in UNREAD_SUFFIXES]
    images = [file for file in there if is_image_name(file)]
    base = root
    # Archives wrap a data set in one folder or two of its own name.
    while inner := _single_folder(base, images, known):
        base = inner
    tops = _by_folder(base, images)
    splits = {name: below for name, below in tops.items() if _is_split(base / name, below)}
    found = {}
    for name, below in splits.items() if splits else [(DEFAULT_SPLIT, images)]:
        folders = _by_folder(base / name if splits else base, below)
        found[name] = {n: i for n, i in folders.items() if n and _is_class(n, known)}
    taken = {image for classes in found.values() for below in classes.values() for image in below}
    left = [image for image in images if image not in taken]
    notes = [_left_out(root, left, "image files are in no class folder")] if left and taken else []
    if files:
        notes.append(
            _left_out(root, files, "files are of kinds that are not read (save them as PNG)")
            + _lost_classes(base, files, taken)
        )
    return ClassFolders(base, {n: c for n, c in found.items() if c}, tuple(notes))


def read_folder(
    root: Path, classes: Sequence[str] | None, tags: str, background: Collection[str] = ()
) -> Manifest:
    """Read images sorted into one folder per class; the folder's name is the image's tag.

    ``train/``, ``val/`` and ``test/`` above the class folders are splits; without them all is
    train. Images in a folder named background, or as one of `background`, have no tags; those of a
    run folder are left out. Copies of an image in several class folders are one image with several
    tags. The id is the image's path without extension. There is no ground truth.

    Raises:
        UserError: no folder holds an image, there is only one class and every image has it, or the
            data set's folder is a run's as well.
    """
    if tags not in ("auto", "folder"):
        raise UserError(
            f"dataset.tags = {tags}: a data set of class folders has its tags in their names"
        )
    check_no_run(root)
    known = known_names(root, classes)
    found = class_folders(root, known)
    split_of, notes = name_splits(found.splits, str(root))
    empty = {compose(name) for name in background}
    tagged = [n for n in found.classes if compose(n) not in empty and not is_void(n)]
    _check_folders(root, tagged, known)
    names = class_names(root, classes, tagged)
    index = class_index(names)
    splits: dict[str, tuple[Sample, ...]] = {}
    copies = 0
    for split, folders in found.splits.items():
        tags_of: dict[Path, set[str]] = {}
        for folder, images in folders.items():
            if is_void(folder):
                continue
            plain = is_background(folder) or compose(folder) in empty
            for image in images:
                tags_of[image] = set() if plain else {folder}
        # Within one split: uniting over two would take the image out of one of them.
        copies += _unite_copies(tags_of)
        splits[split_of[split]] = _samples(found.base, tags_of, index)
    if not any(tags for split in splits.values() for tags in (s.tags for s in split)):
        raise UserError(f"{root}: no class folder holds an image, so there is nothing to learn")
    twins = _twins(found.classes)
    if len(names) == 1 and all(sample.tags for split in splits.values() for sample in split):
        raise UserError(
            f"{root}: the only class is {names[0]!r}, and every image has it, so there is nothing "
            "to tell it from; add images without it in a folder named background, or give the "
            f"tags as labels.csv (image,labels){tag_lists(root)}{''.join(f'; {t}' for t in twins)}"
        )
    if lists := tag_lists(root):
        notes += (f"{root}: the tags are the folders' names{lists}",)
    if copies:
        notes += (f"{root}: {copies} images lie in several class folders; they have all the tags",)
    # Only a note: "good" may be a class of someone's, and nothing here can tell.
    normal = [n for n in names if n.casefold() in NORMAL]
    if normal:
        notes += (
            f"{root}: the folder {normal[0]} counts as a class; if its images show none of the "
            f"classes, set dataset.background to [{normal[0]}]",
        )
    notes = (*notes, *found.notes, *twins, *_nested_splits(found), *look_alikes(names))
    said = f"{len(found.classes)} folders of images in {found.base.name}"
    said += f", below {' and '.join(found.splits)}" if list(found.splits) != ["train"] else ""
    return Manifest(root=root, classes=names, splits=splits, notes=notes, found=said)


def check_no_run(root: Path) -> None:
    """Refuse a data set's folder that is a run's as well: its stages' folders would be classes.

    Raises:
        UserError: it is one.
    """
    if all((root / name).is_file() for name in RUN_FILES):
        raise UserError(f"{root}: is a run folder too; keep the images and the run apart (--out)")


def tag_lists(root: Path) -> str:
    """Name the files in a folder that may hold tags but are not read, as "; x.csv is not read"."""
    lists = sorted(p.name for p in root.iterdir() if p.suffix.lower() in LISTS)
    return f"; {' and '.join(lists[:3])} may hold tags, but is not read" if lists else ""


def _samples(
    base: Path, tags_of: dict[Path, set[str]], index: dict[str, int]
) -> tuple[Sample, ...]:
    samples: dict[str, Sample] = {}
    for image, tags in tags_of.items():
        where = f"{image.parent}: the folder"
        sample_id = image.relative_to(base).with_suffix("").as_posix()
        if sample_id in samples:
            raise UserError(
                f"{image}: would be written as {sample_id}.png, and so would "
                f"{samples[sample_id].image.name} beside it; rename one"
            )
        samples[sample_id] = Sample(sample_id, image, tag_indices(tags, index, where))
    return tuple(samples.values())


def _check_folders(root: Path, folders: list[str], known: Collection[str]) -> None:
    """Refuse folders named like splits that hold images themselves: those have no tags."""
    # Read as classes, train and val would be what the network learns to tell apart.
    if folders and all(known_split(name) and compose(name) not in known for name in folders):
        raise UserError(
            f"{root}: {' and '.join(folders)} hold images without class folders around them, so "
            "there are no tags; sort them into class folders, or give the tags as labels.csv"
        )


def _by_folder(base: Path, images: list[Path]) -> dict[str, list[Path]]:
    """Images by the name of their folder in `base`; those in `base` itself under ""."""
    found: dict[str, list[Path]] = defaultdict(list)
    prefix = f"{base}{os.sep}"  # as text, which takes a tenth of the time of paths
    for image in images:
        if (text := str(image)).startswith(prefix):
            first, inner, _ = text[len(prefix) :].partition(os.sep)
            found[first if inner else ""].append(image)
    return dict(found)


def _is_class(folder: str, known: Collection[str]) -> bool:
    return folder.casefold() not in KINDS or compose(folder) in known


def _is_split(folder: Path, images: list[Path]) -> bool:
    """Whether a folder has a split's name and folders of images, not images, in it."""
    return known_split(folder.name) is not None and "" not in _by_folder(folder, images)


def _single_folder(base: Path, images: list[Path], known: Collection[str]) -> Path | None:
    """Find the folder that wraps the class folders: the only one, without images of its own."""
    tops = _by_folder(base, images)
    names = [n for n in tops if n and _is_class(n, known)]
    # A folder images/ is no class, but may be what wraps them.
    names = names or [n for n in tops if n.casefold() in ("images", "image", "imgs", "img")]
    # A single folder named as a known class or background is what it says, not a wrapper.
    if len(names) != 1 or "" in tops or compose(names[0]) in known or is_background(names[0]):
        return None
    inner = base / names[0]
    below = _by_folder(inner, tops[names[0]])
    return None if "" in below or _is_split(inner, tops[names[0]]) else inner


def _unite_copies(tags_of: dict[Path, set[str]]) -> int:
    """Leave the first of each group of identical files, with the tags of all; count the groups."""
    united = 0
    for first, *copies in identical(tags_of):
        # Copies within one folder are images of their own, as ever.
        others = [copy for copy in copies if tags_of[copy] != tags_of[first]]
        tags_of[first] |= {tag for copy in others for tag in tags_of[copy]}
        for copy in others:
            del tags_of[copy]
        united += bool(others)
    return united


def _left_out(root: Path, files: list[Path], why: str) -> str:
    first = files[0].relative_to(root)
    return f"{root}: {len(files)} {why} and left out, {first} first"


def _lost_classes(base: Path, files: list[Path], taken: Collection[Path]) -> str:
    """Name the folders that would be classes if their files were read."""
    there = set(_by_folder(base, list(taken)))
    lost = sorted(name for name in _by_folder(base, files) if name and name not in there)
    return f"; so {', '.join(lost)} is no class" if lost else ""


def _twins(folders: list[str]) -> tuple[str, ...]:
    forms: dict[str, list[str]] = defaultdict(list)
    for name in folders:
        forms[compose(name)].append(name)
    return tuple(
        f"the folders {' and '.join(ascii(name) for name in names)} differ only in how their "
        f"accents are stored; they are one class, {composed!r}"
        for composed, names in forms.items()
        if len(names) > 1
    )


def _nested_splits(found: ClassFolders) -> tuple[str, ...]:
    """Note splits inside of class folders, whose images all count as one split."""
    inside = sorted(
        {
            image.relative_to(found.base).parts[1]
            for classes in found.splits.values()
            for images in classes.values()
            for image in images
            if known_split(image.relative_to(found.base).parts[1])
        }
        - {name for classes in found.splits.values() for name in classes}
    )
    if not inside:
        return ()
    return (
        f"{found.base}: the folders {' and '.join(inside)} inside class folders are no splits; put "
        "them above the class folders if they are meant so",
    )
