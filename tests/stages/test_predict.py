"""Predictions belong to the network and the images of this call, and never replace an image."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from affinitynet.data import read_labels
from affinitynet.data.photographs import find_photographs
from affinitynet.errors import UserError
from affinitynet.models.saved import save_model
from affinitynet.models.segmenter import build_segmentation_net, describe_segmenter
from affinitynet.pipeline import predict_folder
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
