from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import Manifest, Sample, check_dataset, voc_palette, write_labels


def sample(root: Path, sample_id: str, *tags: int, size=(6, 4), mask=None, folder="m") -> Sample:
    """Write an image (width, height), and maybe a mask with the values given."""
    path = root / f"{sample_id}.png"
    Image.new("RGB", size).save(path)
    if mask is None:
        return Sample(sample_id, path, tags)
    values = np.zeros((4, 6), dtype=np.uint8)
    values.ravel()[: len(mask)] = mask
    write_labels(root / folder / f"{sample_id}.png", values, voc_palette())
    return Sample(sample_id, path, tags, root / folder / f"{sample_id}.png")


def check(root: Path, *, classes=("cat", "dog"), notes=(), **splits):
    content = {name: tuple(samples) for name, samples in splits.items()}
    return check_dataset(Manifest(root, classes, content, notes=notes))


def test_counts_and_sizes(tmp_path):
    one = sample(tmp_path, "1", 0, size=(10, 20), mask=None)
    two = sample(tmp_path, "2", 0, 1, mask=[1, 2])
    three = sample(tmp_path, "3", size=(30, 40))
    report = check(tmp_path, train=[one, two], val=[three], notes=("Noted.",))
    assert not report.problems
    assert (report.images, report.splits) == (3, {"train": 2, "val": 1})
    assert report.class_counts == {"train": (2, 1), "val": (0, 0)}
    assert report.untagged == {"train": 0, "val": 1}
    assert report.with_truth == {"train": 1, "val": 0}
    assert (report.height, report.width) == ((4, 20, 40), (6, 10, 30))
    assert report.warnings[0] == "Noted."


def test_progress_counts_every_image_once(tmp_path, monkeypatch):
    samples = tuple(sample(tmp_path, str(i), 0) for i in range(5))
    # Three of them are in both splits.
    manifest = Manifest(tmp_path, ("cat",), {"train": samples, "train_precise": samples[:3]})
    counted = []

    @contextmanager
    def watch(name: str, total: int):
        progress = Mock()
        progress.advance.side_effect = lambda: counted.append((len(counted) + 1, total))
        yield progress

    monkeypatch.setattr("affinitynet.data.check.task", watch)
    check_dataset(manifest)
    assert counted == [(i, 5) for i in range(1, 6)]


def test_damaged_images_and_masks_are_problems(tmp_path):
    bad_image = sample(tmp_path, "bad_image", 0)
    bad_image.image.write_bytes(b"no image")
    bad_mask = sample(tmp_path, "bad_mask", 0, mask=[1])
    Image.new("RGB", (6, 4), "white").save(bad_mask.mask)
    bad_value = sample(tmp_path, "bad_value", 0, mask=[1, 77])
    bad_size = sample(tmp_path, "bad_size", 0, size=(4, 6), mask=[1])
    good = sample(tmp_path, "good", 0, mask=[1, 255])
    report = check(tmp_path, train=[bad_image, bad_mask, bad_value, bad_size, good])
    assert report.problems
    found = {problem.id: problem.message for problem in report.problems}
    assert list(found) == ["bad_image", "bad_mask", "bad_value", "bad_size"]
    assert "can't be decoded" in found["bad_image"]
    assert "color image" in found["bad_mask"]
    assert "the value 77" in found["bad_value"]
    assert "is 6 x 4, but its image is 4 x 6" in found["bad_size"]


def warnings_about(report, *words: str) -> list[str]:
    return [warning for warning in report.warnings if all(word in warning for word in words)]


def test_tags_and_masks_that_contradict(tmp_path):
    agree = sample(tmp_path, "agree", 0, mask=[1, 255])
    assert not warnings_about(check(tmp_path, train=[agree]), "mask")
    more = sample(tmp_path, "more", 0, mask=[1, 2])
    fewer = sample(tmp_path, "fewer", 0, 1, mask=[1])
    report = check(tmp_path, train=[agree, more, fewer])
    assert warnings_about(report, "1 images", "not among their tags", "more: dog")
    assert warnings_about(report, "1 images", "without a single pixel", "fewer: dog")


@pytest.mark.parametrize(
    ("first", "second", "warned"),
    [
        ("train", "val", True),
        ("train_aug", "val", True),
        ("train", "test", True),
        ("trainval", "val", False),
        ("train", "train_precise", False),
    ],
)
def test_images_that_train_and_evaluate(tmp_path, first, second, warned):
    shared = sample(tmp_path, "shared", 0)
    other = sample(tmp_path, "other", 0)
    report = check(tmp_path, **{first: [shared, other], second: [shared]})
    assert bool(warnings_about(report, f"1 images are in both {first} and {second}")) == warned


def test_coarse_masks_are_warned_of(tmp_path):
    fine = sample(tmp_path, "fine", 0, mask=[1], folder="SegmentationClass")
    coarse = sample(tmp_path, "coarse", 0, mask=[1], folder="SegmentationClassAug")
    report = check(tmp_path, train=[fine], train_aug=[fine, coarse], train_precise=[fine])
    assert warnings_about(report, "1 of the 2 masks of train_aug are SBD's")
    assert not warnings_about(report, "SBD's", "masks of train ")
    assert not warnings_about(report, "train_precise")
    report = check(tmp_path, train=[fine, coarse], train_precise=[fine])
    assert warnings_about(report, "take figures on train_precise")


def test_names_that_differ_only_in_case_are_warned_of(tmp_path):
    report = check(tmp_path, train=[sample(tmp_path, name, 0) for name in ("a", "A", "b")])
    assert warnings_about(report, "2 images have names that differ only in case (a and A)")


def test_rare_classes_are_named_with_their_count(tmp_path):
    samples = [sample(tmp_path, f"{i}", *((0, 1) if i < 19 else (0,))) for i in range(20)]
    report = check(tmp_path, train=samples)
    assert report.warnings == ("1 class has fewer than 20 images in train: dog (19)",)
