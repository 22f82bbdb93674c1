"""PASCAL VOC's development kit, with the list of labels and colors that CVAT and others read."""

from pathlib import Path

from affinitynet.data import voc_palette
from affinitynet.export.dataset import VOID, Export
from affinitynet.export.pictures import place, write_jpeg
from affinitynet.export.png import write_mask, write_names


def write(export: Export, out: Path) -> None:
    """Write images (JPEG), masks (palette PNG), lists of the splits, and the labels' colors.

    Images that are no upright RGB or gray JPEG are encoded again (quality 95), because readers of
    VOC don't turn images.
    """
    for sample in export.samples:
        write_mask(export, sample, out / "SegmentationClass")
        write_jpeg(sample, place(out / "JPEGImages", sample.id, ".jpg"))
    for split, members in export.splits.items():
        text = "".join(f"{sample.id}\n" for sample in members)
        lists = out / "ImageSets" / "Segmentation"
        place(lists, split, ".txt").write_text(text, "utf-8", newline="\n")
    write_names(export, out)
    # Our own reader of VOC has the names from classes.txt; this file is for other programs.
    lines = ["# label:color_rgb:parts:actions", _color("background", 0)]
    lines += [_color(name, label) for label, name in enumerate(export.classes, 1) if label < 255]
    if export.keep_void:
        lines.append(_color(VOID, 255))
    (out / "labelmap.txt").write_text("\n".join(lines) + "\n", "utf-8", newline="\n")


def _color(name: str, label: int) -> str:
    color = voc_palette()[3 * label : 3 * label + 3]
    # A colon ends the name, in a format without escapes.
    return f"{name.replace(':', '_')}:{','.join(map(str, color))}::"
