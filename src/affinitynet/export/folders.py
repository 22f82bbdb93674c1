"""Write a run's masks as a folder that other software reads."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from affinitynet.data import Manifest, Sample
from affinitynet.data.of_run import manifest_of
from affinitynet.data.roles import samples_of
from affinitynet.errors import UserError, did_you_mean
from affinitynet.export.dataset import Export
from affinitynet.export.formats import FORMATS, Format
from affinitynet.export.selection import Found, find_masks
from affinitynet.export.yolo import check_names
from affinitynet.progress import say
from affinitynet.run_folder.artifacts import ARTIFACTS, CORRECTED
from affinitynet.run_folder.folder import RECIPE
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import final_masks

EXPORTABLE = tuple(artifact.folder for artifact in ARTIFACTS if artifact.labels)
VOIDS = ("auto", "background", "ignore", "error")


def export_run(
    run_folder: str | Path,
    out: str | Path,
    *,
    format: str = "voc",
    stage: str = "final",
    void: str = "auto",
    polygons: bool = False,
    partial: bool = False,
) -> Path:
    """Copy a stage's masks of a run into the new folder `out`, and return it.

    format: ``voc``, ``png``, ``coco``, ``cvat``, ``labelstudio``, ``labelme``, ``yolo-seg``,
        ``ultralytics-semantic`` or ``hf`` (docs/exporting.md describes them).
    stage: ``final`` (the masks that the run ends with: ``masks`` where it makes them, else
        ``pseudo``), ``masks``, ``pseudo``, ``walk`` (before the CRF), ``confident`` (with neutral
        pixels) or ``predictions`` (the segmenter's, without tags).
    void: what becomes of void pixels: ``background``; ``ignore``, which keeps them as the format's
        void value or as regions labeled ``__ignore__``; ``error`` refuses masks that have some;
        ``auto`` keeps them where masks have a value for them, and else makes them background.
    polygons: outlines in place of run lengths (``coco``) or pictures of masks (``labelme``).
    partial: leave out masks that are missing or broken, with a warning that names them.

    Files are copies, so nothing done to them touches the run. `out` appears when it is complete;
    whatever goes wrong leaves it as it was.

    Raises:
        UserError: unknown format or stage, the stage is not finished or made no masks, a mask is
            missing or broken, the format can't hold what is asked, or `out` holds files.
    """
    run_folder, out = Path(run_folder), Path(out).resolve()
    check_choice("format", format, FORMATS)
    check_choice("stage", stage, ("final", *EXPORTABLE))
    check_choice("void", void, VOIDS)
    kind = FORMATS[format]
    check_polygons(format, polygons)
    keep = _keep_void(format, kind, void)
    manifest = manifest_of(run_folder)
    recipe = Recipe.load(run_folder / RECIPE, out=run_folder)
    folder = final_masks(recipe).folder if stage == "final" else stage
    _check_new(out)
    found = find_masks(recipe, manifest, folder, partial_=partial, pictures=kind.pictures)
    _check_void(found, keep, void)
    export = Export(
        manifest.classes,
        found.samples,
        run_folder / folder,
        _splits(manifest, found.samples),
        _parts(recipe, manifest, found.samples),
        keep,
        polygons,
        run_folder if folder in (artifact.folder for artifact in CORRECTED) else None,
    )
    with new_folder(out) as made:
        write_export(export, format, made)
    return out


def write_export(export: Export, format: str, out: Path) -> None:
    """Write masks in a format into a folder that is there.

    Raises:
        UserError: the format can't hold them, or an image can't be read.
    """
    if format in ("yolo-seg", "ultralytics-semantic"):
        check_names(export.samples)
    FORMATS[format].write(export, out)


def check_polygons(format: str, polygons: bool) -> None:
    """Refuse polygons of a format that has none, or nothing else.

    Raises:
        UserError: which formats have both.
    """
    if polygons and not FORMATS[format].polygons:
        both = " and ".join(name for name, kind in FORMATS.items() if kind.polygons)
        raise UserError(f"--polygons: {format} has no such choice; only {both} have it")


def _keep_void(format: str, kind: Format, void: str) -> bool:
    if void == "ignore" and not kind.void:
        raise UserError(f"--void ignore: {format} has no place for void pixels; use background")
    return void == "ignore" or (void == "auto" and kind.void == "value")


def _check_void(found: Found, keep: bool, void: str) -> None:
    count = len(found.with_void)
    if count and void == "error":
        raise UserError(
            f"--void error: {count} of {len(found.samples)} masks have void pixels, the first is "
            f"that of {found.with_void[0]}; choose --void background or ignore"
        )
    if count and not keep:
        say(f"void pixels of {count} of {len(found.samples)} masks become background")


def _splits(manifest: Manifest, samples: Sequence[Sample]) -> dict[str, tuple[Sample, ...]]:
    exported = {sample.id for sample in samples}
    # Only images with a mask, or readers would look for files that aren't there.
    found = {
        split: tuple(sample for sample in members if sample.id in exported)
        for split, members in manifest.splits.items()
    }
    return {split: members for split, members in found.items() if members}


def _parts(
    recipe: Recipe, manifest: Manifest, samples: Sequence[Sample]
) -> dict[str, tuple[Sample, ...]]:
    """Divide the samples: those to train on, those of val, and what is left."""
    left = {sample.id: sample for sample in samples}
    parts: dict[str, tuple[Sample, ...]] = {}
    for role in ("train", "val"):
        known = samples_of(recipe, manifest, role)
        parts[role] = tuple(s for s in known if left.pop(s.id, None) is not None)
    parts["other"] = tuple(left.values())
    return {part: members for part, members in parts.items() if members}


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a temporary sibling of `out` to fill; rename it to `out` when all went well.

    Raises:
        UserError: `out` holds files, or can't be written.
    """
    _check_new(out)
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


def _check_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: holds files already; name a new folder, as nothing is overwritten")


def check_choice(what: str, value: str, known: Iterable[str]) -> None:
    """Refuse a word that is not known.

    Raises:
        UserError: with the nearest known one, or all.
    """
    names = list(known)
    if value not in names:
        hint = did_you_mean(value, names) or f"choose from {', '.join(names)}"
        raise UserError(f"{what} = {value!r}: not known; {hint}")
