"""Data sets: what images there are, their tags, and their ground truth where there is some.

Importing this costs no torch; the augmentations are in `affinitynet.data.transforms`.
"""

from affinitynet.data.check import CheckReport, Problem, check_dataset
from affinitynet.data.images import load_image, load_picture
from affinitynet.data.labels import ignore_index, read_labels, voc_palette, write_labels
from affinitynet.data.manifest import Manifest
from affinitynet.data.read import read_dataset
from affinitynet.data.sample import Sample
from affinitynet.data.truth import load_truth

__all__ = [
    "CheckReport",
    "Manifest",
    "Problem",
    "Sample",
    "check_dataset",
    "ignore_index",
    "load_image",
    "load_picture",
    "load_truth",
    "read_dataset",
    "read_labels",
    "voc_palette",
    "write_labels",
]
