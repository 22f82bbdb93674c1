"""The record in the middle: what a data set holds, whatever layout it came in."""

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from affinitynet.data.labels import ignore_index, voc_palette
from affinitynet.data.names import check_name
from affinitynet.data.sample import Sample
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import (
    RECIPE,
    atomic_write,
    check_relative,
    file_name,
    fingerprint,
    fingerprint_text,
    is_temporary,
)
from affinitynet.run_folder.records import PLAN
from affinitynet.run_folder.settings_base import InputSettings
from affinitynet.run_folder.urls import is_url

RUN_FILE = "manifest.jsonl"  # in a run folder
OLD_RUN_FILE = "manifest.json"  # of version 0.1
FORMAT = 2
ONLY_TAG = -1  # in `truth_values`
# What reading other lines raises; brackets nested too deep are a RecursionError.
_NO_MANIFEST = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(StopIteration, OverflowError, RecursionError),
)
MOST_TAGS = 254  # of an image: the stages number them from 1, and 255 is neutral


@dataclass(frozen=True)
class Manifest:
    """Classes, splits and samples of one data set.

    root: the data set's folder (absolute); images and masks lie below it.
    classes: names; class ``c`` has label ``c + 1``, label 0 is background.
    splits: name -> samples. A sample may be in several splits.
    truth_values: raw value in the ground-truth files -> label; None where they are the same.
        The label `ONLY_TAG` stands for the only tag of the image.
    reading: how images become bytes, where they are not 8-bit gray or RGB.
    images: a URL below which the images lie, "" where they lie below the root.
    notes: what the reader noticed and left as it is, one sentence each (shown by ``check``).
    layout, found: the layout's name and why it was taken, known while the data set is read.

    Raises:
        UserError: unsafe ids, ids that stand for two images, tags out of range or more than 254,
            class names that no list can hold, and file names that are not UTF-8.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[Sample, ...]]
    truth_values: dict[int, int] | None = None
    notes: tuple[str, ...] = ()
    reading: InputSettings | None = None
    images: str = ""
    layout: str = field(default="", compare=False)
    found: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Check what the class promises."""
        _check_encoding(str(self.root))  # first, as every message names it
        if not self.classes:
            raise UserError(f"{self.root}: has no classes; no image in it carries a tag")
        for name in self.classes:
            check_name(name, f"{self.root}: the class")
        if len(set(self.classes)) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise UserError(f"{self.root}: the class {twice!r} is listed twice; take one out")
        if not any(self.splits.values()):
            raise UserError(f"{self.root}: holds no images; the data set is empty")
        self._check_ids()
        for sample in self.samples:
            check_relative(sample.id, "The image id")
            _check_no_leftover(sample)
            _check_encoding(sample.image_text)
            _check_tags(sample, len(self.classes))

    @cached_property
    def _ids_differ(self) -> bool:
        """Whether surely no id occurs twice, in one split or in two."""
        hashes = np.fromiter(
            (hash(s.id) for samples in self.splits.values() for s in samples), np.int64
        )
        hashes.sort()
        return not bool((hashes[1:] == hashes[:-1]).any())

    def _check_ids(self) -> None:
        # By hashes alone where all differ, which is usual: a set of millions of names is large.
        if self._ids_differ:
            return
        known: dict[str, Sample] = {}
        for name, samples in self.splits.items():
            if len({sample.id for sample in samples}) < len(samples):
                ids = [sample.id for sample in samples]
                twice = next(i for i in ids if ids.count(i) > 1)
                raise UserError(
                    f"{self.root}: the image id {twice!r} occurs twice in the split {name!r}; take "
                    "one out"
                )
            for sample in samples:
                first = known.setdefault(sample.id, sample)
                if first != sample:
                    raise UserError(
                        f"{sample.image}: its id {sample.id!r} stands for {first.image} too (or "
                        "has different tags); rename one"
                    )

    def with_reading(self, reading: InputSettings | None) -> "Manifest":
        """Return the same data set, its images read so."""
        if reading == self.reading:
            return self
        splits = {
            name: tuple(sample.replace(reading=reading) for sample in samples)
            for name, samples in self.splits.items()
        }
        return replace(self, splits=splits, reading=reading)

    def split(self, name: str) -> tuple[Sample, ...]:
        """Return the samples of a split, in the data set's order.

        Raises:
            UserError: no such split, with the known ones.
        """
        if name not in self.splits:
            raise UserError(
                f"{self.root}: has no split {name!r}; it has {', '.join(sorted(self.splits))}"
            )
        return self.splits[name]

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """Every sample once, in the order of the splits."""
        if self._ids_differ:
            return tuple(sample for samples in self.splits.values() for sample in samples)
        return tuple({s.id: s for samples in self.splits.values() for s in samples}.values())

    @property
    def ignore_index(self) -> int:
        """Label of neutral and void pixels: 255, or 65535 with 255 or more classes."""
        return ignore_index(len(self.classes))

    @property
    def palette(self) -> list[int]:
        """VOC's color map, 768 integers R, G, B, R, ... for `write_labels`."""
        return voc_palette()

    def fingerprint(self, *names: str | None) -> str:
        """Hash the classes, ids and tags of the named splits, or of all.

        It is what trainings depend on. The place of the data on the disk and the ground truth are
        left out, so moving a data set or adding masks to it makes no trained stage stale.
        """
        return fingerprint_text(self._tags_as_text(names))

    def _tags_as_text(self, names: tuple[str | None, ...]) -> Iterator[str]:
        """Yield `[classes, {split: [[id, tags], ...]}]` as JSON, an image at a time."""
        dump = json.JSONEncoder(separators=(",", ":")).encode
        yield f"[{dump(self.classes)},{{"
        for number, (name, samples) in enumerate(sorted(self._chosen(names).items())):
            yield f"{',' * bool(number)}{dump(name)}:["
            for place, sample in enumerate(samples):
                yield f"{',' * bool(place)}{dump([sample.id, sample.tags])}"
            yield "]"
        yield "}]"

    def truth_fingerprint(self, *names: str | None) -> str:
        """Hash ground truth likewise, by its content, so that copies of a data set are equal."""
        chosen = (sample for samples in self._chosen(names).values() for sample in samples)
        files = {sample.id: sample.mask for sample in chosen if sample.mask is not None}
        # Once for each file: one COCO file holds the truth of many images.
        contents = {file: file_name(file) for file in set(files.values())}
        masks = {sample_id: contents[file] for sample_id, file in files.items()}
        return fingerprint([self.classes, self.truth_values, masks])

    def _chosen(self, names: tuple[str | None, ...]) -> dict[str, tuple[Sample, ...]]:
        return {name: split for name, split in self.splits.items() if not names or name in names}

    def to_lines(self) -> Iterator[str]:
        """Yield the manifest as lines of JSON: one about the data set, then one for each image.

        Paths are relative to the root; ``splits`` of an image give its place in each split.
        """
        # A line an image: a data set of millions is written and read without all of it in one text.
        head = {
            "format": FORMAT,
            "root": str(self.root),
            "classes": self.classes,
            "truth_values": self.truth_values,
            "notes": self.notes,
            "splits": list(self.splits),
        }
        reading = self.reading
        head |= {"reading": reading.model_dump(mode="json")} if reading else {}
        yield _line(head | ({"images": self.images} if self.images else {}))
        # All samples begin with the first split; in the others each may have a place too.
        first, *others = self.splits
        places = {n: {s.id: place for place, s in enumerate(self.splits[n])} for n in others}
        for number, sample in enumerate(self.samples):
            own = {name: found[sample.id] for name, found in places.items() if sample.id in found}
            in_first = {first: number} if number < len(self.splits[first]) else {}
            entry = {
                "id": sample.id,
                "image": self._relative(sample.image, self.images_root),
                "tags": sample.tags,
                "mask": None if sample.mask is None else self._relative(sample.mask, self.root),
                "splits": in_first | own,
            }
            yield _line(entry | ({"group": sample.group} if sample.group else {}))

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> "Manifest":
        """Read what `to_lines` yielded, a line at a time.

        Raises:
            UserError: lines that are no manifest, and paths that lead out of the root.
        """
        reader = iter(lines)
        try:
            head = json.loads(next(reader))
            if head["format"] != FORMAT:
                raise UserError(f"it is of format {head['format']!r}, this version reads {FORMAT}")
            # As text: paths intern their parts, and the table of these grows with the images.
            base, images = _before_names(Path(head["root"])), head.get("images", "")
            if images and not is_url(images):
                raise UserError(f"its images lie at {images!r}, which is no URL")
            values, reading = head["truth_values"], head.get("reading")
            reading = reading and InputSettings.model_validate(reading)
            of_images = _before_names(Path(images)) if images else base
            # Lines come in the order of all samples; each split has an order of its own.
            splits: dict[str, list[Sample]] = {name: [] for name in head["splits"]}
            places = {name: array("q") for name in splits}
            for line in reader:
                entry = json.loads(line)
                sample = _sample(base, of_images, entry, reading)
                for name, place in entry["splits"].items():
                    splits[name].append(sample)
                    places[name].append(int(place))
            return cls(
                root=Path(head["root"]),
                classes=tuple(head["classes"]),
                splits={name: _in_order(found, places[name]) for name, found in splits.items()},
                # JSON knows keys of text only.
                truth_values=None if values is None else {int(k): v for k, v in values.items()},
                notes=tuple(head["notes"]),
                reading=reading,
                images=images,
            )
        except _NO_MANIFEST as error:
            raise UserError(f"not a manifest that AffinityNet wrote ({error!r})") from error

    def write(self, folder: Path) -> None:
        """Write the manifest into a run folder, line by line."""
        with (
            atomic_write(folder / RUN_FILE) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as file,
        ):
            file.writelines(self.to_lines())

    @classmethod
    def of_run(cls, folder: Path) -> "Manifest":
        """Read the manifest of a run folder.

        Raises:
            UserError: there is none, or a bad one, or an earlier version made the run.
        """
        check_run_folder(folder)
        path = folder / RUN_FILE
        try:
            with path.open(encoding="utf-8") as file:
                return cls.from_lines(file)
        except (UserError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: {error}") from error
        except OSError as error:
            raise UserError(f"{path}: can't be read ({error.strerror})") from error

    @property
    def images_root(self) -> Path:
        """What all images lie below: the root, or a URL."""
        return Path(self.images) if self.images else self.root

    def _relative(self, path: Path, root: Path) -> str:
        try:
            return path.relative_to(root).as_posix()
        except ValueError:
            raise UserError(f"{path}: is not inside the data set's folder {root}") from None


def is_run_folder(folder: Path) -> bool:
    """Tell whether a run made a folder: it has a manifest, or a recipe beside a stage's plan."""
    own = folder / RUN_FILE, folder / RECIPE
    return own[0].is_file() or (own[1].is_file() and any(folder.glob(f"*/{PLAN}")))


def check_run_folder(folder: Path) -> None:
    """Refuse a folder that is no run folder, or one of a version with other files.

    Raises:
        UserError: which of the two, and what to do.
    """
    if is_run_folder(folder):
        return
    if (folder / OLD_RUN_FILE).is_file():
        raise UserError(
            f"{folder}: is a run of version 0.1, which this version doesn't read: its masks (PNG) "
            "and segmenter/ stay usable as they are; to go on, start a new run with another --out"
        )
    raise UserError(f"{folder}: is no run folder ({RUN_FILE} is missing)")


def _line(values: dict[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":")) + "\n"


def _in_order(samples: list[Sample], places: Sequence[int]) -> tuple[Sample, ...]:
    """Return samples in the order of their places, which they have already as a rule."""
    if all(first < second for first, second in pairwise(places)):
        return tuple(samples)
    return tuple(dict(sorted(zip(places, samples, strict=True), key=lambda both: both[0])).values())


def _sample(base: str, images: str, entry: dict[str, Any], reading: InputSettings | None) -> Sample:
    return Sample(
        entry["id"],
        _inside(images, entry["image"]),
        tuple(int(tag) for tag in entry["tags"]),
        None if entry["mask"] is None else _inside(base, entry["mask"]),
        str(entry.get("group", "")),
        reading,
    )


def _before_names(root: Path) -> str:
    return str(root / "_").removesuffix("_")


def _inside(base: str, relative: str) -> str:
    # A run folder from elsewhere must not lead out of the data set.
    check_relative(relative, "The manifest's path")
    return base + relative.replace("/", os.sep)


def _check_no_leftover(sample: Sample) -> None:
    """Refuse ids whose masks the next run would take for what a stopped one left half written."""
    if any(is_temporary(part) for part in sample.id.split("/")):
        raise UserError(
            f"{sample.image}: is named as this program names half written files; rename it"
        )


def _check_tags(sample: Sample, classes: int) -> None:
    tags = sample.tags
    if list(tags) != sorted(set(tags)) or (tags and not 0 <= tags[0] <= tags[-1] < classes):
        raise UserError(
            f"{sample.image}: its tags {tags} must be sorted class indices below {classes}"
        )
    if len(tags) > MOST_TAGS:
        raise UserError(
            f"{sample.image}: has {len(tags)} tags, and the work on an image takes {MOST_TAGS} at "
            "most; leave the image out or cut it up"
        )


def _check_encoding(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path!r}: the name is not UTF-8, so no file can record it; rename it"
        ) from error
