"""A run folder as the page sees it: its images, what is known of each, and its layers."""

import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from affinitynet.data import Sample, load_truth, read_labels
from affinitynet.data.cams import load_cams
from affinitynet.data.chosen_maps import settled
from affinitynet.data.corrections import (
    correct_labels,
    corrected_samples,
    correction_file,
    read_correction,
)
from affinitynet.data.of_run import manifest_of
from affinitynet.data.roles import count_files, samples_of
from affinitynet.data.trust import read_trust
from affinitynet.errors import UserError
from affinitynet.report.pictures import class_color
from affinitynet.run_folder.artifacts import (
    AFFINITIES,
    ARTIFACTS,
    CAMS,
    CHOICE,
    CORRECTIONS,
    MASKS,
    PSEUDO,
    WALK,
    Artifact,
)
from affinitynet.run_folder.folder import RECIPE, output_path
from affinitynet.run_folder.freshness import Freshness
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.setting_types import is_imported
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.run_folder.stages import final_masks, stages_of
from affinitynet.run_folder.store import is_there

TRUTH = "truth"
Planes = NDArray[np.uint8] | NDArray[np.uint16]


class Viewed:
    """A run that is looked at; images are named by their place in `samples`, never by a path."""

    def __init__(self, root: Path) -> None:
        """Read the recipe and the manifest of a run folder.

        Raises:
            UserError: no run folder, or a damaged one.
        """
        self.root = root
        self.manifest = manifest_of(root)
        self.recipe = Recipe.load(root / RECIPE, out=root)
        found = samples_of(self.recipe, self.manifest, "train", "figures", "val")
        self.samples = tuple(sorted(found, key=lambda sample: sample.id))
        self.measures: dict[int, dict[str, Any]] = {}
        self._stop = threading.Event()

    @property
    def final(self) -> Artifact:
        """The masks that the run ends with."""
        return final_masks(self.recipe)

    @cached_property
    def layers(self) -> tuple[tuple[str, str], ...]:
        """Names and titles of what can be laid over an image, in the order of the stages."""
        made = {artifact for stage in stages_of(self.recipe) for artifact in stage.artifacts}
        shown = [(a.folder, a.title) for a in ARTIFACTS if a in made and a.title]
        return (*shown, (TRUTH, "Ground truth"))

    @property
    def walks(self) -> bool:
        """Whether the walk can be decided again: its affinities were kept."""
        return self.recipe.pseudo.source == "walk" and (
            "affinities" in self.recipe.walk.keep or is_imported(self.recipe.affinity.source)
        )

    @property
    def walk(self) -> WalkSettings:
        """The recipe's settings of the walk, `background: auto` decided once maps are chosen."""
        chosen = self.root / CAMS.folder / CHOICE
        if self.recipe.cams.source == "auto" and not chosen.is_file():
            return self.recipe.walk  # the run has not come so far
        return settled(self.recipe, self.root, self.manifest.classes)

    def facts(self) -> dict[str, Any]:
        """Say what the page shows of the run and its images."""
        table = read_trust(self.recipe)
        # Without a table the page sorts by name, and says so.
        trust = dict(zip(table["image"], table["trust"], strict=True)) if table else {}
        corrected = {s.id for s in corrected_samples(self.root, self.samples)}
        names, palette = self.manifest.classes, self._colors()
        return {
            "name": self.recipe.name,
            "folder": self.root.resolve().name,
            "classes": [{"name": n, "color": c} for n, c in zip(names, palette, strict=True)],
            "neutral": self.manifest.ignore_index,
            "layers": [{"name": name, "title": title} for name, title in self.layers],
            "final": self.final.folder,
            "walk": self.walk.model_dump(mode="json"),
            "walks": self.walks,
            "trust": bool(trust),
            "images": [
                {
                    "id": sample.id,
                    "tags": sample.tags,
                    "trust": trust.get(sample.id),
                    "corrected": sample.id in corrected,
                }
                for sample in self.samples
            ],
            "state": self.state(),
        }

    def state(self) -> list[str]:
        """Say which stages are not finished, a line each."""
        count = lambda stage: count_files(self.recipe, self.manifest, stage)  # noqa: E731
        states = Freshness(self.recipe).states(count)
        return [f"{status.name}: {status}" for status in states if not status.finished]

    def sample(self, index: int) -> Sample:
        """Return the image of that number; UserError where there is none."""
        if not 0 <= index < len(self.samples):
            raise UserError(f"there is no image {index}; there are {len(self.samples)}")
        return self.samples[index]

    def file(self, artifact: Artifact, sample: Sample) -> Path:
        """Return where an artifact's file of an image lies."""
        return output_path(self.root / artifact.folder, sample.id, artifact.suffix)

    def planes(self, index: int, layer: str) -> Planes | None:
        """Return a layer of an image, None where it was not made.

        (1, H, W) labels; of CAMs (2, H, W): the label of the strongest map, and its value
        times 255.

        Raises:
            UserError: no such layer, or its file can't be read.
        """
        sample, classes = self.sample(index), len(self.manifest.classes)
        if layer == CORRECTIONS:
            correction = read_correction(self.root, sample.id, classes)
            return None if correction is None else correction[None]
        if layer not in dict(self.layers):
            raise UserError(f"there is no layer {layer!r}")
        if layer == TRUTH:
            return None if sample.mask is None else load_truth(self.manifest, sample)[None]
        artifact = next(a for a in ARTIFACTS if a.folder == layer)
        file = self.file(artifact, sample)
        if not is_there(file):
            return None
        if artifact == CAMS:
            return _strongest(*load_cams(file, classes=classes))
        return read_labels(file)[None]

    def final_labels(self, sample: Sample) -> NDArray[np.integer] | None:
        """Return the mask that counts for an image, with its correction; None where none is made.

        A corrected image without a mask has its correction alone.
        """
        file, classes = self.file(self.final, sample), len(self.manifest.classes)
        if not is_there(file):
            return read_correction(self.root, sample.id, classes)
        return correct_labels(read_labels(file), self.root, sample.id, classes)

    def measure(self, index: int) -> None:
        """Find out how empty a mask is, and how far two stages disagree on it."""
        sample = self.samples[index]
        try:
            mask = self.final_labels(sample)
            first = self.file(PSEUDO if self.final == MASKS else WALK, sample)
            other = read_labels(first) if is_there(first) else None
        except UserError:
            mask = other = None
        found: dict[str, Any] = {"index": index, "empty": None, "area": None, "disagreement": None}
        if mask is not None:
            neutral = self.manifest.ignore_index
            shown = (mask > 0) & (mask != neutral)
            found["area"] = round(float(shown.mean()), 4)
            labels = {tag + 1 for tag in sample.tags}
            found["empty"] = bool(labels) and not labels & set(np.unique(mask).tolist())
            if other is not None and other.shape == mask.shape:
                either = (shown | (other > 0)) & (mask != neutral) & (other != neutral)
                apart = (mask != other) & either
                found["disagreement"] = round(float(apart.sum() / max(either.sum(), 1)), 4)
        self.measures[index] = found

    def measure_all(self, first: Callable[[], None]) -> None:
        """Measure every image in a thread of its own, after `first`; it ends with the program."""

        def work() -> None:
            first()
            for index in range(len(self.samples)):
                if self._stop.is_set():
                    return
                self.measure(index)

        threading.Thread(target=work, daemon=True, name="measures").start()

    def close(self) -> None:
        """Let the thread end."""
        self._stop.set()

    def correction(self, sample: Sample) -> Path:
        """Return where the correction of an image lies."""
        return correction_file(self.root, sample.id)

    def has_affinities(self, sample: Sample) -> bool:
        """Whether the walk of an image can be decided again."""
        both = (self.file(AFFINITIES, sample), self.file(CAMS, sample))
        return self.walks and all(is_there(file) for file in both)

    def _colors(self) -> list[tuple[int, int, int]]:
        return [class_color(label) for label in range(1, len(self.manifest.classes) + 1)]


def _strongest(classes: NDArray[np.int64], cams: NDArray[np.float32]) -> Planes:
    if not len(classes):
        return np.zeros((2, *cams.shape[1:]), np.uint8)
    place = cams.argmax(0)
    value = np.take_along_axis(cams, place[None], 0)[0]
    strength = np.rint(np.clip(value, 0, 1) * 255)
    dtype = np.uint8 if classes.max() < 255 else np.uint16
    labels = (classes + 1)[place]
    return np.stack([labels.astype(dtype), strength.astype(dtype)])
