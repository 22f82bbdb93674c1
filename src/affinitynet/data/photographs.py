"""Photographs outside any data set, found for `predict`."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from affinitynet.data.images import IMAGE_SUFFIXES, is_image_name, walk_files
from affinitynet.data.sample import Sample
from affinitynet.errors import UserError
from affinitynet.progress import warn
from affinitynet.run_folder.folder import write_json

RECORD = "predict.json"  # in a folder of masks


def find_photographs(given: Path | Sequence[Path], out: Path) -> list[Sample]:
    """List images: files, those below folders, and what patterns match; in order of their names.

    Those below `out` are left out, and files that are no images by their name. An id is an image's
    place below the folder that all have in common.

    Raises:
        UserError: there is none, two would have the same mask name, or `out` is the folder of
            some or holds it.
    """
    paths = [given] if isinstance(given, Path) else list(given)
    found = [match for path in paths for match in _matches(path)]
    bases = [path.parent if path.is_file() else path for path in found]
    for base in bases:
        _check_apart(base, out)
    files = []
    for path in found:
        below = [path] if path.is_file() else _files_below(path, out)
        files += [file for file in below if is_image_name(file)]
        if path.is_file() and not is_image_name(path):
            warn(f"{path}: is no image by its name, and left out")
    if not files:
        named = ", ".join(map(str, paths))
        raise UserError(f"{named}: no image here ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return _samples(files, bases)


def _matches(path: Path) -> list[Path]:
    if path.exists():
        return [path]
    # The shell of Windows leaves patterns to programs, as others do with those in quotes.
    if matches := sorted(Path(name) for name in glob.glob(str(path), recursive=True)):  # noqa: PTH207
        return matches
    raise UserError(f"{path}: there is no such image or folder")


def _check_apart(base: Path, out: Path) -> None:
    # Resolved, so that a symbolic link or `..` does not hide that both are one folder.
    if base.resolve().is_relative_to(out.resolve()):
        holds = "is" if base.resolve() == out.resolve() else "holds"
        raise UserError(
            f"--out {out}: {holds} the folder of the images, and images below --out count as "
            "masks; name another folder for the masks"
        )


def _absolute(path: Path) -> Path:
    # Not resolved: a symbolic link to an image is that image by the link's name.
    return Path(os.path.abspath(path))  # noqa: PTH100


def _samples(files: Sequence[Path], bases: Sequence[Path]) -> list[Sample]:
    once = list(dict.fromkeys(_absolute(file) for file in files))
    try:
        base = Path(os.path.commonpath([_absolute(base) for base in bases]))
    except ValueError as error:  # on two drives of Windows
        raise UserError("images on several drives have no common folder; take one drive") from error
    samples = [Sample(f.relative_to(base).with_suffix("").as_posix(), f, ()) for f in once]
    # Without the suffix, a.jpg and a.png would have the same mask.
    names = Counter(sample.id for sample in samples)
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise UserError(
            f"{base}: two images are named {twice}, so their masks would be one file; rename one"
        )
    return samples


def claim_folder(out: Path, model: Path) -> None:
    """Take a folder for the masks of `predict`: a new one, an empty one, or one of its own.

    Its own holds `predict.json`, which is written here: nothing is ever written over that
    something else made.

    Raises:
        UserError: the folder holds other files, or is none.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is no folder; name a new one")
    record = out / RECORD
    if not record.is_file() and out.is_dir() and any(out.iterdir()):
        raise UserError(
            f"--out {out}: holds files that predict did not make ({RECORD} is missing); name a new "
            "folder"
        )
    write_json(record, {"made_by": "affinitynet predict", "model": str(model.resolve())})


def _files_below(folder: Path, out: Path) -> list[Path]:
    # With --out below the folder, a second run would take the masks of the first for photographs.
    masks = out.resolve()
    return [file for file in walk_files(folder) if masks not in file.resolve().parents]
