"""The data set of a run folder: as recorded there, or read again where the record is gone."""

from functools import partial
from pathlib import Path

from affinitynet.data.for_networks import for_networks
from affinitynet.data.manifest import RUN_FILE, Manifest, check_run_folder
from affinitynet.data.read import read_dataset
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import RECIPE
from affinitynet.run_folder.recipe import Recipe


def manifest_of(folder: Path) -> Manifest:
    """Return the manifest of a run folder; without one, read the data set that its recipe names.

    Raises:
        UserError: no run folder, a damaged manifest, or the data set can't be read.
    """
    check_run_folder(folder)
    if (folder / RUN_FILE).is_file():
        return Manifest.of_run(folder)
    # A run folder may be moved: it is here, whatever its recipe names as out.
    recipe = Recipe.load(folder / RECIPE, out=folder)
    if recipe.data is None:
        raise UserError(
            f"{folder}: {RUN_FILE} is missing, and {RECIPE} names no data set; start the run again "
            "with --data"
        )
    try:
        return read_recipe_data(recipe)
    except UserError as error:
        raise UserError(
            f"{folder}: {RUN_FILE} is missing, and can't be made again from the data set: {error}"
        ) from error


def read_recipe_data(recipe: Recipe) -> Manifest:
    """Read the recipe's data set as its `dataset` section says.

    For the networks of another run the classes are that run's, and all images are one split.

    Raises:
        UserError: it can't be read.
    """
    assert recipe.data is not None
    settings = recipe.dataset
    read = partial(
        read_dataset,
        recipe.data,
        format=settings.format,
        tags=settings.tags,
        background=settings.background,
        images=settings.images,
    )
    if recipe.networks.run is None or settings.classes is None:
        manifest = read(classes=settings.classes)
    else:
        manifest = for_networks(read, settings.classes, settings.train)
    return manifest.with_reading(recipe.backbone.input)
