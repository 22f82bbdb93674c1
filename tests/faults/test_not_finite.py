"""NaN or infinity from a network: an error that names stage and image, never a mask."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import affinitynet as an
from affinitynet.errors import NotFiniteError, UserError
from affinitynet.models.segmenter import Segmenter

Spoil = Callable[[float], None]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Let every convolution answer with a value, but in training: as weights that overflow do."""
    really = nn.Conv2d.forward

    def spoil(value: float) -> None:
        def forward(self: nn.Conv2d, images: Tensor) -> Tensor:
            found = really(self, images)
            return found if torch.is_grad_enabled() else found * value

        monkeypatch.setattr(nn.Conv2d, "forward", forward)

    return spoil


def refused(home: Path, stage: str, said: str, redo: str | None = None, **settings: Any) -> None:
    recipe = an.Recipe.load(home / "tiny.yaml", data=home / "data", out=home / "run", **settings)
    with pytest.raises(UserError, match=rf"^{stage}, image 0\d+: .*({said}).*infinite"):
        an.run(recipe, redo=redo, anyway=True, until="relabel" if "relabel" in stage else None)


@pytest.mark.parametrize(
    ("stage", "said", "settings"),
    [
        ("compute_cams", "CAMs", {}),
        ("propagate", "affinity", {}),
        ("propagate", "features", {"affinity.source": "features"}),
        ("relabel", "segmenter's probabilities", {"relabel.enabled": True}),
        (
            "relabel",
            "segmenter's probabilities",
            {"relabel.enabled": True, "relabel.refine": False},
        ),
    ],
)
def test_no_mask_comes_of_a_network_that_is_not_finite(
    home: Path, spoil: Spoil, stage: str, said: str, settings: dict[str, Any]
) -> None:
    spoil(float("nan"))
    refused(home, stage, said, None if stage == "relabel" else stage, **settings)
    assert not list((home / "run" / "masks").glob("*.png"))


def test_features_that_contrast_compares_are_finite(
    home: Path, spoil: Spoil, tmp_path: Path
) -> None:
    spoil(float("inf"))
    recipe = an.Recipe.load(
        home / "tiny.yaml", data=home / "data", out=tmp_path / "run", **{"cams.source": "contrast"}
    )
    with pytest.raises(UserError, match=r"compute_contrast, banks, image 0\d+: the network's feat"):
        an.run(recipe, until="compute_cams")
    assert not list((tmp_path / "run").rglob("*.npz"))
    assert not list((tmp_path / "run").rglob("banks*"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train_classifier", "train_segmenter", "choose_cams"])
def test_what_judges_a_network_is_finite(home: Path, spoil: Spoil, stage: str) -> None:
    settings: dict[str, Any] = {}
    if stage == "train_classifier":
        settings = {"classifier.hold_out": 0.3}
    if stage == "choose_cams":
        settings = {"cams.source": "auto", "contrast.long_side": 64}
        recipe = an.Recipe.load(
            home / "tiny.yaml", data=home / "data", out=home / "run", **settings
        )
        an.run(recipe, until="compute_contrast", redo="train_classifier", anyway=True)
    spoil(float("nan"))
    redo = None if stage == "choose_cams" else stage
    name = {"train_segmenter": "predict val", "choose_cams": "choose_cams, deletion"}
    refused(home, name.get(stage, stage), "classifier's logits|probabilities", redo, **settings)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("refine", [False, True])
def test_a_saved_segmenter_says_it_too(made: Path, value: float, refine: bool) -> None:
    segmenter = Segmenter.load(made / "run" / "segmenter")
    segmenter.settings = segmenter.settings.model_copy(update={"refine": refine})
    weights = next(iter(segmenter.net.network.segmentation_head.parameters()))
    with torch.no_grad():
        weights[:] = value
    image = made / "data" / "images" / "0000.png"
    with pytest.raises(NotFiniteError, match=r"the segmenter's probabilities .* NaN or infinite"):
        segmenter.predict(image)
