import numpy as np
import pytest
from PIL import Image

from affinitynet.data import voc_palette, write_labels
from affinitynet.data.sources import read_labels_source
from affinitynet.data.voc import VOC_CLASSES
from affinitynet.errors import UserError

NAMES = ("cat", "dog")
LABELS = np.array([[0, 1, 2], [255, 0, 2]], np.uint8)


def test_labels_are_read(tmp_path):
    write_labels(tmp_path / "a.png", LABELS, voc_palette())
    Image.fromarray(LABELS).save(tmp_path / "grey.png")
    for name in ("a.png", "grey.png"):
        found = read_labels_source(tmp_path / name, NAMES, NAMES, (0, 1), (2, 3))
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, LABELS)


def test_numbers_of_voc_in_a_part_of_voc(tmp_path):
    write_labels(tmp_path / "a.png", np.array([[0, 3, 8, 255]]), voc_palette())
    found = read_labels_source(tmp_path / "a.png", VOC_CLASSES, ("cat", "bird"), (0, 1), (1, 4))
    assert found.tolist() == [[0, 2, 1, 255]]


def test_a_class_that_the_image_is_not_tagged_with_is_refused(tmp_path):
    """Be it none of the data set's or one of its other classes: the numbers may mean others."""
    path = tmp_path / "a.png"
    write_labels(path, np.array([[0, 3, 8]]), voc_palette())
    with pytest.raises(UserError, match=r"a\.png: holds bird \(3\).*not tagged.*cams\.classes"):
        read_labels_source(path, VOC_CLASSES, ("cat", "dog"), (0,), (1, 3))
    with pytest.raises(UserError, match=r"a\.png: holds cat \(8\)"):
        read_labels_source(path, VOC_CLASSES, ("bird", "cat"), (0,), (1, 3))


def test_many_classes(tmp_path):
    names = tuple(map(str, range(300)))
    write_labels(tmp_path / "a.png", np.array([[0, 255, 300, 65535]]), voc_palette())
    found = read_labels_source(tmp_path / "a.png", names, names, (254, 299), (1, 4))
    assert found.tolist() == [[0, 255, 300, 65535]]
    assert found.dtype == np.uint16


def test_wrong_files_are_refused(tmp_path):
    path = tmp_path / "a.png"
    write_labels(path, LABELS, voc_palette())
    with pytest.raises(UserError, match=r"a\.png: is 2 x 3, the image 3 x 2"):
        read_labels_source(path, NAMES, NAMES, (0, 1), (3, 2))
    with pytest.raises(UserError, match=r"a\.png: holds the value 2, .*0 to 1 and 255"):
        read_labels_source(path, NAMES[:1], NAMES, (0, 1), (2, 3))
    Image.new("RGB", (3, 2), "white").save(path)
    with pytest.raises(UserError, match=r"a\.png: is a color image"):
        read_labels_source(path, NAMES, NAMES, (0, 1), (2, 3))
    with pytest.raises(UserError, match=r"b\.png"):
        read_labels_source(tmp_path / "b.png", NAMES, NAMES, (0, 1), (2, 3))
