"""The classifier: its scores are the spatial means of the maps that become the CAMs."""

import pytest
import torch
from torch import Tensor

from affinitynet.models.backbone import TimmBackbone
from affinitynet.models.classifier import Classifier
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.vgg16 import VGG16

CLASSES = 5


@pytest.fixture(params=["resnet38", "vgg16", "test_resnet"])
def model(request: pytest.FixtureRequest) -> Classifier:
    torch.manual_seed(0)
    name = request.param
    if name == "resnet38":
        return Classifier(ResNet38(1 / 16), CLASSES).eval()
    if name == "vgg16":
        return Classifier(VGG16(width=1 / 16), CLASSES).eval()
    return Classifier(TimmBackbone(name, 16), CLASSES).eval()


def images() -> Tensor:
    return torch.randn(2, 3, 40, 48, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def class_maps(model: Classifier) -> Tensor:
    """w_c^T f(x, y) for every class and position, before anything else."""
    features = model.backbone(images())[-1]
    batch, _, height, width = features.shape
    maps = torch.zeros(batch, CLASSES, height, width)
    for c in range(CLASSES):
        for y in range(height):
            for x in range(width):
                maps[:, c, y, x] = features[:, :, y, x] @ model.head.class_weights[c]
    return maps


@torch.no_grad()
def test_logits_are_spatial_means_of_unrectified_scores(model: Classifier) -> None:
    maps = class_maps(model)
    assert (maps < 0).any()
    torch.testing.assert_close(model(images()), maps.mean((2, 3)), rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_cams_are_rectified_and_vggs_are_square_roots(model: Classifier) -> None:
    expected = class_maps(model).clamp(min=0)
    if isinstance(model.backbone, VGG16):
        expected = expected**0.5
    cams = model.cams(images())
    assert cams.shape[1] == CLASSES
    assert cams.any()
    # The root is steep at 0, where sums in another order differ most.
    torch.testing.assert_close(cams, expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_batch_equals_its_images(model: Classifier) -> None:
    for function in (model, model.cams):
        single = torch.cat([function(image[None]) for image in images()])
        torch.testing.assert_close(function(images()), single, rtol=1e-4, atol=1e-5)
