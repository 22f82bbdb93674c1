"""The formats of masks by name: who writes them, and what they can hold."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from affinitynet.export import coco, cvat, hf, labelme, labelstudio, png, voc, yolo
from affinitynet.export.dataset import Export


class Format(NamedTuple):
    """A writer, and what its format can hold.

    void: "value" where masks have a value for void pixels, "region" where void can be a label of
    its own, "" where there is no place for it. polygons: whether it can have outlines instead.
    pictures: whether the images go along.
    """

    write: Callable[[Export, Path], None]
    void: str
    polygons: bool = False
    pictures: bool = True


FORMATS = {
    "voc": Format(voc.write, "value"),
    "png": Format(png.write, "value", pictures=False),
    "coco": Format(coco.write, "region", polygons=True),
    "cvat": Format(cvat.write, "region"),
    "labelstudio": Format(labelstudio.write, "region"),
    "labelme": Format(labelme.write, "region", polygons=True),
    "yolo-seg": Format(yolo.write_polygons, ""),
    "ultralytics-semantic": Format(yolo.write_masks, "value"),
    "hf": Format(hf.write, "value"),
}
