"""Ultralytics YOLO: polygons for instance segmentation, or PNGs for semantic segmentation."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import yaml

from affinitynet.data import Sample
from affinitynet.errors import UserError
from affinitynet.export.dataset import Export
from affinitynet.export.outlines import trace_outlines
from affinitynet.export.pictures import copy_picture, place
from affinitynet.export.png import write_mask
from affinitynet.progress import say, warn

_MASKS = "masks"  # stands in place of "images" in a path


def write_polygons(export: Export, out: Path) -> None:
    """Write ``images/``, ``labels/<id>.txt``, a list for each part, and ``data.yaml``.

    A line is a connected region of a class: the class's number, and x, y of the pixels along its
    border in fractions of the image. What a line can't hold is counted and said.
    """
    numbers = {name: number for number, name in enumerate(export.classes)}
    pixels = lost = regions = 0
    for sample in export.samples:
        labels = export.labels(sample)
        size = np.array(labels.shape[::-1])
        lines = []
        for name, mask in export.regions(labels):
            pixels += int(mask.sum())
            for outline in trace_outlines(mask):
                if not outline.is_polygon:
                    lost, regions = lost + outline.area, regions + 1
                    continue
                # Centers of pixels: readers cut them down to the pixel.
                points = ((outline.pixels + 0.5) / size).ravel().tolist()
                lines.append(f"{numbers[name]} {' '.join(f'{x:.7g}' for x in points)}\n")
        text = "".join(lines)
        place(out / "labels", sample.id, ".txt").write_text(text, "utf-8", newline="\n")
    said = "polygons hold every pixel of the classes"
    if lost:
        said = f"{regions} regions one pixel wide are left out ({lost} of {pixels} pixels)"
    say(f"yolo-seg: {said}; regions that touch are one instance, void is background")
    _write_rest(export, out, dict(enumerate(export.classes)), "")


def write_masks(export: Export, out: Path) -> None:
    """Write ``images/``, ``masks/<id>.png`` as they are, a list for each part, and ``data.yaml``.

    Raises:
        UserError: more than 254 classes, as its masks have 8 bits and 255 is void.
    """
    if export.void > 255:
        raise UserError("ultralytics-semantic holds 254 classes at most; choose another --format")
    for sample in export.samples:
        write_mask(export, sample, out / _MASKS)
    _write_rest(export, out, dict(enumerate(("background", *export.classes))), _MASKS)


def _write_rest(export: Export, out: Path, names: dict[int, str], masks: str) -> None:
    pictures = {s.id: copy_picture(s, out / "images") for s in export.samples}
    for part, samples in export.parts.items():
        _write_list(out / f"{part}.txt", (pictures[sample.id] for sample in samples))
    train = "train" if "train" in export.parts else next(iter(export.parts))
    val = next((part for part in export.parts if part != train), train)
    if val == train:
        warn("data.yaml: val is train, as no other images have masks; set it to images of yours")
    lists = {"train": f"{train}.txt", "val": f"{val}.txt"}
    # A folder of this name in place of `images` holds the masks.
    kind = {"masks_dir": masks} if masks else {}
    text = yaml.safe_dump({**lists, **kind, "names": names}, sort_keys=False, allow_unicode=True)
    (out / "data.yaml").write_text(text, "utf-8", newline="\n")


def _write_list(file: Path, names: Iterable[str]) -> None:
    # "./" is replaced by the folder of the list.
    file.write_text("".join(f"./images/{name}\n" for name in names), "utf-8", newline="\n")


def check_names(samples: Iterable[Sample]) -> None:
    """Refuse ids whose files Ultralytics would look for elsewhere.

    Raises:
        UserError: an id with a folder named ``images``, which is replaced to find the labels.
    """
    for sample in samples:
        if "images" in sample.id.split("/")[:-1]:
            raise UserError(
                f"{sample.id}: Ultralytics takes the last folder named images for the root of all; "
                "rename it"
            )
