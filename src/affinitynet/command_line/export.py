"""`affinitynet export`: a run's masks, or its segmenter, for other programs."""

from pathlib import Path
from typing import Literal, get_args

from affinitynet.command_line.parser import argument, choice, switch
from affinitynet.errors import UserError

MaskFormat = Literal[
    "voc",
    "png",
    "coco",
    "cvat",
    "labelstudio",
    "labelme",
    "yolo-seg",
    "ultralytics-semantic",
    "hf",
]
ModelFormat = Literal["onnx", "pt2", "segmenter"]
Void = Literal["auto", "background", "ignore", "error"]
# The artifacts that can be exported, written out: the stage graph takes a while to import.
ROUNDS = ("masks_1", "masks_2", "masks_3")  # before the last
MASKS = ("final", "masks", "pseudo", "walk", "confident", "predictions", *ROUNDS)

EXPORT = (
    argument("run", "run folder"),
    argument("--out", "new folder to write to", required=True),
    choice(
        "--format",
        "of the masks; or onnx, pt2 or segmenter: the trained network",
        (*get_args(MaskFormat), *get_args(ModelFormat)),
    ),
    choice("--stage", "which masks", MASKS),
    choice("--void", "what becomes of void pixels", get_args(Void)),
    switch("--polygons", "outlines in place of run lengths (coco) or masks (labelme)"),
    switch("--partial", "leave out masks that are missing or broken, and name them"),
)


def export(
    run: Path,
    out: Path,
    format: MaskFormat | ModelFormat,
    stage: str,
    void: Void,
    polygons: bool,
    partial: bool,
) -> None:
    """Write a run's masks or network for other programs.

    Images go along where the format has a place for them. Masks that are missing or broken are
    refused before anything is written.
    """
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    if format in get_args(ModelFormat):
        if polygons or partial or stage != "final" or void != "auto":
            raise UserError(f"--format {format} is the network; it takes no flag about masks")
        from affinitynet.models.export import export_model

        print(export_model(run, out, format=format))
        return
    from affinitynet.export import export_run

    print(
        export_run(
            run, out, format=format, stage=stage, void=void, polygons=polygons, partial=partial
        )
    )
