"""Masks of photographs outside the data set, from files, folders and patterns to a folder."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from affinitynet.data import Sample
from affinitynet.data.photographs import claim_folder, find_photographs
from affinitynet.errors import FailedImagesError, UserError
from affinitynet.export.dataset import Export
from affinitynet.export.folders import check_choice, new_folder, write_export
from affinitynet.export.formats import FORMATS
from affinitynet.memory import kept_memory
from affinitynet.progress import say, warn
from affinitynet.run_folder.artifacts import SEGMENTER
from affinitynet.run_folder.folder import remove_tree

if TYPE_CHECKING:
    from affinitynet.stages.predict import Predicted

_PNGS = ".masks"  # while a folder of another format is made


def predict_folder(
    run_folder: str | Path,
    images: str | Path | Iterable[str | Path],
    out: str | Path,
    device: str = "auto",
    *,
    format: str = "png",
    overlay: bool = False,
    scores: bool = False,
) -> Path:
    """Segment photographs with a run's trained network; writes a palette PNG for each into `out`.

    images: an image, a folder, a pattern (``photos/**/*.jpg``), or several of them. Names below
        their common folder name the masks. Images below `out` are masks and left out.
    format: ``png``, or a format of `export_run`: `out` then is a new folder as that makes it.
    overlay: also write ``<name>.overlay.jpg``, the mask laid over the image.
    scores: also write ``<name>.scores.npz``: `probabilities`, (C + 1, H, W) float16, background
        first, and `classes`.

    `out` is a new folder, or one that an earlier call made: what that made of an image of this
    call (mask, overlay, scores) is deleted before the image is segmented.

    Raises:
        UserError: no trained network, no images, `out` is the folder of the images or holds other
            files.
        FailedImagesError: images that can't be read or segmented, named in a warning each; the
            others' masks are there.
    """
    check_choice("format", format, FORMATS)
    if format != "png" and (overlay or scores):
        raise UserError(f"--overlay and --scores go with --format png, not with {format}")
    model, out = Path(run_folder) / SEGMENTER.folder, Path(out)
    if not (model / "model.json").is_file():
        raise UserError(f"{model}: holds no trained model (model.json is missing)")
    given = [images] if isinstance(images, str | Path) else images
    samples = find_photographs([Path(path) for path in given], out)
    if format == "png":
        claim_folder(out, model)
        done = _predict(model, samples, out, device, overlay=overlay, scores=scores)
    else:
        with new_folder(out.resolve()) as made:
            done = _predict(model, samples, made / _PNGS, device)
            if done.samples:
                # The network says how its images are read, as they are for the pictures.
                read = tuple(sample.replace(reading=done.reading) for sample in done.samples)
                parts = {"predicted": read}
                export = Export(done.classes, read, made / _PNGS, parts, parts)
                write_export(export, format, made)
            remove_tree(made / _PNGS)
    if done.faults:
        raise FailedImagesError(
            f"{len(done.faults)} of {len(samples)} images failed, the first is {done.faults[0]}; "
            f"the masks of the others are in {out}"
        )
    return out


def _predict(
    model: Path,
    samples: list[Sample],
    out: Path,
    device: str,
    *,
    overlay: bool = False,
    scores: bool = False,
) -> "Predicted":
    from affinitynet.stages.predict import predict

    began = time.monotonic()
    with kept_memory():
        done = predict(model, samples, out, device, overlay=overlay, scores=scores)
    seconds = max(time.monotonic() - began, 1e-3)
    count = len(done.samples)
    say(f"predict: {count} images in {seconds:.1f} s ({count / seconds:.2f} images/s)")
    for fault in done.faults:
        warn(f"failed: {fault}")
    return done
