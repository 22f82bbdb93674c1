from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from affinitynet.models.resnet38 import ResNet38
from affinitynet.ops.normalization import IMAGENET


@pytest.fixture
def network(paper: SimpleNamespace) -> ResNet38:
    network = ResNet38(paper.width)
    network.load_state_dict(paper.resnet38_state())
    return network.eval()


def test_the_published_network_is_this_one(paper: SimpleNamespace) -> None:
    with torch.device("meta"):
        network = ResNet38()
    state = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    published = {name: tuple(t.shape) for name, t in paper.resnet38_state(1 / 4).items()}
    quarter = ResNet38(1 / 4).state_dict()
    assert {name: tuple(t.shape) for name, t in quarter.items()} == published
    assert list(state) == list(published)
    # Without fc8 (20 x 4096) of the published classifier's 105,152,832 and 104,284,160.
    parameters = list(network.parameters())
    assert sum(p.numel() for p in parameters) == 105_152_832 - 20 * 4096
    assert sum(p.numel() for p in parameters if p.requires_grad) == 104_284_160 - 20 * 4096


def test_forward_is_the_papers_table(
    network: ResNet38, paper: SimpleNamespace, images: Tensor
) -> None:
    maps = network(images)
    expected = paper.resnet38(images, paper.resnet38_state())
    assert [tuple(m.shape) for m in maps] == [(2, 32, 6, 8), (2, 64, 6, 8), (2, 256, 6, 8)]
    for ours, theirs in zip(maps, expected, strict=True):
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_training_drops_channels_where_the_paper_does(
    network: ResNet38, paper: SimpleNamespace, images: Tensor
) -> None:
    masks: dict[str, Tensor] = {}

    def record(name: str) -> None:
        def hook(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            kept = output.abs().amax((2, 3), keepdim=True) > 0
            masks[name] = (
                torch.where(kept, output / inputs[0], 0).nan_to_num().amax((2, 3), keepdim=True)
            )

        unit, branch = name.split(".")
        network.get_submodule(f"{unit}.dropout_{branch}").register_forward_hook(hook)

    names = {"b6.2b1": 0.3, "b6.2b2": 0.3, "b7.2b1": 0.5, "b7.2b2": 0.5}
    for name in names:
        record(name)
    torch.manual_seed(0)
    maps = network.train()(images)
    for name, rate in names.items():
        values = {round(v, 4) for v in masks[name].flatten().tolist()}
        assert values == {0.0, round(1 / (1 - rate), 4)}
        dead = (masks[name] == 0).double().mean().item()
        assert dead == pytest.approx(rate, abs=0.2)
    expected = paper.resnet38(images, paper.resnet38_state(), masks)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(maps[2], network.eval()(images)[2])


@pytest.mark.parametrize(
    ("size", "grid"), [((375, 500), (47, 63)), ((448, 448), (56, 56)), ((9, 1), (2, 1))]
)
def test_the_grid_is_an_eighth_rounded_up(size: tuple[int, int], grid: tuple[int, int]) -> None:
    with torch.device("meta"):
        maps = ResNet38()(torch.empty(1, 3, *size))
    assert [m.shape[1] for m in maps] == [512, 1024, 4096]
    assert {tuple(m.shape[2:]) for m in maps} == {grid}


def test_the_contract_of_backbones(network: ResNet38, images: Tensor) -> None:
    maps = network(images)
    assert network.channels == tuple(m.shape[1] for m in maps)
    assert network.strides == (8, 8, 8)
    assert network.normalization == IMAGENET
    assert network.sqrt_cam is False
    assert ResNet38(1 / 16).channels == (32, 64, 256)


def test_gradient_reaches_the_35_published_convolutions_only(
    network: ResNet38, images: Tensor
) -> None:
    network.train()
    assert network.train() is network
    sum(m.mean() for m in network(images)).backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None}
    frozen = ("conv1a.", "b2.", "b2_1.", "b2_2.")
    expected = {
        name
        for name, _ in network.named_parameters()
        if ".conv_" in name and not name.startswith(frozen)
    }
    assert reached == expected
    assert len(reached) == 35


def test_batch_statistics_never_move(network: ResNet38, images: Tensor) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()(images * 7 + 3)
    assert not any(m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    assert any(m.training for m in network.modules() if isinstance(m, nn.Dropout2d))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_hooks_on_a_unit_fire(network: ResNet38, images: Tensor) -> None:
    seen = []
    network.get_submodule("b4_5").register_forward_hook(lambda *_: seen.append(1))
    network(images)
    assert seen == [1]
