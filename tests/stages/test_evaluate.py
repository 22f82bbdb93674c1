"""Figures against slow twins, and folders of masks that don't fit."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.functional.classification import multiclass_jaccard_index

from affinitynet.data import Manifest, Sample, voc_palette, write_labels
from affinitynet.data.scoring import (
    confusion_of_folder,
    count_pairs,
    intersection_over_union,
    precision_and_coverage,
    sweep_counts,
)
from affinitynet.errors import UserError
from affinitynet.stages.evaluate import measure_folder

CLASSES = ("cat", "dog", "hen")


def make_data(root: Path, count: int = 3) -> tuple[Manifest, list[NDArray[np.uint8]]]:
    rng = np.random.default_rng(0)
    samples, truths = [], []
    for index in range(count):
        truth = rng.integers(0, 4, (6, 7)).astype(np.uint8)
        truth[0, :3] = 255
        image, mask = root / f"{index}.jpg", root / f"{index}.png"
        Image.new("RGB", (7, 6)).save(image)
        write_labels(mask, truth, voc_palette())
        samples.append(Sample(str(index), image, (0, 2), mask))
        truths.append(truth)
    return Manifest(root, CLASSES, {"train": tuple(samples)}), truths


def slow_iou(pairs: list[tuple[int, int]], label: int) -> float | None:
    both = sum(t == label and p == label for t, p in pairs)
    either = sum(t == label or p == label for t, p in pairs)
    return both / either if either else None


def test_iou_equals_counting_pixel_by_pixel() -> None:
    rng = np.random.default_rng(1)
    truth, mask = rng.integers(0, 3, 200), rng.integers(0, 3, 200)
    result = intersection_over_union(count_pairs(truth, mask, (4, 4)))
    pairs = list(zip(truth.tolist(), mask.tolist(), strict=True))
    expected = [slow_iou(pairs, label) for label in range(4)]
    assert result["iou"] == pytest.approx(expected)
    assert expected[3] is None
    assert result["miou"] == pytest.approx(sum(e for e in expected if e is not None) / 3)


def test_iou_equals_torchmetrics() -> None:
    rng = np.random.default_rng(3)
    truth, mask = rng.integers(0, 5, 500), rng.integers(0, 5, 500)
    valid = truth != 4
    ours = intersection_over_union(count_pairs(truth[valid], mask[valid] % 4, (4, 4)))
    theirs = multiclass_jaccard_index(
        torch.from_numpy(mask % 4), torch.from_numpy(truth), 4, average="macro", ignore_index=4
    )
    assert ours["miou"] == pytest.approx(float(theirs), abs=1e-6)


def test_perfect_masks_score_one_and_void_pixels_do_not_count(tmp_path: Path) -> None:
    manifest, truths = make_data(tmp_path)
    for index, truth in enumerate(truths):
        mask = np.where(truth == 255, 1, truth).astype(np.uint8)  # any guess on void is free
        write_labels(tmp_path / "masks" / f"{index}.png", mask, voc_palette())
    row = measure_folder(manifest, "train", tmp_path / "masks")
    assert row["miou"] == 1.0
    assert row["images"] == 3


def test_neutral_predictions_count_as_misses(tmp_path: Path) -> None:
    manifest, truths = make_data(tmp_path, 1)
    write_labels(tmp_path / "m" / "0.png", np.full_like(truths[0], 255), voc_palette())
    confusion = confusion_of_folder(manifest, manifest.split("train"), tmp_path / "m", "m")
    assert confusion[:, :-1].sum() == 0
    assert confusion[:, -1].sum() == (truths[0] != 255).sum()
    assert intersection_over_union(confusion)["miou"] == 0.0


def test_precision_and_coverage() -> None:
    confusion = np.array([[6, 1, 3], [1, 4, 5]])  # truth x (background, class, neutral)
    figures = precision_and_coverage(confusion)
    assert figures["precision"] == pytest.approx(10 / 12)
    assert figures["coverage"] == pytest.approx(12 / 20)
    assert figures["foreground_precision"] == pytest.approx(4 / 5)
    assert figures["background_coverage"] == pytest.approx(6 / 10)


def test_the_sweep_equals_one_argmax_a_threshold(tmp_path: Path) -> None:
    manifest, truths = make_data(tmp_path)
    rng = np.random.default_rng(2)
    classes = np.array([0, 2])
    cams = {str(i): rng.random((2, 6, 7)).astype(np.float32) for i in range(len(truths))}
    cams["1"][:, 2, 2] = 0.5  # a score equal to a threshold is background, as argmax says
    thresholds = np.array([0.0, 0.25, 0.5, 0.9])
    cams["2"] = cams["2"][:0]  # an image without tags is all background
    tagged = {"0": classes, "1": classes, "2": classes[:0]}
    swept = sweep_counts(
        manifest, manifest.split("train"), lambda s: (tagged[s.id], cams[s.id]), thresholds
    )
    for index, threshold in enumerate(thresholds):
        confusion = slow_confusion(truths, tagged, cams, threshold)
        np.testing.assert_array_equal(swept.hits[index], np.diag(confusion))
        np.testing.assert_array_equal(swept.predicted[index], confusion.sum(0))
        np.testing.assert_array_equal(swept.true[index], confusion.sum(1))


def slow_confusion(
    truths: list[NDArray[np.uint8]],
    tagged: dict[str, NDArray[np.int64]],
    cams: dict[str, NDArray[np.float32]],
    threshold: float,
) -> NDArray[np.int64]:
    """Pixels (true label, label of the largest score) of all images, counted one by one."""
    confusion = np.zeros((4, 4), np.int64)
    for index, truth in enumerate(truths):
        scores = np.concatenate([np.full((1, 6, 7), threshold), cams[str(index)]])
        labels = np.array([0, *(tagged[str(index)] + 1)])[scores.argmax(0)]
        for t, p in zip(truth.ravel(), labels.ravel(), strict=True):
            if t != 255:
                confusion[t, p] += 1
    return confusion


def test_the_sweep_needs_no_more_memory_than_the_classes(tmp_path: Path) -> None:
    """A thousand classes and sixty thresholds: a matrix a threshold would be half a gigabyte."""
    names = tuple(f"class {number}" for number in range(1000))
    truth = np.random.default_rng(0).integers(0, 1001, (64, 64)).astype(np.uint16)
    Image.new("RGB", (64, 64)).save(tmp_path / "0.jpg")
    write_labels(tmp_path / "0.png", truth, voc_palette())
    sample = Sample("0", tmp_path / "0.jpg", (5,), tmp_path / "0.png")
    manifest = Manifest(tmp_path, names, {"train": (sample,)})
    cams = np.full((1, 64, 64), 0.5, np.float32)
    tracemalloc.start()
    counts = sweep_counts(
        manifest, (sample,), lambda _: (np.array([5]), cams), np.linspace(0, 0.6, 61)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert counts.hits[0, 6] == (truth == 6).sum()
    assert counts.hits[-1, 0] == (truth == 0).sum()


def test_cams_of_another_size_than_their_truth_are_named(tmp_path: Path) -> None:
    manifest, _ = make_data(tmp_path, 1)
    cams = np.zeros((1, 5, 7), np.float32)
    with pytest.raises(UserError, match=r"image 0: its CAMs are \(5, 7\).*0\.png is \(6, 7\)"):
        sweep_counts(
            manifest, manifest.split("train"), lambda _: (np.array([0]), cams), np.array([0.1])
        )


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    manifest, truths = make_data(tmp_path, 1)
    with pytest.raises(UserError, match="none: no such folder"):
        measure_folder(manifest, "train", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no mask for image 0"):
        measure_folder(manifest, "train", tmp_path / "empty")
    write_labels(tmp_path / "a" / "0.png", truths[0][:3], voc_palette())
    with pytest.raises(UserError, match="its ground truth"):
        measure_folder(manifest, "train", tmp_path / "a")
    write_labels(tmp_path / "b" / "0.png", np.full_like(truths[0], 9), voc_palette())
    with pytest.raises(UserError, match="label 9 is above the 3 classes"):
        measure_folder(manifest, "train", tmp_path / "b")
    write_labels(tmp_path / "c" / "0.png", np.full_like(truths[0], 4), voc_palette())
    with pytest.raises(UserError, match="label 4 is above the 3 classes"):
        measure_folder(manifest, "train", tmp_path / "c")
