"""`affinitynet predict`: masks of photographs outside the data set."""

from pathlib import Path
from typing import get_args

from affinitynet.command_line.export import MaskFormat
from affinitynet.command_line.parser import argument, choice, switch

# Masks alone first: that is the default here.
FORMATS = sorted(get_args(MaskFormat), key=lambda name: name != "png")

PREDICT = (
    argument("run", "run folder"),
    argument("images", "images, folders of images, or patterns such as 'photos/*.jpg'", nargs="+"),
    argument("--out", "folder for the masks: a new one, or one of an earlier call", required=True),
    choice("--format", "png: masks; others: a new folder as export makes it", FORMATS),
    switch("--overlay", "also write <name>.overlay.jpg: the mask laid over the image"),
    switch("--scores", "also write <name>.scores.npz: probabilities of background and classes"),
    argument("--device", "auto (the default), cpu, cuda, cuda:1, mps", str, default="auto"),
)


def predict(
    run: Path,
    images: list[Path],
    out: Path,
    format: MaskFormat,
    overlay: bool,
    scores: bool,
    device: str,
) -> None:
    """Segment photographs with a run's trained network.

    An image that can't be read is named at the end, when all others are done; the exit code is
    then 1.
    """
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    from affinitynet.predicting import predict_folder

    print(
        predict_folder(
            run, images, out, device=device, format=format, overlay=overlay, scores=scores
        )
    )
