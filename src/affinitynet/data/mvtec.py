"""MVTec AD's layout: ``train/good``, ``test/<defect>`` and ``ground_truth/<defect>``."""

from collections.abc import Collection, Sequence
from pathlib import Path

from affinitynet.data.images import is_hidden, is_image_name, walk_files
from affinitynet.data.manifest import ONLY_TAG, Manifest
from affinitynet.data.names import Files, compose
from affinitynet.data.sample import Sample
from affinitynet.data.tags import class_index, class_names, look_alikes, tag_indices
from affinitynet.errors import UserError

GOOD = "good"
TRUTH = "ground_truth"
# MVTec AD writes the first, some other sets in its layout the second.
_MASKS = ("{}_mask.png", "{}.png")


def is_mvtec(root: Path) -> bool:
    """Whether a folder has ``train/`` with nothing but ``good``, and ``test/`` with defects."""
    # With a defect in train/ it is as well a set of class folders with splits.
    return _folders(root / "train") == [GOOD] and bool(set(_folders(root / "test")) - {GOOD})


def mvtec_sets(root: Path) -> list[str]:
    """Name the folders in a folder that are data sets of this layout (bottle, cable ...)."""
    return [name for name in _folders(root) if is_mvtec(root / name)]


def read_mvtec(
    root: Path, classes: Sequence[str] | None, tags: str, background: Collection[str] = ()
) -> Manifest:
    """Read a data set for the detection of defects: their folders' names are the tags.

    What MVTec trains on shows no defect, so that no tag could be learned from it: all images make
    one split, train. ``good`` and the folders named by `background` are background. The ground
    truth is ``ground_truth/<defect>/<name>_mask.png``, black and white; good images have none.

    Raises:
        UserError: the folder is of another layout, an image is not in a defect's folder, two images
            have one id, a mask is no defect's.
    """
    if tags not in ("auto", "folder"):
        raise UserError(f"dataset.tags = {tags}: MVTec's layout has its tags in its folders' names")
    if not is_mvtec(root):
        raise UserError(
            f"{root}: is not of MVTec's layout (train/good and test/<defect>); give the folder of "
            "one kind of object"
        )
    empty = {GOOD, *(compose(name) for name in background)}
    found: dict[Path, str] = {}
    for part in ("train", "test"):
        for path in walk_files(root / part):
            if is_image_name(path):
                inner = path.relative_to(root / part).parts
                if len(inner) < 2:
                    raise UserError(
                        f"{path}: is in no folder of a defect; move it to {part}/{GOOD} or a "
                        f"defect's folder"
                    )
                found[path] = inner[0]
    shown = sorted({name for name in found.values() if compose(name) not in empty})
    names = class_names(root, classes, shown)
    index, files = class_index(names), Files()
    samples: dict[str, Sample] = {}
    masks: set[Path] = set()
    for path, name in found.items():
        # With its folders: every folder of MVTec's counts from 000.png.
        sample_id = path.relative_to(root).with_suffix("").as_posix()
        if sample_id in samples:
            raise UserError(f"{path}: would be written as {sample_id}.png, as another; rename one")
        defect = [] if compose(name) in empty else [name]
        mask = _mask(root, files, name, path) if defect else None
        masks |= {mask} if mask else set()
        indices = tag_indices(defect, index, f"{path.parent}: the folder")
        samples[sample_id] = Sample(sample_id, path, indices, mask)
    return Manifest(
        root=root,
        classes=names,
        splits={"train": tuple(samples.values())},
        truth_values={0: 0, 255: ONLY_TAG},
        notes=(*_notes(root, samples.values(), masks), *look_alikes(names)),
        found=f"{root.name}: train/{GOOD} and test/ with {len(shown)} kinds of defects",
    )


def _folders(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not is_hidden(p.name))


def _mask(root: Path, files: Files, defect: str, image: Path) -> Path | None:
    tried = (files.find(root / TRUTH / defect, form.format(image.stem)) for form in _MASKS)
    return next((path for path in tried if path is not None), None)


def _notes(root: Path, samples: Collection[Sample], masks: Collection[Path]) -> list[str]:
    notes = [
        f"{root}: MVTec's train has no defects, so train and test are united as the split train; "
        f"{GOOD} is background"
    ]
    unused = [p for p in walk_files(root / TRUTH) if is_image_name(p) and p not in masks]
    if unused:
        notes.append(
            f"{root}: {len(unused)} files in {TRUTH}/ are no image's mask (<image's name>_mask.png"
            f"), {unused[0].relative_to(root)} first"
        )
    return notes
