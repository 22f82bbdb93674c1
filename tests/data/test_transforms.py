from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from affinitynet.data.transforms import (
    NO_JITTER,
    PAPER_JITTER,
    Jitter,
    _Crop,
    _jittered,
    affinity_augment,
    classifier_augment,
    reduce_labels,
    resize_image,
    sample_generator,
    segmentation_augment,
    shift_hue,
)
from affinitynet.ops.normalization import IMAGENET, Normalization

PLAIN = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Leaves 0..255 as it is."""


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


def two_tone(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and labels that tell each other: 3 where the pixel is 200, 0 where it is 50."""
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[height // 3 :, : width // 2] = 3
    grey = np.where(labels == 3, 200, 50).astype(np.uint8)
    return np.stack([grey] * 3, axis=-1), labels


def augmentations(size: int) -> dict:
    image, labels = noise(41, 67), np.zeros((41, 67), dtype=np.uint8)
    kind = {"normalization": IMAGENET, "size": size}
    return {
        "classifier": lambda g: classifier_augment(image, g, long_side=(40, 90), **kind),
        "affinity": lambda g: torch.cat(
            [t.flatten() for t in affinity_augment(image, labels, g, stride=8, **kind)]
        ),
        "segmentation": lambda g: torch.cat(
            [t.flatten() for t in segmentation_augment(image, labels, g, **kind)]
        ),
        "objects": lambda g: torch.cat(
            [
                t.flatten()
                for t in segmentation_augment(image, labels + 1, g, crops="objects", **kind)
            ]
        ),
    }


@pytest.mark.parametrize("name", ["classifier", "affinity", "segmentation", "objects"])
def test_results_follow_seed_epoch_and_index_alone(name):
    augment = augmentations(48)[name]
    first = augment(sample_generator(1, 2, 3))
    assert torch.equal(first, augment(sample_generator(1, 2, 3)))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0), (3, 2, 1)):
        assert not torch.equal(first, augment(sample_generator(*other)))


@pytest.mark.parametrize("name", ["classifier", "affinity", "segmentation", "objects"])
def test_order_and_global_generators_do_not_matter(name):
    augment = augmentations(32)[name]
    expected = [augment(sample_generator(0, 0, index)) for index in range(6)]
    torch.manual_seed(5)
    np.random.seed(5)
    with ThreadPoolExecutor(3) as pool:
        order = [3, 0, 5, 1, 4, 2]
        found = list(pool.map(lambda index: augment(sample_generator(0, 0, index)), order))
    for index, result in zip(order, found, strict=True):
        assert torch.equal(result, expected[index])


