"""One image with what is known of it, and the rule that keeps its id a safe file name."""

import re
from dataclasses import dataclass
from pathlib import Path

from affinitynet.errors import UserError

_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Sample:
    """One image of a data set.

    id: names the sample in every file the stages write (``<id>.png``); may contain ``/``.
    image: the image file.
    tags: sorted 0-based indices into the manifest's classes; ``()`` says background only.
    mask: the file that holds the ground truth, where there is one: a label PNG, or a COCO
        annotation file (JSON). Read it with `affinitynet.data.load_truth`.
    """

    id: str
    image: Path
    tags: tuple[int, ...]
    mask: Path | None = None


def check_relative(path: str, what: str) -> None:
    """Refuse a relative path that could lead out of the folder it is joined to.

    Absolute paths, drive letters, backslashes, control characters and the parts ``""``, ``.``
    and ``..`` raise UserError. ``what`` names the path in the message.
    """
    parts = path.split("/")
    if (
        any(part in ("", ".", "..") for part in parts)
        or "\\" in path
        or _DRIVE.match(path)
        or not path.isprintable()
    ):
        raise UserError(
            f"{what} {path!r} is not a plain relative path: use names and '/', without a leading "
            "'/', '.', '..', backslash or drive letter."
        )


def output_path(folder: Path, sample_id: str, suffix: str = ".png") -> Path:
    """Path of the file that a stage writes for a sample: ``folder/<id><suffix>``.

    Raises UserError where the id is unsafe, or where a symbolic link below ``folder`` would take
    the file out of it. (``folder`` itself may be a link.)
    """
    check_relative(sample_id, "The image id")
    path = folder / f"{sample_id}{suffix}"
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path.parent} leads out of {folder} through a symbolic link: remove it.")
    return path
