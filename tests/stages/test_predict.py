"""Predictions belong to the network and the images of this call, and never replace an image."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from affinitynet.cli import main
from affinitynet.data import read_labels
from affinitynet.data.photographs import find_photographs
from affinitynet.errors import FailedImagesError, UserError
from affinitynet.models.saved import save_model
from affinitynet.models.segmenter import build_segmentation_net, describe_segmenter
from affinitynet.predicting import predict_folder
from affinitynet.run_folder.settings import BackboneSettings, SegmenterSettings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained segmenter of two classes; `bias` of its last layer decides the mask."""
    settings = SegmenterSettings(architecture="unet", scales=(1.0,), flip=False)
    backbone = BackboneSettings(name="test_resnet", weights="none")
    net = build_segmentation_net(settings, backbone, 3)
    description = describe_segmenter(backbone, settings, ("cat", "dog"))
    for name, label in (("one", 1), ("two", 2)):
        with torch.no_grad():
            net.network.segmentation_head[0].bias.copy_(torch.eye(3)[label] * 1000)
        save_model(tmp_path / name / "segmenter", net, description)
    return tmp_path


def picture(path: Path, size: tuple[int, int] = (32, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 30)).save(path)
    return path


def test_masks_of_an_older_network_or_image_are_replaced(model: Path) -> None:
    images, out = model / "images", model / "masks"
    picture(images / "a.png")
    predict_folder(model / "one", images, out)
    assert np.unique(read_labels(out / "a.png")).tolist() == [1]
    predict_folder(model / "two", images, out)
    assert np.unique(read_labels(out / "a.png")).tolist() == [2]
    picture(images / "a.png", (20, 10))
    predict_folder(model / "two", images, out)
    assert read_labels(out / "a.png").shape == (10, 20)


def test_no_file_of_an_earlier_call_stays_beside_a_new_one(model: Path) -> None:
    images, out = model / "images", model / "masks"
    for name in ("deep/a.png", "b.png", "other.png"):
        picture(images / name)
    predict_folder(model / "one", images, out, overlay=True, scores=True)
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    (images / "other.png").unlink()
    (images / "b.png").write_bytes(b"no picture")
    with pytest.raises(FailedImagesError):
        predict_folder(model / "two", images, out)
    made = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    other = {"other.png", "other.overlay.jpg", "other.scores.npz"}  # no image of this call
    assert made == {"predict.json", "notes.txt", "deep/a.png", *other}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_an_image_that_lies_among_the_masks_is_not_deleted(model: Path) -> None:
    out = predict_folder(model / "one", picture(model / "first" / "b.png"), model / "masks")
    image = out / "a.png"
    image.write_bytes(b"no picture")
    (model / "images").mkdir()
    (model / "images" / "a.png").symlink_to(image)
    (out / "b.png").unlink()
    (out / "b.png").symlink_to(picture(model / "images" / "b.png"))
    (model / "images" / "b.png").write_bytes(b"no picture")
    given = [model / "images" / "a.png", model / "images" / "b.png"]
    with pytest.raises(FailedImagesError, match="2 of 2 images failed"):
        predict_folder(model / "two", given, out)
    assert all(path.read_bytes() == b"no picture" for path in (image, *given))
    assert not (out / "b.png").is_symlink()  # of a link among the masks the link is deleted


def test_masks_inside_the_images_folder_are_not_segmented(model: Path) -> None:
    picture(model / "images" / "sub" / "a.png")
    out = model / "images" / "masks"
    for _ in range(2):
        predict_folder(model / "one", model / "images", out)
    assert [p.relative_to(out).as_posix() for p in out.rglob("*.png")] == ["sub/a.png"]


def test_the_folder_of_the_images_is_refused(model: Path) -> None:
    image = picture(model / "images" / "a.png")
    before = image.read_bytes()
    for given in (model / "images", image):
        with pytest.raises(UserError, match="is the folder of the images"):
            predict_folder(model / "one", given, model / "images" / ".." / "images")
    assert image.read_bytes() == before


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "a.jpg")
    with pytest.raises(UserError, match="two images are named a"):
        find_photographs(tmp_path / "in", tmp_path / "out")


def test_what_macos_puts_beside_images_is_no_image(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "._a.png").write_bytes(b"no picture")
    assert [sample.id for sample in find_photographs(tmp_path / "in", tmp_path / "out")] == ["a"]


