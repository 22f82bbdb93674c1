import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from affinitynet.models.heads import AffinityHead, CamHead, LargeFovHead, PixelHead

PUBLISHED = {"reduce.0": "f8_3", "reduce.1": "f8_4", "reduce.2": "f8_5", "mix": "f9"}
PUBLISHED |= {"norm.0": "gn8_3", "norm.1": "gn8_4", "norm.2": "gn8_5"}


def random_maps(*channels: int, size: tuple[int, int] = (5, 7)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, *size, generator=generator) for c in channels]


def published_affinity_head(paper: SimpleNamespace, network: str) -> AffinityHead:
    channels = {"resnet38": (32, 64, 256), "vgg16": (32, 32, 64)}[network]
    head = AffinityHead(channels, group_norm=network == "vgg16")
    published = paper.head_state("affinity", network)
    head.load_state_dict({name: published[_published(name)] for name in head.state_dict()})
    return head


def _published(name: str) -> str:
    layer, _, value = name.rpartition(".")
    return f"{PUBLISHED[layer]}.{value}"


def test_class_scores_are_the_mean_of_the_class_maps() -> None:
    (features,) = random_maps(16)
    head = CamHead(16, 3).eval()
    maps = torch.einsum("cd,bdhw->bchw", head.class_weights, features)
    torch.testing.assert_close(head(features), maps.mean((2, 3)))
    assert head.class_weights.shape == (3, 16)
    assert [name for name, _ in head.named_parameters()] == ["fc.weight"]


@pytest.mark.parametrize(("size", "many"), [((5, 7), 2), ((2, 3), 1), ((10, 20), 10)])
def test_top_pooling_adds_the_largest_twentieth_of_each_map(
    size: tuple[int, int], many: int
) -> None:
    (features,) = random_maps(16, size=size)
    head = CamHead(16, 3, "top").eval()
    scores = head(features).detach()
    maps = torch.einsum("cd,bdhw->bchw", head.class_weights, features).detach()
    for image in range(2):
        for c in range(3):
            values = sorted(maps[image, c].flatten().tolist(), reverse=True)
            expected = (sum(values) / len(values) + sum(values[:many]) / many) / 2
            assert float(scores[image, c]) == pytest.approx(expected, abs=1e-5)


def test_class_scores_drop_half_of_the_channels_in_training() -> None:
    features = torch.ones(1, 1001, 2, 2)
    head = CamHead(1001, 1)
    with torch.no_grad():
        head.fc.weight.fill_(1.0)
    torch.manual_seed(0)
    # Every kept channel counts 2, so the score is even and near 1001.
    score = head.train()(features).item()
    assert score % 2 == 0
    assert 900 < score < 1100
    assert head.eval()(features).item() == 1001


@pytest.mark.parametrize("network", ["resnet38", "vgg16"])
def test_affinity_features_are_the_published_ones(paper: SimpleNamespace, network: str) -> None:
    head = published_affinity_head(paper, network)
    maps = random_maps(*(layer.in_channels for layer in head.reduce))  # type: ignore[misc]
    expected = paper.affinity_features(
        [m.double() for m in maps], paper.head_state("affinity", network)
    )
    features = head(maps)
    assert features.shape == (2, 448, 5, 7)
    assert head.out_channels == 448
    torch.testing.assert_close(features.double(), expected, rtol=1e-4, atol=1e-5)


def test_groups_are_8_16_and_32() -> None:
    head = AffinityHead((4, 4, 4), group_norm=True)
    assert head.norm is not None
    assert [norm.num_groups for norm in head.norm] == [8, 16, 32]
    assert [norm.num_channels for norm in head.norm] == [64, 128, 256]


def test_maps_of_other_sizes_are_brought_to_the_first_ones_grid() -> None:
    head = AffinityHead((4, 5, 6), widths=(8, 8, 8))
    first, second, third = random_maps(4, 5, 6)
    small = F.avg_pool2d(second, 3, 2, 1)
    features = head([first, small, third])
    assert features.shape == (2, 24, 5, 7)
    parts = [F.elu(layer(m)) for layer, m in zip(head.reduce, (first, small, third), strict=True)]
    parts[1] = F.interpolate(parts[1], (5, 7), mode="bilinear", align_corners=False)
    torch.testing.assert_close(features, F.elu(head.mix(torch.cat(parts, 1))))


def test_affinity_weights_start_as_published() -> None:
    torch.manual_seed(0)
    head = AffinityHead((512, 1024, 4096))
    for layer, inputs in zip(head.reduce, (512, 1024, 4096), strict=True):
        assert layer.bias is None
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / inputs), rel=0.03)
    bound = 4 * math.sqrt(6 / (448 + 448))
    assert head.mix.bias is None
    assert head.mix.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert head.mix.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_class_weights_start_xavier_uniform() -> None:
    torch.manual_seed(0)
    weight = CamHead(4096, 20).fc.weight
    bound = math.sqrt(6 / (4096 + 20))
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_large_fov_sees_12_cells_away_and_no_nearer() -> None:
    torch.manual_seed(0)
    head = LargeFovHead(2, 3, hidden=32).eval()
    features = torch.zeros(1, 2, 29, 29)
    empty = head(features)
    features[0, :, 14, 14] = 5.0
    changed = ((head(features) - empty).abs().amax(1)[0] > 0).nonzero().tolist()
    assert changed
    assert {y for y, _ in changed} | {x for _, x in changed} <= {2, 14, 26}
    assert {2, 26} <= {y for y, _ in changed}


def test_large_fov_is_deeplabs_three_layers() -> None:
    (features,) = random_maps(6, size=(15, 16))
    head = LargeFovHead(6, 5, hidden=8).eval()
    x = F.relu(F.conv2d(features, head.fc6.weight, head.fc6.bias, padding=12, dilation=12))
    x = F.relu(F.conv2d(x, head.fc7.weight, head.fc7.bias))
    expected = F.conv2d(x, head.fc8.score.weight, head.fc8.score.bias)
    torch.testing.assert_close(head(features), expected)
    assert expected.shape == (2, 5, 15, 16)
    assert LargeFovHead(4, 2).fc6.out_channels == 1024


@pytest.mark.parametrize("head", [LargeFovHead(6, 5, hidden=8), PixelHead(6, 5)])
def test_pixel_scores_have_dropout_in_training_only(head: nn.Module) -> None:
    (features,) = random_maps(6)
    torch.manual_seed(0)
    head.train()
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] in ([0.5, 0.5], [0.5])
