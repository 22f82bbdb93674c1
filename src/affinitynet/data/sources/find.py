"""Find an image's file in a folder of other people's files."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from affinitynet.data.names import spellings
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative

Kind = Literal["cams", "labels", "affinity", "regions"]
_FOLDER = ""  # of one PNG a class
_FORMS: dict[Kind, tuple[str, ...]] = {
    "cams": (".npy", ".npz", _FOLDER),
    "labels": (".png",),
    "affinity": (".npz",),
    "regions": (".png", ".npy", ".npz"),
}


def by_last_part(ids: Iterable[str]) -> dict[str, list[str]]:
    """Group image ids by what follows their last '/', for `find_source`."""
    found: dict[str, list[str]] = defaultdict(list)
    for sample_id in ids:
        found[sample_id.rpartition("/")[2]].append(sample_id)
    return dict(found)


def find_source(
    folder: Path, sample_id: str, kind: Kind, last_parts: Mapping[str, Sequence[str]]
) -> Path | None:
    """Find an image's file, or its folder of PNGs, by the image's name; None where there is none.

    CAMs are `<id>.npy`, `<id>.npz` or `<id>/<class>.png`, label maps `<id>.png`, affinities
    `<id>.npz`, regions a file of any of these endings. For the id `a/b/1` that file is `a/b/1.npy`,
    or else `1.npy`, as psa's folders are flat.

    Args:
        folder: where to look.
        sample_id: the image's id.
        kind: of what.
        last_parts: the data set's ids, by `by_last_part`.

    Raises:
        UserError: two files fit the image, one file fits two images, or a symbolic link leads out
            of the folder.
    """
    check_relative(sample_id, "The image id")
    found = _named(folder, sample_id, kind)
    last = sample_id.rpartition("/")[2]
    if found is not None or last == sample_id:
        return found
    owners = last_parts.get(last, ())
    if last in owners:  # an image of the folder's top: the file is its own
        return None
    found = _named(folder, last, kind)
    if found is not None and len(owners) > 1:
        raise UserError(
            f"{found}: may belong to {owners[0]} or {owners[1]}; "
            f"put each under its image's whole id, e.g. {folder / sample_id}{found.suffix}"
        )
    return found


def _named(folder: Path, name: str, kind: Kind) -> Path | None:
    for form in spellings(name):
        if found := _of_one_form(folder, form, kind):
            return found
    return None


def _of_one_form(folder: Path, name: str, kind: Kind) -> Path | None:
    candidates = [folder / f"{name}{suffix}" for suffix in _FORMS[kind]]
    found = [path for path in candidates if _is_there(path)]
    if len(found) > 1:
        raise UserError(f"{found[0]} and {found[1]}: both are there for one image; remove one")
    for path in found:
        check_inside(path, folder)
    return found[0] if found else None


def _is_there(path: Path) -> bool:
    if path.is_dir():  # which may as well hold the files of images a/1, a/2
        return any(path.glob("*.png"))
    return path.suffix != "" and path.is_file()


def check_inside(path: Path, folder: Path) -> None:
    """Refuse a path that a symbolic link takes out of the folder (which may be a link itself)."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise UserError(
            f"{path}: leads out of {folder} through a symbolic link; put the file itself there"
        )
