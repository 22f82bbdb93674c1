"""Fingerprints of what lies outside a run folder, from its content as it is now."""

from functools import partial
from pathlib import Path
from typing import Any

from affinitynet.data.holdout import judges, name_groups
from affinitynet.data.manifest import Manifest
from affinitynet.data.roles import samples_of
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import file_name, fingerprint, folder_name
from affinitynet.run_folder.freshness import GROUPS
from affinitynet.run_folder.recipe import Recipe, find_files, find_weights
from affinitynet.run_folder.records import StageFolder
from affinitynet.run_folder.setting_types import FUNCTION
from affinitynet.run_folder.stages import Stage

IMPORTED_SUFFIXES = (".npy", ".npz", ".png")


class Lookup:
    """`Outside` of a run that is about to use it: records serve only for what is gone.

    Where weights or imported files are gone, their recorded name stands, so that a finished run
    stays readable.
    """

    def __init__(self, recipe: Recipe, manifest: Manifest) -> None:
        """Look from the recipe's working and data folder at a data set."""
        self._recipe, self._manifest = recipe, manifest
        self._names: dict[tuple[str, str], str] = {}  # each read once, which takes long enough

    def images(self, stage: Stage, role: str) -> str | None:
        """Fingerprint the images and tags of a role's split."""
        if not samples_of(self._recipe, self._manifest, role):
            return None
        return self._once("images", role, lambda: self._manifest.fingerprint(self._split(role)))

    def truth(self, stage: Stage, role: str) -> str | None:
        """Fingerprint the ground truth of a role's split."""
        truth = self._manifest.truth_fingerprint
        return self._once("truth", role, lambda: truth(self._split(role)))

    def groups(self, stage: Stage) -> str | None:
        """Fingerprint which images show the same thing, where that chooses who is held out."""
        found: str | None = self._once("groups", "train", lambda: self._groups(stage))
        return found

    def weights(self, stage: Stage, key: str, weights: str) -> str:
        """Fingerprint weights by their content: a moved file changes nothing, a new one does."""
        # The name belongs to it, so that a message can say which file it was.
        name = Path(weights).name
        try:
            file = find_weights(weights, self._recipe.data)
        except UserError:
            # Of a file with the same name only: weights that were exchanged and then lost are
            # another matter.
            recorded = self._recorded(stage, key)
            return recorded if recorded.startswith(f"{name} ") else f"{name} missing"
        assert file is not None  # `imagenet` and `none` are never looked up
        return f"{name} {self._once('file', str(file), lambda: file_name(file))}"

    def files(self, stage: Stage, key: str, source: str) -> str:
        """Fingerprint imported files by their content; a Python function goes by its own name."""
        if source.startswith(FUNCTION):
            return source
        if key == "networks.run":
            borrowed = [Path(source) / name for name in stage.borrows]
            # Only a run that is gone leaves finished stages as they are: a changed one does not.
            if not all(file.is_file() for file in borrowed):
                return self._recorded(stage, key) or "files missing"
            names = [self._once("file", str(file), partial(file_name, file)) for file in borrowed]
            return f"files {fingerprint(names)}"
        try:
            folder = find_files(source, key, self._recipe.data)
        except UserError:
            return self._recorded(stage, key) or "files missing"
        content = self._once("folder", str(folder), lambda: folder_name(folder, IMPORTED_SUFFIXES))
        return f"files {content}"

    def _groups(self, stage: Stage) -> str | None:
        train, val = (samples_of(self._recipe, self._manifest, role) for role in ("train", "val"))
        if judges(train, val):
            return None
        if not self._manifest.root.is_dir():
            return self._recorded(stage, GROUPS)
        return name_groups(self._manifest.root, train)

    def _split(self, role: str) -> str | None:
        split: str | None = getattr(self._recipe.dataset, role)
        return split

    def _recorded(self, stage: Stage, key: str) -> str:
        plan = StageFolder(self._recipe.out / stage.folder, stage.name).plan()
        return str(plan.settings.get(key) or "") if plan else ""

    def _once(self, kind: str, what: str, name: Any) -> str:
        if (kind, what) not in self._names:
            self._names[kind, what] = name()
        return self._names[kind, what]
