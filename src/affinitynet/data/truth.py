"""Ground truth in the manifest's labels, whatever file holds it."""

import numpy as np

from affinitynet.data.coco_masks import render_truth
from affinitynet.data.labels import Labels, read_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.sample import Sample
from affinitynet.errors import UserError


def load_truth(manifest: Manifest, sample: Sample) -> Labels:
    """Ground truth of a sample as (H, W) labels: 0 background, c + 1 class c, `ignore_index` void.

    uint8, or uint16 with 255 or more classes. A mask that is a COCO annotation file is rendered
    (the file is read once a process and kept). Raises UserError where the sample has no ground
    truth, or where it holds a value that stands for no class, naming the file and the value.
    """
    if sample.mask is None:
        raise UserError(f"The image {sample.id!r} has no ground truth.")
    if sample.mask.suffix.lower() == ".json":
        return render_truth(sample.mask, sample.image, manifest.classes)
    raw = read_labels(sample.mask)
    table = manifest.truth_values
    if table is None:
        table = {v: v for v in (*range(len(manifest.classes) + 1), manifest.ignore_index)}
    size = 256 if raw.dtype == np.uint8 else 65536
    known = np.zeros(size, dtype=bool)
    lookup = np.zeros(size, dtype=np.uint16)
    for value, label in table.items():
        if value < size:
            known[value], lookup[value] = True, label
    present = np.flatnonzero(np.bincount(raw.ravel(), minlength=size))
    unknown = present[~known[present]]
    if unknown.size:
        raise UserError(
            f"{sample.mask} holds the value {int(unknown[0])}, which stands for no class: its "
            f"values may be {_ranges(sorted(table))}."
        )
    if len(manifest.classes) < 255:
        return lookup.astype(np.uint8)[raw]
    return lookup[raw]


def _ranges(values: list[int]) -> str:
    """Sorted integers as text, runs shortened: 0-6, 255."""
    runs: list[list[int]] = []
    for value in values:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
