"""Votes of regions from files on the labels that a stage is about to write."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from affinitynet.data import Sample
from affinitynet.data.sources.find import by_last_part, find_source
from affinitynet.data.sources.regions import read_regions
from affinitynet.errors import UserError
from affinitynet.ops.regions import vote_regions
from affinitynet.run_folder.recipe import find_files
from affinitynet.stages.context import Context

Labels = NDArray[np.integer[Any]]
Vote = Callable[[Sample, Labels], Labels]


def votes(context: Context, key: str, source: str) -> Vote:
    """Return what lets the regions of a source, which the setting `key` names, vote on labels.

    Raises:
        UserError: no such folder; when called, an image has no regions, or none that fit it.
    """
    if source == "none":
        return lambda sample, labels: labels
    folder = find_files(source, key, context.recipe.data)
    last_parts = by_last_part(sample.id for sample in context.manifest.samples)
    neutral = context.manifest.ignore_index

    def vote(sample: Sample, labels: Labels) -> Labels:
        file = find_source(folder, sample.id, "regions", last_parts)
        if file is None:
            raise UserError(
                f"{folder}: holds no regions of image {sample.id}; add its .png, .npy or .npz, or "
                f"set {key} to none"
            )
        regions = read_regions(file, (labels.shape[0], labels.shape[1]))
        # torch counts in int32 what numpy keeps in uint16.
        found = vote_regions(
            torch.from_numpy(labels.astype(np.int32)), torch.from_numpy(regions), neutral
        )
        voted: Labels = found.numpy().astype(labels.dtype)
        return voted

    return vote
