"""Which images play which role in a run: a role (train, val, figures) is not a split."""

from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.run_folder.folder import output_path
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import Stage
from affinitynet.run_folder.store import is_there


def samples_of(recipe: Recipe, manifest: Manifest, *roles: str) -> tuple[Sample, ...]:
    """Return the samples of the splits that play these roles, each image once.

    Raises:
        UserError: the split to train on is not there; others may be missing.
    """
    found: dict[str, Sample] = {}
    for role in roles:
        split = getattr(recipe.dataset, role)
        if split in manifest.splits or (split and role == "train"):
            # By id: an image that plays several roles counts once.
            found |= {sample.id: sample for sample in manifest.split(split)}
    return tuple(found.values())


def count_files(recipe: Recipe, manifest: Manifest, stage: Stage) -> tuple[int, int]:
    """Count the images of a per-image stage that have its file, and all of its images."""
    samples = samples_of(recipe, manifest, *stage.roles)
    folder = recipe.out / stage.folder
    done = sum(is_there(output_path(folder, sample.id, stage.suffix)) for sample in samples)
    return done, len(samples)
