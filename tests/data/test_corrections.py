"""Corrections: label maps that win over masks where they say something."""

from pathlib import Path

import numpy as np
import pytest

from affinitynet.data import Manifest, Sample, read_labels
from affinitynet.data.corrections import (
    correct_labels,
    corrected_samples,
    correction_file,
    read_correction,
    write_correction,
)
from affinitynet.errors import UserError
from affinitynet.run_folder.freshness import describe_corrections, difference

SAMPLE = Sample("a/one", Path("/data/a/one.jpg"), (0,))
MANIFEST = Manifest(Path("/data"), ("ant", "bee"), {"train": (SAMPLE,)})


def stroke() -> np.ndarray:
    labels = np.full((4, 6), 255, np.uint8)
    labels[1, 1:4], labels[2, 2] = 2, 0
    return labels


def test_a_correction_wins_where_it_says_something(tmp_path: Path) -> None:
    mask = np.ones((4, 6), np.uint8)
    assert correct_labels(mask, tmp_path, SAMPLE.id, 2) is mask
    write_correction(tmp_path, MANIFEST, SAMPLE, stroke())
    corrected = correct_labels(mask, tmp_path, SAMPLE.id, 2)
    assert corrected[1].tolist() == [1, 2, 2, 2, 1, 1]
    assert corrected[2].tolist() == [1, 1, 0, 1, 1, 1]
    assert (corrected[[0, 3]] == 1).all()
    assert corrected.dtype == np.uint8
    assert (mask == 1).all()


def test_a_correction_of_nothing_is_no_file(tmp_path: Path) -> None:
    write_correction(tmp_path, MANIFEST, SAMPLE, stroke())
    assert corrected_samples(tmp_path, MANIFEST.samples) == [SAMPLE]
    assert np.array_equal(read_labels(correction_file(tmp_path, SAMPLE.id)), stroke())
    write_correction(tmp_path, MANIFEST, SAMPLE, np.full((4, 6), 255, np.uint8))
    assert corrected_samples(tmp_path, MANIFEST.samples) == []
    assert read_correction(tmp_path, SAMPLE.id, 2) is None


def test_a_label_of_no_class_is_refused(tmp_path: Path) -> None:
    labels = stroke()
    labels[0, 0] = 3
    with pytest.raises(UserError, match=r"a/one: holds the label 3.* 0 to 2, and 255"):
        write_correction(tmp_path, MANIFEST, SAMPLE, labels)
    assert not correction_file(tmp_path, SAMPLE.id).exists()


def test_a_correction_of_another_size_is_refused(tmp_path: Path) -> None:
    write_correction(tmp_path, MANIFEST, SAMPLE, stroke())
    with pytest.raises(UserError, match=r"one\.png: is 4 x 6, the mask 6 x 4; delete it"):
        correct_labels(np.zeros((6, 4), np.uint8), tmp_path, SAMPLE.id, 2)


def test_changes_are_told_by_content_and_number(tmp_path: Path) -> None:
    assert describe_corrections(tmp_path) == ""
    write_correction(tmp_path, MANIFEST, SAMPLE, stroke())
    one = describe_corrections(tmp_path)
    assert one.startswith("1 image (")
    write_correction(tmp_path, MANIFEST, SAMPLE, np.zeros((4, 6), np.uint8))
    other = describe_corrections(tmp_path)
    assert other.startswith("1 image (")
    assert other != one
    said = difference({}, {"corrections": other})
    assert said == "the corrections changed: were none, are 1 image"
