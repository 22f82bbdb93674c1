"""Masks that people drew in other programs: PNG, COCO, CVAT, Label Studio, LabelMe; no torch."""

from affinitynet.data.drawn.importing import FORMATS, import_corrections

__all__ = ["FORMATS", "import_corrections"]
