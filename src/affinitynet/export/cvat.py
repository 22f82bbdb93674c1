"""CVAT for images 1.1: one XML file with masks, and the images."""

from pathlib import Path
from xml.etree import ElementTree as Xml

from affinitynet.data import voc_palette
from affinitynet.export.dataset import VOID, Export, Mask, bounds, run_lengths
from affinitynet.export.pictures import copy_picture


def write(export: Export, out: Path) -> None:
    """Write ``annotations.xml`` and ``images/``, whose names CVAT finds its own images by."""
    root = Xml.Element("annotations")
    Xml.SubElement(root, "version").text = "1.1"
    task = Xml.SubElement(Xml.SubElement(root, "meta"), "task")
    Xml.SubElement(task, "size").text = str(len(export.samples))
    Xml.SubElement(task, "mode").text = "annotation"
    labels = Xml.SubElement(task, "labels")
    for number, name in enumerate(export.names, 1):
        label = Xml.SubElement(labels, "label")
        Xml.SubElement(label, "name").text = name
        Xml.SubElement(label, "color").text = color(255 if name == VOID else number)
        Xml.SubElement(label, "type").text = "mask"
        Xml.SubElement(label, "attributes")
    for number, sample in enumerate(export.samples):
        name = copy_picture(sample, out / "images")
        pixels = export.labels(sample)
        height, width = pixels.shape
        size = {"width": str(width), "height": str(height)}
        image = Xml.SubElement(root, "image", {"id": str(number), "name": name, **size})
        for region, mask in export.regions(pixels):
            Xml.SubElement(image, "mask", {"label": region, **_mask(mask)})
    Xml.indent(root)
    Xml.ElementTree(root).write(out / "annotations.xml", "utf-8", xml_declaration=True)


def color(label: int) -> str:
    """Return a label's color as ``#rrggbb``; after 256 labels they come again."""
    red, green, blue = voc_palette()[3 * (label % 256) : 3 * (label % 256) + 3]
    return f"#{red:02x}{green:02x}{blue:02x}"


def _mask(mask: Mask) -> dict[str, str]:
    left, top, right, bottom = bounds(mask)
    # Run lengths go along the rows of the box, and start with zeros.
    runs = run_lengths(mask[top:bottom, left:right].ravel())
    box = {"left": left, "top": top, "width": right - left, "height": bottom - top}
    return {
        "source": "file",
        "occluded": "0",
        "rle": ", ".join(map(str, runs)),
        **{key: str(value) for key, value in box.items()},
        "z_order": "0",
    }