def test_a_bad_image_is_named_and_the_others_are_segmented(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = model / "images", model / "masks"
    for name in ("a.png", "deep/c.png", "d.jpg"):
        picture(images / name)
    (images / "b.png").write_bytes(b"no picture")
    with pytest.raises(FailedImagesError, match=r"1 of 4 images failed, the first is .*b\.png: "):
        predict_folder(model / "one", images, out)
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert made == ["a.png", "d.png", "deep/c.png"]
    said = capsys.readouterr().err
    assert "predict: 3 images in" in said
    assert "images/s" in said
    assert f"warning: failed: {images / 'b.png'}: this image can't be decoded" in said


def test_an_image_deeper_than_the_networks_learned_from_is_named(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = model / "images", model / "masks"
    picture(images / "a.png")
    gray = np.arange(1024, dtype=np.uint16).reshape(32, 32)
    for name in ("b.png", "c.tif"):
        Image.fromarray(gray).save(images / name)
    with pytest.raises(FailedImagesError, match=r"2 of 3 .*b\.png: has more than 8 bits a channel"):
        predict_folder(model / "one", images, out)
    assert [path.name for path in out.rglob("*.png")] == ["a.png"]
    assert f"warning: failed: {images / 'c.tif'}: has more than 8 bits" in capsys.readouterr().err


def test_the_command_ends_with_1_after_a_bad_image(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = picture(model / "images" / "a.png"), model / "images" / "b.png"
    bad.write_bytes(b"no picture")
    words = ["predict", model / "one", good, bad, "--out", model / "masks"]
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert end.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("affinitynet: 1 of 2 images failed")


def test_overlay_and_scores_lie_beside_the_mask(model: Path) -> None:
    image = picture(model / "images" / "a.png", (20, 10))
    out = predict_folder(model / "two", image, model / "masks", overlay=True, scores=True)
    with np.load(out / "a.scores.npz") as file:
        probabilities = file["probabilities"]
        assert file["classes"].tolist() == ["cat", "dog"]
    assert probabilities.shape == (3, 10, 20)
    np.testing.assert_array_equal(probabilities.argmax(0), read_labels(out / "a.png"))
    with Image.open(out / "a.overlay.jpg") as overlay:
        assert overlay.size == (20, 10)
        laid = np.asarray(overlay, int)
    with Image.open(image) as original:
        assert np.abs(laid - np.asarray(original, int)).mean() > 20


def test_other_formats_are_as_export_makes_them(model: Path) -> None:
    for name in ("a.png", "b.jpg"):
        picture(model / "images" / name)
    out = predict_folder(model / "two", model / "images", model / "coco", format="coco")
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*")) == [
        "annotations",
        "annotations/instances_predicted.json",
        "images",
        "images/a.png",
        "images/b.jpg",
    ]
    document = json.loads((out / "annotations" / "instances_predicted.json").read_text())
    assert [entry["area"] for entry in document["annotations"]] == [32 * 32] * 2
    with pytest.raises(UserError, match="holds files already"):
        predict_folder(model / "two", model / "images", out, format="coco")
    with pytest.raises(UserError, match="go with --format png"):
        predict_folder(model / "two", model / "images", model / "new", format="voc", scores=True)


def ids(*given: Path, out: Path) -> list[str]:
    return [sample.id for sample in find_photographs(list(given), out)]


def test_names_below_the_common_folder_name_the_masks(tmp_path: Path) -> None:
    x, y, z = (picture(tmp_path / name) for name in ("p/x/1.png", "p/y/1.png", "p/z.jpg"))
    (tmp_path / "p" / "notes.txt").write_text("no picture", encoding="utf-8")
    out = tmp_path / "out"
    assert ids(x, out=out) == ["1"]
    assert ids(x, y, out=out) == ["x/1", "y/1"]
    assert ids(x.parent, y.parent, z, out=out) == ["x/1", "y/1", "z"]
    assert ids(tmp_path / "p" / "**" / "*.png", out=out) == ["x/1", "y/1"]
    assert ids(x, x.parent, tmp_path / "p" / "x" / "*", out=out) == ["1"]
    assert ids(z, tmp_path / "p" / "notes.txt", out=out) == ["z"]
    with pytest.raises(UserError, match="there is no such image or folder"):
        ids(tmp_path / "p" / "*.tif", out=out)