@pytest.mark.parametrize(("height", "width"), [(37, 61), (61, 37), (1, 1), (200, 3)])
@pytest.mark.parametrize("size", [16, 48, 96])
def test_every_image_size_gives_the_crop_asked_for(height, width, size):
    image, labels = noise(height, width), np.ones((height, width), dtype=np.uint8)
    kind = {"normalization": IMAGENET, "size": size}
    for index in range(4):
        generator = sample_generator(0, 0, index)
        pixels = classifier_augment(image, generator, long_side=(20, 70), **kind)
        assert (pixels.shape, pixels.dtype) == ((3, size, size), torch.float32)
        pixels, grid = affinity_augment(image, labels, generator, stride=8, **kind)
        assert (pixels.shape, pixels.dtype) == ((3, size, size), torch.float32)
        assert (grid.shape, grid.dtype) == ((size // 8, size // 8), torch.int64)
        pixels, mask = segmentation_augment(image, labels, generator, **kind)
        assert (pixels.shape, pixels.dtype) == ((3, size, size), torch.float32)
        assert (mask.shape, mask.dtype) == ((size, size), torch.int64)


def extent(pixels: torch.Tensor) -> tuple[slice, slice]:
    """Rows and columns that are not padding (of images without zeros)."""
    rows, columns = (pixels != 0).any(0).any(1).nonzero(), (pixels != 0).any(0).any(0).nonzero()
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def test_classifier_resizes_the_long_side_into_its_range():
    image = np.full((30, 60, 3), 255, dtype=np.uint8)
    kind = {"normalization": PLAIN, "size": 46, "long_side": (40, 43), "jitter": NO_JITTER}
    seen, starts, stops = set(), set(), set()
    for index in range(120):
        pixels = classifier_augment(image, sample_generator(0, 0, index), **kind)
        rows, columns = extent(pixels)
        assert (pixels[:, rows, columns] == 255).all()
        seen.add((rows.stop - rows.start, columns.stop - columns.start))
        starts.add(columns.start)
        stops.add(columns.stop)
    assert seen == {(20, 40), (20, 41), (21, 42), (22, 43)}  # 20.5 and 21.5 round to even
    assert (min(starts), max(starts), max(stops)) == (0, 6, 46)  # every place, both ends


def test_classifier_crop_is_a_window_of_the_resized_image_or_its_mirror():
    image = noise(40, 80)
    whole = resize_image(image, 25, 50).float()
    mirrors = set()
    for index in range(12):
        pixels = classifier_augment(
            image,
            sample_generator(0, 0, index),
            normalization=PLAIN,
            size=20,
            long_side=(50, 50),
            jitter=NO_JITTER,
        )
        windows = [
            (mirror, y, x)
            for mirror in (False, True)
            for y in range(6)
            for x in range(31)
            if torch.allclose(
                (whole.flip(-1) if mirror else whole)[:, y : y + 20, x : x + 20], pixels, atol=0.01
            )
        ]
        assert len(windows) == 1
        mirrors.add(windows[0][0])
    assert mirrors == {True, False}


def test_bicubic_resizing_is_pillows():
    image = noise(50, 70)
    for height, width in ((25, 35), (75, 105), (33, 46), (100, 140)):
        ours = resize_image(image, height, width).permute(1, 2, 0).numpy().astype(int)
        pillow = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        assert np.abs(ours - np.asarray(pillow)).max() <= 1


def test_affinity_labels_follow_the_image():
    image, labels = two_tone(70, 90)
    for index in range(12):
        pixels, grid = affinity_augment(
            image,
            labels,
            sample_generator(0, 0, index),
            normalization=PLAIN,
            size=64,
            stride=8,
            jitter=NO_JITTER,
        )
        cells = pixels[0].reshape(8, 8, 8, 8)
        assert set(pixels[0].unique().tolist()) <= {0.0, 50.0, 200.0}
        bright, dark = (cells == 200).sum((1, 3)), (cells == 50).sum((1, 3))
        expected = torch.full((8, 8), 255)
        expected[bright > 32] = 3
        expected[dark > 32] = 0
        assert torch.equal(grid, expected)


@pytest.mark.parametrize("channels", [3, 5])
def test_an_affinity_crop_has_the_colors_it_has_in_the_whole_image(channels):
    """Contrast is changed around the mean of the whole image, in whatever order changes come."""
    image = np.random.default_rng(1).integers(0, 256, (60, 90, channels), dtype=np.uint8)
    plain = Normalization(mean=(0.0,) * channels, std=(1.0,) * channels)
    for index in range(24):
        generator = sample_generator(0, 0, index)
        whole = _jittered(torch.from_numpy(image).permute(2, 0, 1), PAPER_JITTER, generator)
        expected = _Crop.random(whole, 32, generator).cut(whole, 0)
        expected = expected.flip(-1) if generator.random() < 0.5 else expected
        pixels, _ = affinity_augment(
            image,
            np.zeros((60, 90), dtype=np.uint8),
            sample_generator(0, 0, index),
            normalization=plain,
            size=32,
            stride=8,
        )
        torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("padding", "value"), [("black", IMAGENET.apply(torch.zeros(3, 1, 1))), ("mean", 0.0)]
)
def test_affinity_padding(padding, value):
    image = np.full((20, 20, 3), 255, dtype=np.uint8)
    pixels, grid = affinity_augment(
        image,
        np.ones((20, 20), dtype=np.uint8),
        sample_generator(0, 0, 0),
        normalization=IMAGENET,
        size=64,
        stride=8,
        padding=padding,
        jitter=NO_JITTER,
    )
    white = IMAGENET.apply(torch.full((3, 1, 1), 255.0))
    assert (torch.isclose(pixels, white).all(0).sum()) == 400
    assert (torch.isclose(pixels, torch.as_tensor(value)).all(0).sum()) == 64 * 64 - 400
    assert set(grid.unique().tolist()) == {1, 255}


@pytest.mark.parametrize("ignore_index", [255, 65535])
def test_segmentation_labels_follow_the_image(ignore_index):
    image, labels = two_tone(50, 70)
    labels = labels.astype(np.uint16)
    labels[:5] = ignore_index
    scales = set()
    for index in range(12):
        pixels, mask = segmentation_augment(
            image,
            labels,
            sample_generator(0, 0, index),
            normalization=PLAIN,
            size=160,
            jitter=NO_JITTER,
            ignore_index=ignore_index,
        )
        rows, columns = extent(pixels)
        outside = torch.ones(160, 160, dtype=torch.bool)
        outside[rows, columns] = False
        assert (mask[outside] == ignore_index).all()
        assert (pixels[:, outside] == 0).all()
        inside = mask != ignore_index
        agreement = ((pixels[0] > 125) == (mask == 3))[inside].float().mean()
        assert agreement > 0.97
        scales.add((columns.stop - columns.start) / 70)
    assert 0.5 <= min(scales) < 0.9
    assert 1.4 < max(scales) <= 2.0


def crops_of(labels, count, **kind):
    """The labels of `count` crops at the image's own size."""
    image = np.full((*labels.shape, 3), 128, dtype=np.uint8)
    kind = {"normalization": PLAIN, "scale": (1.0, 1.0), "jitter": NO_JITTER, **kind}
    return [
        segmentation_augment(image, labels, sample_generator(0, 0, index), **kind)[1]
        for index in range(count)
    ]


def test_crops_of_objects_hold_each_class_alike():
    labels = np.zeros((120, 90), dtype=np.uint8)
    labels[100:102, 3:5] = 1  # near a corner and tiny
    labels[10:60, 50:85] = 2
    labels[:3] = 255
    held = [set(crop.unique().tolist()) for crop in crops_of(labels, 400, size=24, crops="objects")]
    small = sum(1 in found for found in held) / 400
    large = sum(2 in found for found in held) / 400
    assert 0.32 < small < 0.46  # half of three quarters, and few of the random ones
    assert 0.38 < large < 0.58
    assert sum(1 in set(c.unique().tolist()) for c in crops_of(labels, 400, size=24)) < 60


def test_an_object_lies_anywhere_in_its_crop():
    labels = np.zeros((40, 12), dtype=np.uint8)
    labels[20, 6] = 1
    places = {
        tuple((crop == 1).nonzero()[0].tolist())
        for crop in crops_of(labels, 600, size=16, crops="objects")
        if (crop == 1).any()
    }
    assert {y for y, _ in places} == set(range(16))
    # Across, the image is smaller than the crop and lies at any offset; it may be flipped.
    assert {x for _, x in places} == set(range(5, 11))


def test_crops_of_objects_at_the_edge_stay_in_the_image():
    labels = np.zeros((50, 50), dtype=np.uint8)
    labels[0, 0] = labels[49, 49] = 1
    crops = crops_of(labels, 40, size=20, crops="objects")
    assert not any((crop == 255).any() for crop in crops)


def test_without_objects_crops_are_random():
    labels = np.zeros((50, 60), dtype=np.uint8)
    labels[5:, 7:] = 255
    crops = crops_of(labels, 30, size=20, crops="objects")
    assert len({int((crop == 0).sum()) for crop in crops}) > 3


def test_reduce_labels_against_counting_each_cell():
    generator = np.random.default_rng(0)
    for height, width, stride in ((16, 24, 8), (13, 9, 4), (7, 7, 8), (5, 6, 1)):
        # Few labels in large patches, so that majorities, ties and mixtures all occur.
        patches = generator.choice([0, 1, 2, 255], (-(-height // 2), -(-width // 2)))
        labels = patches.repeat(2, 0).repeat(2, 1)[:height, :width]
        expected = np.full((-(-height // stride), -(-width // stride)), 255)
        for row in range(expected.shape[0]):
            for column in range(expected.shape[1]):
                cell = labels[row * stride :, column * stride :][:stride, :stride]
                for label in (0, 1, 2):
                    if (cell == label).sum() > stride * stride / 2:
                        expected[row, column] = label
        np.testing.assert_array_equal(reduce_labels(labels, stride), expected)


def test_reduce_labels_leaves_ties_and_mixtures_neutral():
    half = np.array([[1, 1, 2, 2], [1, 2, 2, 2]])
    assert reduce_labels(half[:, :2], 2).tolist() == [[1]]
    assert reduce_labels(half[:, 1:3], 2).tolist() == [[2]]
    assert reduce_labels(np.array([[1, 1], [2, 2]]), 2).tolist() == [[255]]
    assert reduce_labels(np.array([[1, 0], [2, 3]]), 2, 65535).tolist() == [[65535]]


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
def test_hue_is_torchvisions(turns):
    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    image[:, 0] = 0.0
    image[:, 1] = 1.0
    image[:, 2] = 0.3
    image[:, 3, ::2] = torch.tensor([0.5, 0.5, 0.1]).view(3, 1)
    torch.testing.assert_close(
        shift_hue(image, turns), tv.adjust_hue(image, turns), atol=2e-6, rtol=0
    )


def test_jitter_stays_in_its_strengths():
    grey = np.full((8, 8, 3), 100, dtype=np.uint8)
    kind = {"normalization": PLAIN, "size": 8, "long_side": (8, 8)}
    levels = []
    for index in range(200):
        generator = sample_generator(0, 0, index)
        # On a grey image contrast, saturation and hue do nothing; brightness is a factor.
        pixels = classifier_augment(grey, generator, jitter=PAPER_JITTER, **kind)
        assert pixels.max() - pixels.min() < 0.01
        levels.append(pixels.mean().item())
    assert 70 <= min(levels) < 75
    assert 125 < max(levels) <= 130.01


def test_each_jitter_is_torchvisions():
    image = noise(9, 9)
    tensor = torch.from_numpy(image).permute(2, 0, 1) / 255
    changes = {
        "brightness": (tv.adjust_brightness, 1.0),
        "contrast": (tv.adjust_contrast, 1.0),
        "saturation": (tv.adjust_saturation, 1.0),
        "hue": (tv.adjust_hue, 0.0),
    }
    for place, (name, (change, neutral)) in enumerate(changes.items()):
        strengths = Jitter(**{other: 0.4 if other == name else 0.0 for other in changes})
        augmented = classifier_augment(
            image,
            sample_generator(0, 0, 0),
            normalization=PLAIN,
            size=9,
            long_side=(9, 9),
            jitter=strengths,
        )
        replay = sample_generator(0, 0, 0)
        replay.integers(9, 10)
        mirrored = replay.random() < 0.5
        replay.permutation(4)
        amount = neutral + 0.4 * float(replay.uniform(-1, 1, 4)[place])
        expected = change(tensor.flip(-1) if mirrored else tensor, amount) * 255
        torch.testing.assert_close(augmented, expected, atol=1e-3, rtol=0)
