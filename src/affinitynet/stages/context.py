"""What every stage is given: settings, data, and where its files lie."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from affinitynet.data import Manifest, Sample
from affinitynet.data.chosen_maps import read_sources, settled
from affinitynet.data.judgements import failed_seeds, read_seeds
from affinitynet.data.labels import read_made
from affinitynet.data.roles import samples_of
from affinitynet.data.transforms import LabelMap, Pixels
from affinitynet.data.verdicts import failed_classes
from affinitynet.engine.leading import wait_for
from affinitynet.errors import UserError
from affinitynet.hardware import Hardware
from affinitynet.run_folder.artifacts import Artifact
from affinitynet.run_folder.folder import atomic_write, output_path
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.setting_types import BY_CLASSIFIER
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.run_folder.stages import Stage, find_stage, stages_of

# An image (H, W, 3) uint8 and its K tags by name -> K maps, as an array or tensor (K, H, W).
CamFunction = Callable[[Pixels, tuple[str, ...]], Any]


@dataclass(frozen=True)
class Context:
    """A run as its stages see it; `cams` is the caller's own source of CAMs, where there is one.

    Of several processes one `leads`: it does what is done once, and completes a stage. The others
    ask `is_current` before they write: whether the stage is still the one that they began with.
    """

    recipe: Recipe
    manifest: Manifest
    root: Path
    cams: CamFunction | None = None
    leads: bool = True
    is_current: Callable[[], bool] = lambda: True

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of this recipe, in order."""
        return stages_of(self.recipe)

    @cached_property
    def failed(self) -> tuple[int, ...]:
        """The classes whose maps are no use: not learned, as held-out images say, or empty seeds.

        None where all fail: who goes on anyway wants to see their masks.
        """
        if self.recipe.networks.run:
            return self._numbers(self.recipe.networks.failed)
        if not self.recipe.classifier.hold_out:
            return ()
        mined = any(stage.name == "mine_confident" for stage in self.stages)
        seeds = read_seeds(self.root) if mined else []
        return self.unlearned if not seeds else failed_seeds(seeds)

    @cached_property
    def walk(self) -> WalkSettings:
        """The settings of the walk, `background: auto` decided by the maps."""
        return settled(self.recipe, self.root, self.manifest.classes)

    @property
    def unlearnt(self) -> tuple[int, ...]:
        """The classes that the segmenter of the run whose networks are used does not find."""
        return self._numbers(self.recipe.networks.unlearnt)

    def _numbers(self, names: Iterable[str]) -> tuple[int, ...]:
        classes = self.manifest.classes
        return tuple(classes.index(name) for name in names if name in classes)

    @property
    def unlearned(self) -> tuple[int, ...]:
        """The classes that held-out images say were not learned, and whose maps ask for that."""
        source = self.recipe.cams.source
        if source not in (*BY_CLASSIFIER, "auto") or not self.recipe.classifier.hold_out:
            return ()
        failed = failed_classes(self.root)
        if source in BY_CLASSIFIER:
            return failed
        # Maps by contrast don't ask the classifier.
        sources = read_sources(self.root, self.manifest.classes)
        return tuple(c for c in failed if sources[c] == "classifier")

    def stage(self, name: str) -> Stage:
        """Return the stage of that name."""
        return find_stage(name, self.stages)

    @property
    def hardware(self) -> Hardware:
        """Where and how networks are trained."""
        return self.hardware_at(self.recipe.precision)

    def hardware_at(self, precision: str) -> Hardware:
        """Where networks run, in a precision of a stage's own."""
        # The paper's recipes train no normalization, and their masks keep each of their bytes.
        fold = "trained" in (self.recipe.classifier.norm, self.recipe.segmenter.norm)
        return Hardware(self.recipe.device, precision, self.recipe.workers, fold)

    def samples(self, *roles: str) -> tuple[Sample, ...]:
        """Return the samples of the roles `train`, `val`, `figures`, each image once."""
        return samples_of(self.recipe, self.manifest, *roles)

    def folder(self, artifact: Artifact) -> Path:
        """Return the folder of an artifact."""
        return self.root / artifact.folder

    def labels(self, artifact: Artifact, sample: Sample) -> LabelMap:
        """Read the labels (H, W) that a stage of this run made of an image.

        Raises:
            UserError: the file is gone or damaged; says how to make it again.
        """
        return read_made(self.file(artifact, sample), self.maker(artifact))

    def maker(self, artifact: Artifact) -> str:
        """Name the stage of this run that makes an artifact."""
        return next(stage.name for stage in self.stages if artifact in stage.artifacts)

    def let_lead(self, file: Path) -> None:
        """Where another process leads, wait until it has written this file of a stage.

        Raises:
            Helped: it has ended before.
        """
        if not self.leads:
            wait_for(self.root, file)

    def borrow(self, file: Path) -> None:
        """Take a file of a stage from the run whose networks this one uses, if it does.

        What is there already stays: a stage that was interrupted goes on with it.

        Raises:
            UserError: that run has no such file.
        """
        run = self.recipe.networks.run
        if run is None or not self.leads or file.is_file():
            return
        source = run / file.relative_to(self.root)
        if not source.is_file():
            raise UserError(f"{source}: is missing, and this run uses the networks of {run}")
        with atomic_write(file) as temporary:
            shutil.copyfile(source, temporary)

    def file(self, artifact: Artifact, sample: Sample) -> Path:
        """Return where an artifact's file of an image lies."""
        return output_path(self.folder(artifact), sample.id, artifact.suffix)
