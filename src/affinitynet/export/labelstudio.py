"""Label Studio: tasks with brush masks as predictions, the labeling setup, and the images."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as Xml

from affinitynet.export.cvat import color
from affinitynet.export.dataset import VOID, Export, Mask, run_lengths
from affinitynet.export.pictures import copy_picture

# Bits of the four sizes of a run length; each run begins with the number of its size.
_SIZES = (4, 8, 12, 16)
_HEAD = "".join(f"{size - 1:04b}" for size in _SIZES)


def write(export: Export, out: Path) -> None:
    """Write ``tasks.json``, ``label_config.xml`` and ``images/``.

    The tasks name images as Label Studio's local files do (``/data/local-files/?d=...``), relative
    to the folder of the export: make that folder its document root.
    """
    tasks = []
    for sample in export.samples:
        name = copy_picture(sample, out / "images")
        labels = export.labels(sample)
        results = [_result(region, mask) for region, mask in export.regions(labels)]
        tasks.append(
            {
                "data": {"image": f"/data/local-files/?d={quote(f'images/{name}')}"},
                "predictions": [{"model_version": "affinitynet", "result": results}],
            }
        )
    (out / "tasks.json").write_text(json.dumps(tasks, ensure_ascii=False), "utf-8")
    view = Xml.Element("View")
    Xml.SubElement(view, "Image", {"name": "image", "value": "$image", "zoom": "true"})
    brush = Xml.SubElement(view, "BrushLabels", {"name": "label", "toName": "image"})
    for number, name in enumerate(export.names, 1):
        shade = color(255 if name == VOID else number)
        Xml.SubElement(brush, "Label", {"value": name, "background": shade})
    Xml.indent(view)
    Xml.ElementTree(view).write(out / "label_config.xml", "utf-8")


def _result(name: str, mask: Mask) -> dict[str, Any]:
    height, width = mask.shape
    return {
        "id": f"label-{name}",
        "type": "brushlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": pack(mask), "brushlabels": [name]},
    }


def pack(mask: Mask) -> list[int]:
    """Return a mask (H, W) as Label Studio's bytes: its four channels, 0 or 255, run by run.

    A stream of bits, highest first: the count of values (32), the bits of a value less one (5),
    the bits of four sizes of run lengths, less one (4 each). Then for each run: 1, the number of
    its size (2), its length less one, and its value. (rle-pack of thi.ng/umbrella)
    """
    bits = [f"{4 * mask.size:032b}", f"{8 - 1:05b}", _HEAD]
    value = 255
    for run in run_lengths(mask.ravel()):
        value = 255 - value
        left = 4 * run
        while left:
            length = min(left, 1 << _SIZES[-1])
            kind = next(k for k, size in enumerate(_SIZES) if length <= 1 << size)
            bits.append(f"1{kind:02b}{length - 1:0{_SIZES[kind]}b}{value:08b}")
            left -= length
    stream = "".join(bits)
    stream += "0" * (-len(stream) % 8)
    return list(int(stream, 2).to_bytes(len(stream) // 8, "big"))
