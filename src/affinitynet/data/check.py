"""What a data set holds and what is wrong with it, as plain data; the command line prints it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from affinitynet.data.check_splits import shared_images, unused_splits
from affinitynet.data.images import fits_unturned, load_image, read_orientation, read_size
from affinitynet.data.manifest import Manifest
from affinitynet.data.readings import describe, find_reading
from affinitynet.data.sample import Sample
from affinitynet.data.splits import DEFAULT_SPLIT
from affinitynet.data.truth import check_size, is_binary, load_truth
from affinitynet.data.voc import SBD_MASKS
from affinitynet.errors import UserError
from affinitynet.progress import task

FEW_IMAGES = 20  # of a class: with fewer, expect poor CAMs
# Decoding leaves Python's lock, so that threads are enough.
_THREADS = 4
_AHEAD = 1024  # samples that wait for a thread


@dataclass(frozen=True)
class Problem:
    """Something wrong with one sample (its id), or with all ("": no id), and a sentence."""

    id: str
    message: str


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found.

    images: number of different images. splits: split -> number of images.
    class_counts: split -> images per class, in the order of ``classes``.
    untagged: split -> images without a tag (background only).
    with_truth: split -> images with ground truth.
    height, width: (smallest, median, largest) in pixels over the images that can be decoded;
        None where there are none.
    problems: samples that will stop a run or falsify a figure. warnings: traps, and what was not
        read, one sentence each.
    layout, found: which layout was read, and why that one.
    """

    classes: tuple[str, ...]
    images: int
    splits: dict[str, int]
    class_counts: dict[str, tuple[int, ...]]
    untagged: dict[str, int]
    with_truth: dict[str, int]
    height: tuple[int, float, int] | None
    width: tuple[int, float, int] | None
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    layout: str = ""
    found: str = ""

    @property
    def to_fix(self) -> tuple[str, ...]:
        """The problems in one line each; none says that the data set is ready."""
        return tuple(f"{p.id}: {p.message}" if p.id else p.message for p in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as plain data, with `ready` and `to_fix`."""
        return asdict(self) | {"ready": not self.problems, "to_fix": self.to_fix}


def check_dataset(manifest: Manifest, page: int | None = None) -> CheckReport:
    """Decode every image and mask of a data set and report what it holds.

    page: which one of TIFFs of several (`dataset.page`).
    """
    manifest, said, fault = _read_as_run(manifest, page)
    samples = manifest.samples
    found = _inspect_each(partial(_inspect, manifest), samples, "check")
    sizes = [finding.size for finding in found if finding.size is not None]
    return CheckReport(
        classes=manifest.classes,
        images=len(samples),
        splits={name: len(split) for name, split in manifest.splits.items()},
        class_counts={n: _class_counts(manifest, split) for n, split in manifest.splits.items()},
        untagged={n: sum(not s.tags for s in split) for n, split in manifest.splits.items()},
        with_truth={
            n: sum(s.mask is not None for s in split) for n, split in manifest.splits.items()
        },
        height=_spread(size[0] for size in sizes),
        width=_spread(size[1] for size in sizes),
        problems=(
            *(problem for finding in found for problem in finding.problems),
            *(Problem("", message) for message in contradictions(manifest, found)),
            *_not_said(found, fault),
        ),
        warnings=(
            # The reader's own first: they say how the data set was understood, on which the others
            # rest.
            *manifest.notes,
            *said,
            *partial_truth(manifest, manifest.splits),
            *_unturned(found),
            *_alike_but_for_case(samples),
            *_unlike_tags(manifest, found),
            *unused_splits(manifest),
            *shared_images(manifest),
            *_coarse_truth(manifest),
            *_rare_classes(manifest),
        ),
        layout=manifest.layout,
        found=manifest.found,
    )


def _read_as_run(manifest: Manifest, page: int | None) -> tuple[Manifest, list[str], str]:
    """Let the images be read as a run reads them; say how, or why that can't be found out."""
    # A run measures the images that it trains on; without that split all are as good.
    measured = manifest.splits.get(DEFAULT_SPLIT) or manifest.samples
    try:
        reading = find_reading(measured, page)
    except UserError as error:
        return manifest, [], str(error)
    return manifest.with_reading(reading), [describe(reading)] if reading else [], ""


def _not_said(found: "Iterable[Finding]", fault: str) -> list[Problem]:
    said = {problem.message for finding in found for problem in finding.problems}
    return [Problem("", fault)] if fault and fault not in said else []


def only_class(manifest: Manifest) -> str | None:
    """Return the only class if every image has it: there is nothing to tell it from."""
    samples = manifest.samples
    # One image alone tells nothing of its class: it is "every image" whatever it shows.
    alone = len(manifest.classes) == 1 and len(samples) > 1 and all(s.tags for s in samples)
    return manifest.classes[0] if alone else None


def partial_truth(manifest: Manifest, splits: Iterable[str]) -> list[str]:
    """Say which images of a split are left out of its figures because others have masks."""
    sentences = []
    for name in splits:
        split = manifest.splits[name]
        without = [sample.id for sample in split if sample.mask is None]
        # No mask at all is the usual case, and no figure is expected then.
        if without and len(without) < len(split):
            sentences.append(
                f"{len(without)} of the {len(split)} images of {name} have no mask and are left "
                f"out of its figures, {without[0]} first"
            )
    return sentences


@dataclass(frozen=True, slots=True)
class Finding:
    """What one sample's files say: image size, problems, and tags that the mask contradicts.

    binary: the mask holds 0 and 255 only. unturned: the image is turned by EXIF, the mask is not,
    and its size fits either way.
    """

    id: str
    size: tuple[int, int] | None
    problems: tuple[Problem, ...]
    not_in_mask: tuple[int, ...] = ()
    not_in_tags: tuple[int, ...] = ()
    tagged: bool = False
    binary: bool = False
    unturned: bool = False


def inspect_truth(manifest: Manifest, sample: Sample, size: tuple[int, int] | None) -> Finding:
    """Read a sample's mask, and hold it against its tags and the size (H, W) of its image."""
    try:
        truth = load_truth(manifest, sample)
        if size is not None:
            check_size(sample, truth.shape, size)
    except UserError as error:
        return Finding(sample.id, size, (Problem(sample.id, str(error)),))
    # bincount, as np.unique would sort all pixels.
    shown = {int(v) - 1 for v in np.flatnonzero(np.bincount(truth.ravel()))}
    # Background and void are no classes (both less 1 here, as all values are).
    shown -= {-1, manifest.ignore_index - 1}
    return Finding(
        sample.id,
        size,
        (),
        not_in_mask=tuple(sorted(set(sample.tags) - shown)),
        not_in_tags=tuple(sorted(shown - set(sample.tags))),
        tagged=bool(sample.tags),
        # With 16-bit labels 255 is a class as any other.
        binary=manifest.ignore_index == 255 and is_binary(truth),
        unturned=size is not None and _is_unturned(sample, size),
    )


def contradictions(manifest: Manifest, found: Iterable[Finding]) -> list[str]:
    """Say what is wrong with a data set as a whole: a class in all images, masks without any."""
    sentences = []
    if name := only_class(manifest):
        sentences.append(
            f"the only class is {name!r}, and every image has it, so there is nothing to tell it "
            "from; add images without it, with no tag"
        )
    masks = contradictions_of_masks(found)
    sentences += [masks] if masks else []
    return sentences + _nothing_to_learn(manifest)


def _nothing_to_learn(manifest: Manifest) -> list[str]:
    """Say that the split that recipes train on is missing, or shows no class at all."""
    name = DEFAULT_SPLIT
    others = [n for n, split in manifest.splits.items() if any(s.tags for s in split)]
    advice = f"name another by dataset.train ({', '.join(others)})" if others else "add tags"
    if name not in manifest.splits:
        return [f"there is no split {name}, which recipes train on; {advice}"]
    if name not in others:
        return [f"no image of the split {name} has a tag, so nothing can be learned; {advice}"]
    return []


def contradictions_of_masks(found: Iterable[Finding]) -> str:
    """Say that no mask of a tagged image shows a class, as with black and white masks, or ""."""
    masks = [finding for finding in found if finding.tagged and not finding.problems]
    # One such mask may be right (nothing but void to count); all of them are a habit of drawing.
    if not masks or not all(finding.binary for finding in masks):
        return ""
    return (
        f"the masks hold 0 and 255 only ({masks[0].id} first), which say background and not to be "
        "counted; write the class's number (1 for the first class) in place of 255"
    )


def _inspect(manifest: Manifest, sample: Sample) -> Finding:
    size: tuple[int, int] | None = None
    problems: tuple[Problem, ...] = ()
    try:
        # Decoded whole: a file that was cut off has a sound head, and would stop the run hours
        # later.
        height, width = load_image(sample.image, sample.reading).shape[:2]
        size = (height, width)
    except UserError as error:
        problems = (Problem(sample.id, str(error)),)
    if sample.mask is None:
        return Finding(sample.id, size, problems)
    # Also without a size: a mask can be bad by itself, and both should be said at once.
    finding = inspect_truth(manifest, sample, size)
    return replace(finding, problems=(*problems, *finding.problems))


def inspect_masks(manifest: Manifest, samples: Sequence[Sample]) -> list[Finding]:
    """Read the masks of samples that have one, but only the heads of their images."""

    def inspect(sample: Sample) -> Finding:
        try:
            size = read_size(sample.image, sample.reading)
        except UserError as error:
            return Finding(sample.id, None, (Problem(sample.id, str(error)),))
        return inspect_truth(manifest, sample, size)

    return _inspect_each(inspect, samples, "read masks")


def _inspect_each(
    inspect: Callable[[Sample], Finding], samples: Sequence[Sample], doing: str
) -> list[Finding]:
    found: list[Finding] = []
    with ThreadPoolExecutor(_THREADS) as pool, task(doing, len(samples)) as progress:
        # Not all in one map: each that waits takes 2 kB.
        for start in range(0, len(samples), _AHEAD):
            for finding in pool.map(inspect, samples[start : start + _AHEAD]):
                found.append(finding)
                progress.advance()
    return found


def _is_unturned(sample: Sample, size: tuple[int, int]) -> bool:
    # COCO's outlines have no EXIF of their own.
    if sample.mask is None or sample.mask.suffix.lower() == ".json":
        return False
    return fits_unturned(sample.image, size) and read_orientation(sample.mask) == 1


def _unturned(found: Iterable[Finding]) -> list[str]:
    ids = [finding.id for finding in found if finding.unturned]
    if not ids:
        return []
    return [
        f"{len(ids)} images are turned by EXIF and their masks are not ({ids[0]} first): make sure "
        "that these masks fit the upright image"
    ]


def _class_counts(manifest: Manifest, samples: tuple[Sample, ...]) -> tuple[int, ...]:
    counts = Counter(tag for sample in samples for tag in sample.tags)
    return tuple(counts[c] for c in range(len(manifest.classes)))


def _spread(lengths: Iterable[int]) -> tuple[int, float, int] | None:
    values = sorted(lengths)
    return (values[0], median(values), values[-1]) if values else None


def _alike_but_for_case(samples: Iterable[Sample]) -> list[str]:
    """Images whose results are one file on a disk that doesn't tell case apart (Windows, macOS)."""
    ids: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        ids[sample.id.casefold()].append(sample.id)
    alike = [group for group in ids.values() if len(group) > 1]
    if not alike:
        return []
    return [
        f"{sum(map(len, alike))} images have names that differ only in case "
        f"({' and '.join(alike[0])}): rename them before the run goes to a Windows or macOS disk"
    ]


def _unlike_tags(manifest: Manifest, found: list[Finding]) -> list[str]:
    warnings = []
    for field, sentence in (
        ("not_in_tags", "show a class in the mask that is not among their tags"),
        ("not_in_mask", "have a tag without a single pixel of it in the mask"),
    ):
        cases = [(f.id, getattr(f, field)[0]) for f in found if getattr(f, field)]
        if cases:
            sample_id, index = cases[0]
            warnings.append(
                f"{len(cases)} images {sentence} ({sample_id}: {manifest.classes[index]})"
            )
    return warnings


def _coarse_truth(manifest: Manifest) -> list[str]:
    """Splits whose masks come from SBD, or may: its outlines are coarser than VOC's own."""
    warnings = []
    for name, split in manifest.splits.items():
        coarse = sum(s.mask is not None and SBD_MASKS in s.mask.parts for s in split)
        if coarse:
            warnings.append(
                f"{coarse} of the {len(split)} masks of {name} are SBD's ({SBD_MASKS}), coarser "
                "than VOC's own: take figures on a split with VOC's masks (VOC's train or val)"
            )
    for name, split in manifest.splits.items():
        finer = manifest.splits.get(f"{name}_precise")
        if finer is not None and len(finer) < len(split):
            warnings.append(
                f"{name} has {len(split)} images and {name}_precise {len(finer)}: the masks of the "
                f"others are the coarser ones, so take figures on {name}_precise"
            )
    return warnings


def _rare_classes(manifest: Manifest) -> list[str]:
    """Classes that a classifier can hardly learn: few images in the split to train on."""
    name = "train" if "train" in manifest.splits else next(iter(manifest.splits))
    counts = _class_counts(manifest, manifest.splits[name])
    rare = [f"{manifest.classes[c]} ({n})" for c, n in enumerate(counts) if n < FEW_IMAGES]
    if not rare:
        return []
    more = f" and {len(rare) - 10} more" if len(rare) > 10 else ""
    return [
        f"{len(rare)} class{'es have' if len(rare) > 1 else ' has'} fewer than {FEW_IMAGES} "
        f"images in {name}: "
        f"{', '.join(rare[:10])}{more}"
    ]
