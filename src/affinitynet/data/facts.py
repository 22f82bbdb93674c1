"""The facts about a data set that a recipe's open settings are chosen by."""

from collections import Counter
from contextlib import suppress

from affinitynet.data.images import read_size
from affinitynet.data.manifest import Manifest
from affinitynet.data.roles import samples_of
from affinitynet.errors import UserError
from affinitynet.run_folder.choices import Facts
from affinitynet.run_folder.recipe import Recipe

LOOKED_AT = 50  # about as many images have their headers read


def facts_of(recipe: Recipe, manifest: Manifest) -> Facts:
    """Count the training images, and read the size of about fifty of them, evenly spaced.

    A file that can't be opened counts for nothing here: the training says what is wrong with it.

    Raises:
        UserError: no such split.
    """
    samples = samples_of(recipe, manifest, "train")
    sizes = []
    # Evenly spaced: images of one camera or folder often stand together in a list.
    for sample in samples[:: max(1, len(samples) // LOOKED_AT)]:
        with suppress(UserError):
            sizes.append(read_size(sample.image, sample.reading))
    counts = Counter(tag for sample in samples for tag in sample.tags)
    named = {name: counts[tag] for tag, name in enumerate(manifest.classes)}
    return Facts(len(samples), sizes, named)
