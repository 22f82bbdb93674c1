"""Photographs outside any data set, found for `predict`."""

from collections import Counter
from pathlib import Path

from affinitynet.data.images import IMAGE_SUFFIXES, is_image_name, walk_files
from affinitynet.data.sample import Sample
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import write_json

RECORD = "predict.json"  # in a folder of masks


def find_photographs(path: Path, out: Path) -> list[Sample]:
    """List an image, or the images below a folder but not below `out`, in order of their names.

    Raises:
        UserError: there is none, two would have the same mask name, or `out` is their folder or
            holds it.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such image or folder")
    base = path.parent if path.is_file() else path
    # Resolved, so that a symbolic link or `..` does not hide that both are one folder.
    if base.resolve().is_relative_to(out.resolve()):
        holds = "is" if base.resolve() == out.resolve() else "holds"
        raise UserError(
            f"--out {out}: {holds} the folder of the images, and images below --out count as "
            "masks; name another folder for the masks"
        )
    files = [path] if path.is_file() else _files_below(path, out)
    files = [file for file in files if is_image_name(file)]
    if not files:
        raise UserError(f"{path}: no image here ({', '.join(sorted(IMAGE_SUFFIXES))})")
    samples = [Sample(f.relative_to(base).with_suffix("").as_posix(), f, ()) for f in files]
    # Without the suffix, a.jpg and a.png would have the same mask.
    names = Counter(sample.id for sample in samples)
    if twice := next((name for name, count in names.items() if count > 1), None):
        raise UserError(
            f"{path}: two images are named {twice}, so their masks would be one file; rename one"
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
