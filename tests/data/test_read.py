import subprocess
import sys

import pytest
from PIL import Image

from affinitynet.data import read_dataset
from affinitynet.errors import UserError


def images(root, *names):
    """Write images of a different color each: equal files would be one image."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (40 * number, number, 0)).save(root / name)


def test_one_folder_per_class(tmp_path):
    images(tmp_path, "dog/1.jpg", "cat/1.jpg", "cat/deep/2.png", "background/3.jpg")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("")
    manifest = read_dataset(tmp_path)
    assert manifest.classes == ("cat", "dog")
    assert {s.id: s.tags for s in manifest.split("train")} == {
        "background/3": (),
        "cat/1": (0,),
        "cat/deep/2": (0,),
        "dog/1": (1,),
    }


def test_the_background_folder_may_have_a_capital(tmp_path):
    images(tmp_path, "cat/1.jpg", "Background/2.jpg")
    manifest = read_dataset(tmp_path)
    assert manifest.classes == ("cat",)
    assert [s.tags for s in manifest.split("train")] == [(), (0,)]


def test_run_folders_are_no_classes(tmp_path):
    images(tmp_path, "cat/1.jpg", "cat/._1.jpg", "run/pseudo/1.png", "runs/first/pseudo/1.png")
    for folder in ("run", "runs/first"):
        for name in ("manifest.jsonl", "recipe.yaml"):
            (tmp_path / folder / name).write_text("")
    assert [s.id for s in read_dataset(tmp_path).samples] == ["cat/1"]
    for name in ("manifest.jsonl", "recipe.yaml"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match="is a run folder too"):
        read_dataset(tmp_path)


def test_split_folders_above_the_class_folders(tmp_path):
    images(tmp_path, "train/dog/1.jpg", "train/cat/2.jpg", "val/dog/3.jpg")
    manifest = read_dataset(tmp_path)
    assert [s.id for s in manifest.split("val")] == ["val/dog/3"]
    assert len(manifest.split("train")) == 2


def test_class_folders_follow_a_class_list(tmp_path):
    images(tmp_path, "dog/1.jpg", "cat/1.jpg")
    assert read_dataset(tmp_path, classes=["dog", "cat"]).classes == ("dog", "cat")
    with pytest.raises(UserError, match=r"dog: the folder: the tag 'dog'.*'dogs'"):
        read_dataset(tmp_path, classes=["dogs", "cat"])


def test_class_folders_with_colliding_ids(tmp_path):
    images(tmp_path, "cat/1.jpg", "cat/1.png")
    with pytest.raises(UserError, match=r"would be written as cat/1\.png"):
        read_dataset(tmp_path)


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(UserError, match=r"none: there is no such data set folder"):
        read_dataset(tmp_path / "none")
    with pytest.raises(UserError, match="is empty; it needs"):
        read_dataset(tmp_path)
    images(tmp_path, "loose.jpg")
    with pytest.raises(UserError, match="has images, but no tags in a form that AffinityNet knows"):
        read_dataset(tmp_path)
    with pytest.raises(UserError, match="'vocc': must be auto"):
        read_dataset(tmp_path, format="vocc")
    for name in ("voc", "coco"):
        with pytest.raises(UserError, match=r"no VOC folder|no annotations"):
            read_dataset(tmp_path, format=name)


def test_a_folder_of_class_folders_without_images_is_empty(tmp_path):
    (tmp_path / "cat").mkdir()
    with pytest.raises(UserError):
        read_dataset(tmp_path, format="folder")


def test_a_relative_root_becomes_absolute(tmp_path, monkeypatch):
    images(tmp_path, "set/cat/1.jpg", "set/dog/2.jpg")
    monkeypatch.chdir(tmp_path)
    assert read_dataset("set").root == tmp_path / "set"


def test_reading_data_imports_no_torch():
    code = "import sys, affinitynet.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
