"""Bring drawn masks into a run as its corrections: all of a file, or nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from affinitynet.data.corrections import check_labels, correction_file, write_correction
from affinitynet.data.drawn.coco import read_coco
from affinitynet.data.drawn.cvat import read_cvat_masks
from affinitynet.data.drawn.drawing import Drawing
from affinitynet.data.drawn.label_studio import read_label_studio_masks
from affinitynet.data.drawn.labelme import is_labelme, read_labelme
from affinitynet.data.drawn.png import read_png
from affinitynet.data.images import read_size, walk_files
from affinitynet.data.json_rows import load_json
from affinitynet.data.label_studio import is_label_studio
from affinitynet.data.labels import Labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.of_run import manifest_of
from affinitynet.errors import UserError, did_you_mean

_READERS: dict[str, Callable[[Path, Manifest, int], list[Drawing]]] = {
    "png": read_png,
    "coco": read_coco,
    "cvat": read_cvat_masks,
    "labelstudio": read_label_studio_masks,
    "labelme": read_labelme,
}
FORMATS = ("auto", *_READERS)
RESTS = ("background", "keep")


def import_corrections(
    run_folder: str | Path,
    source: str | Path,
    *,
    format: str = "auto",
    rest: str = "background",
    replace: bool = False,
) -> list[str]:
    """Bring masks that people drew into a run, as its corrections; return the images' ids.

    source: a folder of label PNGs by image id or one PNG, a COCO file of instances, CVAT's XML,
        Label Studio's JSON, LabelMe's JSON or a folder of them. Images without regions are left
        out, but for LabelMe, which has a file only of images that someone looked at.
    format: `auto` finds it out; or `png`, `coco`, `cvat`, `labelstudio`, `labelme`.
    rest: what pixels outside of all regions become: `background`, or `keep` for not corrected.
        PNGs say it themselves: 255 is not corrected.
    replace: let corrections that are there already be overwritten.

    Everything is read and checked before the first file is written.

    Raises:
        UserError: no run folder; a file, image, label, size or shape that doesn't fit, by file and
            entry; or an image has a correction already.
    """
    root, source = Path(run_folder), Path(source)
    for what, value, known in (("format", format, FORMATS), ("rest", rest, RESTS)):
        if value not in known:
            hint = did_you_mean(value, known) or f"choose from {', '.join(known)}"
            raise UserError(f"{what} = {value!r}: not known; {hint}")
    manifest = manifest_of(root)
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    read = _READERS[_recognize(source) if format == "auto" else format]
    drawings = read(source, manifest, manifest.ignore_index if rest == "keep" else 0)
    if not drawings:
        raise UserError(f"{source}: holds no masks; nothing to bring in")
    _check_once(root, drawings, replace)
    for drawing in drawings:
        _paint(drawing, manifest)
    for drawing in drawings:
        write_correction(root, manifest, drawing.sample, _paint(drawing, manifest))
    return [drawing.sample.id for drawing in drawings]


def _recognize(source: Path) -> str:
    """Name the format of a file or folder."""
    suffix = source.suffix.lower()
    if source.is_file() and suffix in (".png", ".xml"):
        return {".png": "png", ".xml": "cvat"}[suffix]
    if source.is_dir():
        # LabelMe's files lie beside the photographs, which may be PNGs.
        files = list(walk_files(source))
        found = next((file for file in files if file.suffix == ".json"), None)
        if found is not None and is_labelme(load_json(found)):
            return "labelme"
        return "png"
    if suffix == ".json":
        content = load_json(source)
        if is_labelme(content):
            return "labelme"
        return "labelstudio" if is_label_studio(content) else "coco"
    raise UserError(
        f"{source}: is none of a folder, PNG, JSON and XML; export it in one of {FORMATS[1:]}"
    )


def _check_once(root: Path, drawings: list[Drawing], replace: bool) -> None:
    """Refuse two masks of one image, and one where there is a correction already."""
    first: dict[str, Drawing] = {}
    for drawing in drawings:
        other = first.setdefault(drawing.sample.id, drawing)
        if other is not drawing:
            raise UserError(
                f"{drawing.where}: is a second mask of {drawing.sample.id}, which has one by "
                f"{other.where}; take one out"
            )
        file = correction_file(root, drawing.sample.id)
        if file.exists() and not replace:
            raise UserError(
                f"{drawing.where}: {file} holds a correction of this image already; give --replace "
                "to overwrite it, or delete it"
            )


def _paint(drawing: Drawing, manifest: Manifest) -> Labels:
    size = read_size(drawing.sample.image, drawing.sample.reading)
    if drawing.size != size:
        raise UserError(
            f"{drawing.where}: is of {drawing.size[1]} x {drawing.size[0]}, but the image "
            f"{drawing.sample.id} has {size[1]} x {size[0]} pixels; export it again"
        )
    labels = drawing.paint()
    check_labels(labels, len(manifest.classes), drawing.where)
    if (np.asarray(labels) == manifest.ignore_index).all():
        raise UserError(f"{drawing.where}: corrects no pixel; take it out")
    return labels
