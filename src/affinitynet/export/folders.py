"""Write a run's masks as a folder that other software reads."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from affinitynet.data import Manifest, Sample, load_image, read_labels, write_labels
from affinitynet.data.corrections import correct_labels, corrected_samples
from affinitynet.data.images import orientation
from affinitynet.data.of_run import manifest_of
from affinitynet.data.roles import count_files
from affinitynet.errors import UserError, did_you_mean
from affinitynet.progress import warn
from affinitynet.run_folder.folder import RECIPE, output_path
from affinitynet.run_folder.freshness import Freshness
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import RECORD
from affinitynet.run_folder.stages import ARTIFACTS, CORRECTED, final_masks

EXPORTABLE = tuple(artifact.folder for artifact in ARTIFACTS if artifact.labels)


def export_run(
    run_folder: str | Path, out: str | Path, *, format: str = "voc", stage: str = "final"
) -> Path:
    """Copy a stage's masks of a run into the new folder `out`, and return it.

    format: ``voc`` makes a VOC devkit: ``JPEGImages/<id>.jpg``, ``SegmentationClass/<id>.png``,
        ``ImageSets/Segmentation/<split>.txt`` (the split's images that have a mask), and
        ``classes.txt`` (line n, counted from 0, names label n). Images that are no upright RGB or
        gray JPEG are encoded again (quality 95), because readers of VOC don't turn images.
        ``png`` copies the masks alone: ``<id>.png``, and ``classes.txt``.
    stage: ``final`` (the masks that the run ends with: ``masks`` where it makes them, else
        ``pseudo``), ``masks``, ``pseudo``, ``walk`` (before the CRF), ``confident`` (with neutral
        pixels) or ``predictions`` (the segmenter's, without tags).

    Files are copies, so nothing done to them touches the run. `out` appears when it is complete;
    whatever goes wrong leaves it as it was.

    Raises:
        UserError: unknown format or stage, the stage is not finished or made no masks, `out`
            holds files, or an image can't be read.
    """
    run_folder, out = Path(run_folder), Path(out).resolve()
    _check_choice("format", format, _FORMATS)
    _check_choice("stage", stage, ("final", *EXPORTABLE))
    manifest = manifest_of(run_folder)
    recipe = Recipe.load(run_folder / RECIPE, out=run_folder)
    stage = final_masks(recipe).folder if stage == "final" else stage
    samples = _masked_samples(recipe, manifest, stage)
    with _new_folder(out) as folder:
        _FORMATS[format](run_folder / stage, folder, manifest, samples)
        # Background first, so that a line's number is the value in the mask; our reader of VOC
        # takes a list that begins so for these numbers.
        names = "".join(f"{name}\n" for name in ("background", *manifest.classes))
        (folder / "classes.txt").write_text(names, "utf-8", newline="\n")
    return out


def _write_voc(masks: Path, out: Path, manifest: Manifest, samples: Sequence[Sample]) -> None:
    _write_masks(masks, out / "SegmentationClass", manifest, samples)
    for sample in samples:
        _write_jpeg(sample.image, _place(out / "JPEGImages", sample.id, ".jpg"))
    lists = out / "ImageSets" / "Segmentation"
    exported = {sample.id for sample in samples}
    for split, members in manifest.splits.items():
        # Only images with a mask, or readers would look for files that aren't there.
        lines = [f"{sample.id}\n" for sample in members if sample.id in exported]
        if lines:
            _place(lists, split, ".txt").write_text("".join(lines), "utf-8", newline="\n")


def _write_masks(masks: Path, out: Path, manifest: Manifest, samples: Sequence[Sample]) -> None:
    run_folder, classes = masks.parent, len(manifest.classes)
    names = [artifact.folder for artifact in CORRECTED]
    corrected = corrected_samples(run_folder, samples) if masks.name in names else []
    for sample in samples:
        file, target = output_path(masks, sample.id), _place(out, sample.id, ".png")
        if sample not in corrected:
            shutil.copyfile(file, target)
            continue
        labels = correct_labels(read_labels(file), run_folder, sample.id, classes)
        write_labels(target, labels, manifest.palette)


_FORMATS: dict[str, Callable[[Path, Path, Manifest, Sequence[Sample]], None]] = {
    "voc": _write_voc,
    "png": _write_masks,
}


def _write_jpeg(source: Path, target: Path) -> None:
    """Copy an upright JPEG byte for byte; write any other image as JPEG."""
    upright = False
    # What can't be opened here is reported by load_image below, in words.
    with contextlib.suppress(OSError), Image.open(source, formats=("JPEG",)) as image:
        # CMYK too is a JPEG, but readers of VOC expect gray or RGB.
        plain = image.format == "JPEG" and image.mode in ("RGB", "L")
        upright = plain and orientation(image) == 1
    if upright:
        shutil.copyfile(source, target)
    else:
        picture = Image.fromarray(load_image(source))
        # subsampling=0 keeps the colors' resolution, which JPEG halves otherwise.
        picture.save(target, format="JPEG", quality=95, subsampling=0)


def _place(folder: Path, sample_id: str, suffix: str) -> Path:
    path = output_path(folder, sample_id, suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _masked_samples(recipe: Recipe, manifest: Manifest, masks: str) -> list[Sample]:
    """Return the samples that have a mask of a finished stage; warn if it is out of date."""
    run_folder = recipe.out
    freshness = Freshness(recipe)
    # Which stage makes these masks depends on the recipe's sources.
    makers = (s for s in freshness.stages if masks in (a.folder for a in s.artifacts))
    maker = next(makers, None)
    if maker is None:
        raise UserError(f"{run_folder}: this run makes no {masks} masks; choose another --stage")
    samples = [s for s in manifest.samples if output_path(run_folder / masks, s.id).is_file()]
    if not samples or not (run_folder / maker.folder / RECORD).is_file():
        raise UserError(
            f"{run_folder}: the {masks} masks are not finished ({len(samples)} are there); "
            "let `affinitynet run` finish them first"
        )
    status = freshness.status(maker, partial(count_files, recipe, manifest))
    if status.state == "stale":
        warn(f"the {masks} masks are out of date {status.detail}")
    return samples


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Give a temporary sibling of `out` to fill; rename it to `out` when all went well."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: holds files already; name a new folder, as nothing is overwritten")
    # Beside `out`, so that the last step is a rename within one file system.
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if out.exists():  # and empty: Windows renames onto nothing that is there
            out.rmdir()
        temporary.replace(out)
    except OSError as error:
        raise UserError(f"{out}: can't be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_choice(what: str, value: str, known: Iterable[str]) -> None:
    names = list(known)
    if value not in names:
        hint = did_you_mean(value, names) or f"choose from {', '.join(names)}"
        raise UserError(f"{what} = {value!r}: not known; {hint}")
