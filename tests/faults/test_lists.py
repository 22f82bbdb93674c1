"""Each line of an image list is one image, spaces and all."""

import numpy as np
import pytest

from affinitynet.data import Manifest, Sample, read_dataset, voc_palette, write_labels
from affinitynet.errors import UserError
from affinitynet.export.dataset import Export
from affinitynet.export.folders import write_export


def tags_of(manifest):
    return {s.id: manifest.classes[s.tags[0]] for s in manifest.split("train")}


@pytest.mark.parametrize(
    "tags",
    [
        {"ali": "sheep", "ali (1)": "cat", "ali (2)": "dog"},
        {"my photo": "cat", "my dog": "dog", "my": "cow"},
        {"scan 0": "cat", "scan 1": "dog", "b": "cow"},
        {"scan 0": "cat", "scan 1": "dog", "scan -1": "cow"},
        {"a.b": "cat", "a.b.png": "dog"},
        {"x.jpg y.png": "cat", "x": "dog"},
        {"caf\u00e9": "cat", "\u732b 1": "dog"},
    ],
    ids=["numbered", "first word", "0 and 1", "all 0 and 1", "dots", "pair", "letters"],
)
def test_the_line_is_the_name(devkit, tags):
    assert tags_of(read_dataset(devkit(tags, list(tags)))) == tags


@pytest.mark.parametrize(
    "form",
    [
        "/data/VOC/JPEGImages/{}.jpg",
        "JPEGImages/{}.jpg",
        "{}.jpg",
        "/JPEGImages/{0}.jpg /M/{0}.png",
    ],
)
def test_lines_may_be_paths(devkit, form):
    tags = {"a 1": "cat", "b": "dog"}
    assert tags_of(read_dataset(devkit(tags, [form.format(name) for name in tags]))) == tags


def test_a_list_of_one_class_is_none_of_images(devkit, tmp_path):
    root = devkit({"a": "cat", "b": "dog"}, ["a", "b"])
    lists = root / "ImageSets" / "Segmentation"
    (lists / "cat_train.txt").write_text("a  1\nb -1\n")
    assert list(read_dataset(root).splits) == ["train"]
    (lists / "cat_train.txt").write_text("a  1\nb\n")
    with pytest.raises(UserError, match=r"cat_train\.txt: names a  1, but there is no such image"):
        read_dataset(root)


@pytest.mark.parametrize("name", ["ali (1)", "scan 0", "a.b", "dir/x y"])
def test_what_is_exported_is_read_again(pictures, tmp_path, name):
    root = pictures(f"{name}.jpg", "other.jpg")
    samples = tuple(Sample(n, root / f"{n}.jpg", (0,)) for n in (name, "other"))
    manifest = Manifest(root, ("cat", "dog"), {"train": samples})
    for sample in samples:
        write_labels(root / "m" / f"{sample.id}.png", np.ones((30, 40), int), voc_palette())
    export = Export(manifest.classes, samples, root / "m", manifest.splits, manifest.splits)
    (tmp_path / "out").mkdir()
    write_export(export, "voc", tmp_path / "out")
    assert tags_of(read_dataset(tmp_path / "out")) == {name: "cat", "other": "cat"}
