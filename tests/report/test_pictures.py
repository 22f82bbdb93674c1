"""Masks and maps are drawn so that classes, background and neutral pixels can be told apart."""

import itertools

import numpy as np
import pytest
from PIL import Image

from affinitynet.errors import UserError
from affinitynet.report import write_strip
from affinitynet.report.pictures import (
    class_color,
    draw_labels,
    draw_maps,
    fit,
    resize_labels,
    resize_maps,
)

GREY = np.full((20, 30, 3), 120, dtype=np.uint8)


def test_colors_differ():
    first = [np.array(class_color(label)) for label in range(1, 21)]
    closest = min(np.abs(a - b).sum() for a, b in itertools.combinations(first, 2))
    assert closest >= 40
    assert len({class_color(label) for label in range(1, 81)}) == 80
    assert all(0 <= channel <= 255 for label in range(1, 400) for channel in class_color(label))


def test_background_is_dimmed_and_classes_have_their_color():
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[5:15, 5:15] = 2
    drawn = draw_labels(GREY, labels, 255)
    assert tuple(drawn[0, 0]) == (78, 78, 78)
    inside = drawn[10, 10].astype(int) - 78
    assert np.allclose(inside, 0.62 * (np.array(class_color(2)) - 78), atol=1)
    # A light line surrounds the class.
    assert drawn[10, 14].min() > 180


def test_neutral_is_hatched_grey():
    drawn = draw_labels(GREY, np.full((20, 30), 255), 255)
    assert set(map(tuple, drawn.reshape(-1, 3))) == {(150,) * 3, (112,) * 3}
    wide = draw_labels(GREY, np.full((20, 30), 65535), 65535)
    assert np.array_equal(drawn, wide)


def test_strongest_class_colors_a_pixel_by_its_strength():
    maps = np.zeros((2, 20, 30), dtype=np.float16)
    maps[0, :, :15], maps[1, :, :10] = 0.5, 1.0
    drawn = draw_maps(GREY, np.array([3, 0]), maps)
    assert tuple(drawn[0, 29]) == (78, 78, 78)
    for column, label, weight in ((0, 1, 0.9), (12, 4, 0.45)):
        expected = 78 + weight * (np.array(class_color(label)) - 78)
        assert np.allclose(drawn[0, column], expected, atol=1)
    assert np.array_equal(draw_maps(GREY, np.zeros(0), np.zeros((0, 20, 30))), drawn * 0 + 78)


def test_sizes_keep_the_shape():
    assert fit(375, 500, 320) == (240, 320)
    assert fit(500, 375, 320) == (320, 240)
    assert fit(50, 40, 320) == (150, 120)
    assert fit(1, 1000, 320) == (1, 320)


def test_resized_labels_are_labels_of_their_place():
    labels = np.array([[0, 255], [3, 300]])
    assert resize_labels(labels, (4, 6)).tolist() == [
        [0, 0, 0, 255, 255, 255],
        [0, 0, 0, 255, 255, 255],
        [3, 3, 3, 300, 300, 300],
        [3, 3, 3, 300, 300, 300],
    ]
    assert resize_labels(resize_labels(labels, (9, 7)), (2, 2)).tolist() == labels.tolist()


def test_resized_maps_keep_their_mean():
    maps = np.random.default_rng(0).random((2, 12, 18)).astype(np.float16)
    smaller = resize_maps(maps, (4, 6))
    assert smaller.shape == (2, 4, 6)
    assert np.allclose(smaller.mean((1, 2)), maps.astype(np.float32).mean((1, 2)), atol=0.02)


def test_figure_of_strips(builder, tmp_path):
    builder.everything()
    path = tmp_path / "docs" / "strip.png"
    answer = write_strip(builder.run, ["train_00", "train_05"], path, caption="Two of eight.")
    assert answer == path
    with Image.open(path) as picture:
        # Six panels of 3 x 36 pixels (small images grow 3 times), 5 gaps of 8, two margins of 20.
        assert picture.format == "PNG"
        assert picture.width == 6 * 108 + 5 * 8 + 2 * 20
        first = np.asarray(picture)
    write_strip(builder.run, ["train_00", "train_05"], path)
    with Image.open(path) as picture:
        assert picture.height < len(first)  # without the caption's line


def test_figure_leaves_out_columns_that_are_empty(builder, tmp_path):
    manifest = builder.manifest(truth=False)
    builder.masks(manifest, "pseudo")
    path = write_strip(builder.run, ["train_00"], tmp_path / "strip.png")
    with Image.open(path) as picture:
        assert picture.width == 2 * 108 + 8 + 2 * 20


def test_figure_names_mistakes(builder, tmp_path):
    builder.manifest()
    with pytest.raises(UserError, match=r"no image 'nobody'.*'train_00'"):
        write_strip(builder.run, ["nobody"], tmp_path / "strip.png")
    with pytest.raises(UserError, match="nothing to draw"):
        write_strip(builder.run, [], tmp_path / "strip.png")
    assert not (tmp_path / "strip.png").exists()
