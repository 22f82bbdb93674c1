"""Exported networks run where they go: ONNX Runtime, and torch.export's loader."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from affinitynet.data.toy import make_toy
from affinitynet.models.export import export_model
from affinitynet.models.saved import save_model
from affinitynet.models.segmenter import Segmenter, build_segmentation_net, describe_segmenter
from affinitynet.run_folder.settings import BackboneSettings, SegmenterSettings

pytestmark = [pytest.mark.formats, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An untrained segmenter that averages over three scales and mirrored images."""
    torch.manual_seed(0)
    settings = SegmenterSettings(architecture="unet", scales=(0.75, 1.0, 1.25), flip=True)
    backbone = BackboneSettings(name="test_resnet", weights="none")
    net = build_segmentation_net(settings, backbone, 4)
    description = describe_segmenter(backbone, settings, ("a", "b", "c"))
    save_model(tmp_path / "segmenter", net, description)
    return tmp_path


def pictures(folder: Path) -> list[np.ndarray]:
    from affinitynet.data import load_image

    data = make_toy(folder / "toy", train=4, val=1, size=64)
    toys = [load_image(file) for file in sorted((data / "images").rglob("*.*"))]
    # Of other sizes, and one that needs no padding at any scale.
    return [*toys, toys[0][:33, :50], np.tile(toys[1], (2, 2, 1))]


def test_onnx_by_onnxruntime(run, tmp_path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    out = export_model(run, tmp_path / "out", format="onnx")
    session = runtime.InferenceSession(str(out / "model.onnx"))
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["classes"]) == ["background", "a", "b", "c"]
    assert json.loads(known["palette"])[:2] == [[0, 0, 0], [128, 0, 0]]
    segmenter = Segmenter.load(run / "segmenter")
    for image in pictures(tmp_path):
        labels, probabilities = session.run(None, {"image": image[None]})
        assert labels.dtype == np.uint8
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
        np.testing.assert_array_equal(labels[0], segmenter.predict(image))


def test_pt2_by_torch(run, tmp_path) -> None:
    if not hasattr(torch, "export"):
        pytest.skip("this torch has no torch.export")
    out = export_model(run, tmp_path / "out", format="pt2")
    known = {"classes": ""}
    program = torch.export.load(out / "model.pt2", extra_files=known).module()
    assert json.loads(known["classes"]) == ["background", "a", "b", "c"]
    segmenter = Segmenter.load(run / "segmenter")
    for image in pictures(tmp_path):
        labels, _ = program(torch.from_numpy(image[None]))
        np.testing.assert_array_equal(labels[0].numpy(), segmenter.predict(image))
