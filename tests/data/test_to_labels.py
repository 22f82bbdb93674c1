"""From an image's own numbering to the data set's labels."""

import numpy as np
import pytest

from affinitynet.data.labels import ignore_index, to_labels

LOCAL = np.array([[0, 1, 2], [255, 2, 0]])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_labels_are_the_tags_plus_one(dtype: type) -> None:
    labels = to_labels(LOCAL.astype(dtype), np.array([3, 19]), 255)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[0, 4, 20], [255, 20, 0]]


def test_the_order_of_the_maps_is_kept() -> None:
    labels = to_labels(LOCAL, np.array([19, 3]), 255)
    assert labels.tolist() == [[0, 20, 4], [255, 4, 0]]


def test_an_image_without_tags_is_background_or_neutral() -> None:
    labels = to_labels(np.array([[0, 255]]), np.zeros(0, np.int64), 255)
    assert labels.tolist() == [[0, 255]]


def test_the_last_of_254_classes_is_not_neutral() -> None:
    labels = to_labels(np.array([[1, 255]]), np.array([253]), ignore_index(254))
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[254, 255]]


def test_above_254_classes_labels_have_16_bits_and_another_neutral() -> None:
    labels = to_labels(np.array([[0, 1, 2, 255]]), np.array([254, 9000]), ignore_index(9001))
    assert labels.dtype == np.uint16
    assert labels.tolist() == [[0, 255, 9001, 65535]]


def test_an_image_may_show_254_classes() -> None:
    local = np.arange(256)[None]
    labels = to_labels(local, np.arange(254) + 1000, ignore_index(2000))
    assert labels[0].tolist() == [0, *range(1001, 1255), 65535]
