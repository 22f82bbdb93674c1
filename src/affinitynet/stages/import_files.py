"""What comes from elsewhere -> the files that a stage of this run would have made, checked.

Everything is read before anything follows from it, so that a wrong class number, size or value is
refused at once, by file and entry, and not three stages later.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from affinitynet.data import Sample, load_image
from affinitynet.data.cams import save_cams
from affinitynet.data.grids import save_affinity
from affinitynet.data.images import fits_unturned, read_size
from affinitynet.data.sources import (
    SourceCams,
    by_last_part,
    find_source,
    read_affinity_source,
    read_cams,
    read_labels_source,
)
from affinitynet.data.sources.find import Kind
from affinitynet.data.voc import class_numbers
from affinitynet.errors import UserError
from affinitynet.run_folder.artifacts import AFFINITIES, CAMS, CONFIDENT, PSEUDO, Artifact
from affinitynet.run_folder.recipe import find_files
from affinitynet.run_folder.setting_types import FILES
from affinitynet.run_folder.stages import Stage
from affinitynet.stages.context import Context
from affinitynet.stages.images import Shown, make_each
from affinitynet.stages.import_notes import Note, Notes, check_classes, judge_labels, say_missing

Files = dict[str, Path]  # by image id
SHOWN = 3


class Importer(NamedTuple):
    """How the files of one stage come in: `bring` reads, checks and writes that of one image.

    It returns the classes in the file that the data set lacks.
    """

    setting: str
    kind: Kind
    artifact: Artifact
    bring: Callable[[Context, Files, Shown, Sample], tuple[str, ...]]


def work(context: Context, stage: Stage) -> dict[str, Any]:
    """Bring in the files of every image of a stage."""
    importer = IMPORTERS[stage.name]
    if not stage.source.startswith(FILES):
        every = context.samples("train", "val", "figures")
        return _bring(context, stage, importer, every, partial(_bring_cams_of_function, context))
    folder = find_files(stage.source, importer.setting, context.recipe.data)
    samples, files = _find(context, stage, importer, folder)
    source, judged = f"{importer.setting} = {stage.source!r}", dict[str, Any]()
    if importer.kind == "labels":
        check_classes(stage.name, source, samples, files, len(_numbered(context)))
    shown = Shown(context, importer.artifact)

    def look(sample: Sample) -> Note:
        maps = importer.kind == "cams" and sample.id in files
        return Note(_read_cams(context, files, sample).ignored if maps else (), turned(sample))

    def turned(sample: Sample) -> bool:
        size = read_size(sample.image, sample.reading)
        return sample.id in files and fits_unturned(sample.image, size)

    def bring(sample: Sample) -> None:
        ignored = importer.bring(context, files, shown, sample)
        notes.add(sample, Note(ignored, turned(sample)))

    notes = Notes(look)
    counts = _bring(context, stage, importer, samples, bring)
    notes.complete(stage.name, samples, context.recipe.workers)
    if importer.kind == "labels":
        judged = judge_labels(context, importer.setting, samples, shown)
    warnings = [
        *notes.say(folder),
        *say_missing(importer.setting, samples, context.samples(*stage.roles)),
        *judged.get("judgements", ()),
    ]
    return {**counts, **judged, "imported": str(folder), "warnings": warnings}


def _bring(
    context: Context,
    stage: Stage,
    importer: Importer,
    samples: Sequence[Sample],
    bring: Callable[[Sample], None],
) -> dict[str, Any]:
    return make_each(
        context,
        stage.name,
        importer.artifact,
        samples,
        load=lambda sample: None,
        compute=lambda sample, _: None,
        finish=lambda sample, _: bring(sample),
    )


def _find(
    context: Context, stage: Stage, importer: Importer, folder: Path
) -> tuple[list[Sample], Files]:
    """Find each image's file; those of val are for figures only, and may be missing.

    Raises:
        UserError: images without a file, all told at once.
    """
    last_parts = by_last_part(sample.id for sample in context.manifest.samples)
    needed = {sample.id for sample in context.samples("train", "figures")}
    samples, files, missing = [], Files(), []
    for sample in context.samples(*stage.roles):
        found = find_source(folder, sample.id, importer.kind, last_parts)
        # Without a tag there is no map to bring.
        if found is not None or (importer.kind == "cams" and not sample.tags):
            samples.append(sample)
            files |= {sample.id: found} if found else {}
        elif sample.id in needed:
            missing.append(sample.id)
    if missing:
        some = ", ".join(missing[:SHOWN]) + (" ..." if len(missing) > SHOWN else "")
        raise UserError(
            f"{importer.setting} = {stage.source!r}: {len(missing)} of {len(needed)} images have "
            f"no file there ({some}); files are found by image name, such as "
            f"{folder / missing[0]}{'.png' if importer.kind == 'labels' else '.npz'}"
        )
    return samples, files


def _numbered(context: Context) -> tuple[str, ...]:
    """Return the classes in the order of the numbers in the files."""
    given = context.recipe.cams.classes
    return given or class_numbers(context.manifest)


def _read_cams(context: Context, files: Files, sample: Sample) -> SourceCams:
    size, classes = read_size(sample.image, sample.reading), context.manifest.classes
    return read_cams(files[sample.id], _numbered(context), classes, sample.tags, size)


def _bring_cams(context: Context, files: Files, shown: Shown, sample: Sample) -> tuple[str, ...]:
    if sample.id not in files:
        maps = np.zeros((0, *read_size(sample.image, sample.reading)), np.float32)
        save_cams(context.file(CAMS, sample), sample.tags, maps)
        return ()
    found = _read_cams(context, files, sample)
    save_cams(context.file(CAMS, sample), sample.tags, found.cams)
    return found.ignored


def _bring_cams_of_function(context: Context, sample: Sample) -> None:
    assert context.cams is not None
    image = load_image(sample.image, sample.reading)
    maps = np.zeros((0, *image.shape[:2]), np.float32)
    if sample.tags:
        names = tuple(context.manifest.classes[tag] for tag in sample.tags)
        maps = _checked_maps(context.cams(image, names), (len(names), *image.shape[:2]))
    save_cams(context.file(CAMS, sample), sample.tags, maps)


def _checked_maps(made: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Take the maps (K, H, W) of a user's function, an array or a tensor."""
    if hasattr(made, "detach"):  # a tensor, wherever it lies
        made = made.detach().float().cpu().numpy()
    maps = np.asarray(made, np.float32)
    if maps.shape != shape:
        raise UserError(f"the function for CAMs returned maps of {maps.shape}, asked were {shape}")
    if not np.isfinite(maps).all() or maps.min(initial=0) < 0 or maps.max(initial=0) > 1:
        raise UserError(
            "the function for CAMs returned values that are not finite, below 0 or above 1"
        )
    return maps


def _bring_labels(context: Context, files: Files, shown: Shown, sample: Sample) -> tuple[str, ...]:
    manifest = context.manifest
    labels = read_labels_source(
        files[sample.id],
        _numbered(context),
        manifest.classes,
        sample.tags,
        read_size(sample.image, sample.reading),
    )
    shown.write(sample, labels)
    return ()


def _bring_affinities(
    context: Context, files: Files, shown: Shown, sample: Sample
) -> tuple[str, ...]:
    affinity = read_affinity_source(
        files[sample.id], read_size(sample.image, sample.reading)
    ).affinity
    save_affinity(context.file(AFFINITIES, sample), affinity)
    return ()


IMPORTERS = {
    "compute_cams": Importer("cams.source", "cams", CAMS, _bring_cams),
    "mine_confident": Importer("confident.source", "labels", CONFIDENT, _bring_labels),
    "train_affinity": Importer("affinity.source", "affinity", AFFINITIES, _bring_affinities),
    "propagate": Importer("pseudo.source", "labels", PSEUDO, _bring_labels),
}
