from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from affinitynet.models.vgg16 import VGG16
from affinitynet.ops.normalization import CAFFE_BGR


def loaded(paper: SimpleNamespace, fc6_dilation: int = 1) -> VGG16:
    network = VGG16(fc6_dilation, width=paper.width)
    network.load_state_dict(paper.vgg16_state())
    return network.eval()


def test_the_published_network_is_this_one(paper: SimpleNamespace) -> None:
    with torch.device("meta"):
        network = VGG16()
    state = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert state == {name: tuple(t.shape) for name, t in paper.vgg16_state(1.0).items()}
    # Without fc8 (20 x 1024) of the published classifier's 20,504,384 and 20,244,224.
    parameters = list(network.parameters())
    assert sum(p.numel() for p in parameters) == 20_504_384 - 20 * 1024
    assert sum(p.numel() for p in parameters if p.requires_grad) == 20_244_224 - 20 * 1024


@pytest.mark.parametrize("fc6_dilation", [1, 4, 12])
def test_forward_is_the_papers(paper: SimpleNamespace, images: Tensor, fc6_dilation: int) -> None:
    maps = loaded(paper, fc6_dilation)(images)
    expected = paper.vgg16(images, paper.vgg16_state(), fc6_dilation)
    assert [tuple(m.shape) for m in maps] == [(2, 32, 6, 8), (2, 32, 6, 8), (2, 64, 6, 8)]
    for ours, theirs in zip(maps, expected, strict=True):
        assert theirs.std() > 0.05
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)


def test_training_drops_half_of_fc6s_channels(paper: SimpleNamespace, images: Tensor) -> None:
    network = loaded(paper).train()
    seen: list[Tensor] = []
    network.fc7.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    torch.manual_seed(0)
    network(images)
    network.eval()(images)
    dropped, whole = seen
    kept = dropped.abs().amax((2, 3), keepdim=True) > 0
    torch.testing.assert_close(dropped, torch.where(kept, 2 * whole, 0.0))
    assert 0.3 < 1 - kept.double().mean() < 0.7


@pytest.mark.parametrize(
    ("size", "grid"), [((375, 500), (47, 63)), ((448, 448), (56, 56)), ((9, 1), (2, 1))]
)
def test_the_grid_is_an_eighth_rounded_up(size: tuple[int, int], grid: tuple[int, int]) -> None:
    with torch.device("meta"):
        maps = VGG16()(torch.empty(1, 3, *size))
    assert [m.shape[1] for m in maps] == [512, 512, 1024]
    assert {tuple(m.shape[2:]) for m in maps} == {grid}


def test_the_contract_of_backbones(paper: SimpleNamespace) -> None:
    network = loaded(paper)
    assert network.channels == (32, 32, 64)
    assert network.strides == (8, 8, 8)
    assert network.normalization == CAFFE_BGR
    assert network.sqrt_cam is True


def test_gradient_reaches_all_but_the_first_four(paper: SimpleNamespace, images: Tensor) -> None:
    network = loaded(paper).train()
    sum(m.mean() for m in network(images)).backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    frozen = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
    assert without == {f"{name}.{value}" for name in frozen for value in ("weight", "bias")}
