"""One folder per class: ``cat/1.jpg``, or ``train/cat/1.jpg`` with splits."""

import os
from collections.abc import Sequence
from pathlib import Path

from affinitynet.data.images import is_image_name
from affinitynet.data.manifest import RUN_FILE, Manifest
from affinitynet.data.sample import Sample
from affinitynet.data.table import DEFAULT_SPLIT
from affinitynet.data.tags import BACKGROUND, class_index, class_names, look_alikes, tag_indices
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import RECIPE

SPLITS = ("train", "val", "test")
RUN_FILES = (RECIPE, RUN_FILE)  # what every run folder holds


def class_folders(root: Path) -> dict[str, dict[str, list[Path]]]:
    """Split -> class -> images, of the folders that hold images; {} where there are none."""
    split_folders = {name: root / name for name in SPLITS if _subfolders(root / name)}
    bases = split_folders or {DEFAULT_SPLIT: root}
    found = {
        split: {
            folder.name: images
            for folder in _subfolders(base)
            if (images := sorted(_images_below(folder)))
        }
        for split, base in bases.items()
    }
    return {split: folders for split, folders in found.items() if folders}


def read_folder(root: Path, classes: Sequence[str] | None, tags: str) -> Manifest:
    """Read images sorted into one folder per class; the folder's name is the image's only tag.

    ``train/``, ``val/`` and ``test/`` above the class folders are splits; without them all is
    train. Images in a folder named background have no tags, those of a run folder are left out. The
    id is the image's path without extension. There is no ground truth. Raises UserError where no
    folder holds an image, and where the data set's folder is a run's as well.
    """
    if tags not in ("auto", "folder"):
        raise UserError(f"A data set of class folders has its tags in their names, not in {tags}.")
    if all((root / name).is_file() for name in RUN_FILES):  # its stages' folders would be classes
        raise UserError(f"{root} is a run folder too: keep the images and the run apart (--out).")
    found = class_folders(root)
    folders = {name for classes_of in found.values() for name in classes_of}
    names = class_names(root, classes, sorted(folders))
    splits: dict[str, tuple[Sample, ...]] = {}
    for split, classes_of in found.items():
        samples: dict[str, Sample] = {}
        for folder, images in classes_of.items():
            tag = () if folder.casefold() == BACKGROUND else (folder,)
            indices = tag_indices(tag, class_index(names), f"The folder {root / folder}")
            for image in images:
                sample_id = image.relative_to(root).with_suffix("").as_posix()
                if sample_id in samples:
                    raise UserError(
                        f"{samples[sample_id].image} and {image} would both be written as "
                        f"{sample_id}.png: rename one."
                    )
                samples[sample_id] = Sample(sample_id, image, indices)
        splits[split] = tuple(samples.values())
    return Manifest(root=root, classes=names, splits=splits, notes=look_alikes(names))


def _subfolders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images_below(folder: Path) -> list[Path]:
    """Images in a folder and its subfolders, except in those of a run, which may lie among them."""
    found: list[Path] = []
    for base, folders, files in os.walk(folder):
        if set(RUN_FILES) <= set(files):
            folders.clear()
        else:
            found += (path for name in files if is_image_name(path := Path(base, name)))
    return found
