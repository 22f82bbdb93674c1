import hashlib

import numpy as np
import pytest

from affinitynet.data import check_dataset, load_image, load_truth, read_dataset
from affinitynet.data.toy import CLASSES, make_toy, toy_image
from affinitynet.errors import UserError


def digests(root) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def test_the_data_set_is_whole_and_reproducible(tmp_path):
    make_toy(tmp_path / "a", train=6, val=2, seed=3)
    manifest = read_dataset(tmp_path / "a")
    assert manifest.classes == CLASSES
    assert {name: len(split) for name, split in manifest.splits.items()} == {"train": 6, "val": 2}
    report = check_dataset(manifest)
    assert not report.problems
    assert report.with_truth == {"train": 6, "val": 2}
    for sample in manifest.samples:
        labels = set(np.unique(load_truth(manifest, sample))) - {0}
        assert labels == {tag + 1 for tag in sample.tags}
    assert load_image(manifest.samples[0].image).shape == (128, 128, 3)
    make_toy(tmp_path / "b", train=6, val=2, seed=3)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    make_toy(tmp_path / "c", train=6, val=2, seed=4)
    first, other = digests(tmp_path / "a" / "images"), digests(tmp_path / "c" / "images")
    assert not set(first.values()) & set(other.values())


def test_an_interrupted_data_set_is_completed(tmp_path):
    make_toy(tmp_path / "a", train=4, val=0)
    whole = digests(tmp_path / "a")
    (tmp_path / "a" / "labels.csv").unlink()
    (tmp_path / "a" / "images" / "0003.png").unlink()
    make_toy(tmp_path / "a", train=4, val=0)
    assert digests(tmp_path / "a") == whole


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_record_has_the_data_set_made_anew(tmp_path, content):
    make_toy(tmp_path / "a", train=2, val=0)
    whole = digests(tmp_path / "a")
    (tmp_path / "a" / "toy.json").write_text(content)
    (tmp_path / "a" / "images" / "0001.png").write_bytes(b"damaged")
    make_toy(tmp_path / "a", train=2, val=0)
    assert digests(tmp_path / "a") == whole


def test_other_files_are_left_alone(tmp_path):
    make_toy(tmp_path / "toy", train=1, val=0)
    before = digests(tmp_path / "toy")
    make_toy(tmp_path / "toy", train=1, val=0)
    assert digests(tmp_path / "toy") == before
    with pytest.raises(UserError, match="other settings"):
        make_toy(tmp_path / "toy", train=2, val=0)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "labels.csv").write_text("image,labels\n")
    with pytest.raises(UserError, match="holds other files"):
        make_toy(tmp_path / "mine")
    with pytest.raises(UserError, match="at least 32 pixels"):
        make_toy(tmp_path / "tiny", size=8)


def test_a_check_has_nothing_to_say_of_its_files(tmp_path):
    manifest = read_dataset(make_toy(tmp_path / "toy", train=4, val=2))
    assert not any("is not read" in note for note in manifest.notes)


def test_what_the_toy_set_promises():
    counts, head_shares, contrasts = [], [], []
    for index in range(60):
        image, labels = toy_image(128, np.random.default_rng([9, index]))
        assert image.shape == (128, 128, 3)
        present = [int(label) for label in np.unique(labels) if label]
        counts.append(len(present))
        for label in present:
            inside = labels == label
            grey = image[inside].astype(int)
            telling = TELLING[label - 1](grey)
            head_shares.append(telling.mean())
        if present:
            # Plain bodies on textured ground: neighbors differ less inside than outside.
            step = np.abs(np.diff(image.astype(float), axis=1)).mean(-1)
            both = (labels[:, 1:] > 0) & (labels[:, :-1] > 0)
            neither = (labels[:, 1:] == 0) & (labels[:, :-1] == 0)
            contrasts.append(np.median(step[neither]) / np.median(step[both]))
    assert set(counts) == {0, 1, 2, 3}
    assert 0.05 < np.mean(head_shares) < 0.4  # the part that tells is the smaller one
    assert np.mean(contrasts) > 1.5


# Whether a pixel has a saturated color of the class's head (red, blue, green, magenta).
TELLING = (
    lambda p: (p[:, 0] > 150) & (p[:, 1] < 80) & (p[:, 2] < 80),
    lambda p: (p[:, 2] > 130) & (p[:, 0] < 70) & (p[:, 1] < 90),
    lambda p: (p[:, 1] > 150) & (p[:, 2] < 110) & (p[:, 0] < 225),
    lambda p: (p[:, 0] > 140) & (p[:, 1] < 80) & (p[:, 2] > 100),
)
