"""Label PNGs alone, with the names of the labels: ``<id>.png`` and ``classes.txt``."""

from pathlib import Path

from affinitynet.data import Sample, voc_palette, write_labels
from affinitynet.export.dataset import Export
from affinitynet.export.pictures import place
from affinitynet.run_folder.store import copy_to


def write(export: Export, out: Path) -> None:
    """Write each mask as palette PNG (16-bit gray with 255 or more classes)."""
    for sample in export.samples:
        write_mask(export, sample, out)
    write_names(export, out)


def write_mask(export: Export, sample: Sample, folder: Path) -> str:
    """Write an image's mask below `folder`; return its name there."""
    target = place(folder, sample.id, ".png")
    if export.keep_void and not export.is_corrected(sample):
        copy_to(export.file(sample), target)
    else:
        write_labels(target, export.labels(sample), voc_palette())
    return target.relative_to(folder).as_posix()


def write_names(export: Export, out: Path) -> None:
    """Write ``classes.txt``: line n, counted from 0, names label n."""
    # Background first, so that a line's number is the value in the mask; our reader of VOC takes a
    # list that begins so for these numbers.
    names = "".join(f"{name}\n" for name in ("background", *export.classes))
    (out / "classes.txt").write_text(names, "utf-8", newline="\n")
