"""A network that leaves gives the labels that it gives here."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch

from affinitynet.errors import UserError
from affinitynet.models.export import Predictor, export_model, rounded
from affinitynet.models.saved import save_model
from affinitynet.models.segmenter import (
    Segmenter,
    build_segmentation_net,
    describe_segmenter,
)
from affinitynet.run_folder.settings import BackboneSettings, SegmenterSettings

CLASSES = ("cat", "grün | blau")


def saved(folder: Path, backbone: str = "test_resnet", **settings: object) -> Segmenter:
    """An untrained segmenter of two classes, saved as a run has it."""
    torch.manual_seed(0)
    chosen = SegmenterSettings.model_validate({"architecture": "unet", **settings})
    base = BackboneSettings(name=backbone, weights="none")
    net = build_segmentation_net(chosen, base, len(CLASSES) + 1).eval()
    save_model(folder / "segmenter", net, describe_segmenter(base, chosen, CLASSES))
    return Segmenter.load(folder / "segmenter")


@pytest.mark.parametrize(
    ("architecture", "scales", "flip"),
    [
        ("unet", (1.0,), False),
        ("unet", (0.75, 1.0, 1.25), True),
        ("deeplabv3plus", (0.5, 1.6), True),
        ("largefov", (0.75,), False),
    ],
)
def test_the_graph_is_the_predictor(tmp_path, architecture, scales, flip) -> None:
    segmenter = saved(tmp_path, architecture=architecture, scales=scales, flip=flip)
    predictor = Predictor(segmenter.net, scales, flip).eval()
    random = np.random.default_rng(1)
    # 374 * 0.75 and 50 * 0.75 lie halfway between two sizes; 96 needs no padding.
    for height, width in ((50, 74), (96, 64), (33, 121)):
        image = torch.from_numpy(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
        with torch.inference_mode():
            labels, probabilities = predictor(image[None])
            expected = segmenter.scores(image)
        torch.testing.assert_close(probabilities[0], expected, rtol=0, atol=1e-5)
        assert labels.dtype == torch.uint8
        assert (labels[0].numpy() == segmenter.predict(image.numpy())).mean() > 0.999


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25, 1.5, 1.6, 0.3])
def test_sizes_are_rounded_as_here(scale: float) -> None:
    assert [rounded(size, scale) for size in range(1, 700)] == [
        round(size * scale) for size in range(1, 700)
    ]


def test_a_hubs_folder_gives_the_network(tmp_path) -> None:
    segmenter = saved(tmp_path, scales=(1.0,), flip=False)
    out = export_model(tmp_path, tmp_path / "out", format="segmenter")
    assert {"config.json", "model.safetensors", "README.md"} <= {p.name for p in out.iterdir()}
    network = smp.from_pretrained(str(out)).eval()
    how = json.loads((out / "preprocessing.json").read_text("utf-8"))
    assert how["labels"] == ["background", *CLASSES]
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    pixels = (image / how["scale"] - how["mean"]) / how["std"]
    with torch.inference_mode():
        logits = network(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])
    np.testing.assert_array_equal(logits.argmax(1)[0], segmenter.predict(image))
    card = (out / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: segmentation-models-pytorch\n")
    assert "| 2 | grün / blau |" in card


def test_what_cannot_be_written_is_said(tmp_path) -> None:
    saved(tmp_path, architecture="largefov")
    with pytest.raises(UserError, match="largefov is no network of segmentation-models"):
        export_model(tmp_path, tmp_path / "out", format="segmenter")
    with pytest.raises(UserError, match="choose from onnx, pt2, segmenter"):
        export_model(tmp_path, tmp_path / "out", format="torchscript")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="holds files already"):
        export_model(tmp_path, tmp_path)


def test_a_missing_package_is_named_before_anything_is_written(tmp_path, monkeypatch) -> None:
    saved(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx is not installed; pip install"):
        export_model(tmp_path, tmp_path / "out", format="onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_a_torch_that_takes_some_sizes_alone_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    saved(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.export, "export", lambda mod, args, *, dynamic_shapes, strict: None)
    with pytest.raises(UserError, match=r"take torch 2\.9 or later, and this is 2\."):
        export_model(tmp_path, tmp_path / "out", format=format)
    assert not list(tmp_path.glob("out/*"))
