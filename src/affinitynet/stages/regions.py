"""Votes of regions from files on the labels that a stage is about to write."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from affinitynet.data import Sample
from affinitynet.data.images import read_size
from affinitynet.data.sources.enlarge import Size
from affinitynet.data.sources.find import by_last_part, find_source
from affinitynet.data.sources.regions import read_regions
from affinitynet.errors import UserError
from affinitynet.ops.regions import vote_regions
from affinitynet.run_folder.recipe import find_files
from affinitynet.stages.context import Context
from affinitynet.stages.images import blaming

Labels = NDArray[np.integer[Any]]
Vote = Callable[[Sample, Labels], Labels]


def votes(context: Context, key: str, source: str, samples: Sequence[Sample]) -> Vote:
    """Return what lets the regions of a source, which the setting `key` names, vote on labels.

    Raises:
        UserError: no such folder, or no file of the `samples` holds a region; when called, an image
            has no regions, or none that fit it.
    """
    if source == "none":
        return lambda sample, labels: labels
    folder = find_files(source, key, context.recipe.data)
    last_parts = by_last_part(sample.id for sample in context.manifest.samples)
    neutral = context.manifest.ignore_index

    def read(sample: Sample, size: Size) -> NDArray[np.int64]:
        file = find_source(folder, sample.id, "regions", last_parts)
        if file is None:
            raise UserError(
                f"{folder}: holds no regions of image {sample.id}; add its .png, .npy or .npz, or "
                f"set {key} to none"
            )
        return read_regions(file, size)

    def hold_some(sample: Sample) -> bool:
        with blaming(key, sample):
            return bool(read(sample, read_size(sample.image, sample.reading)).any())

    # Mostly the first one does.
    if samples and not any(map(hold_some, samples)):
        raise UserError(
            f"{key} = {source!r}: all {len(samples)} files are 0 everywhere, which is no region; "
            f"number the regions from 1, or set {key} to none"
        )

    def vote(sample: Sample, labels: Labels) -> Labels:
        regions = read(sample, (labels.shape[0], labels.shape[1]))
        # torch counts in int32 what numpy keeps in uint16.
        found = vote_regions(
            torch.from_numpy(labels.astype(np.int32)), torch.from_numpy(regions), neutral
        )
        voted: Labels = found.numpy().astype(labels.dtype)
        return voted

    return vote
