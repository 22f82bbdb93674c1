"""A network in tiles: the whole image's maps, where its field of view lies within a tile."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from affinitynet.ops.tiles import cut, in_tiles

Network = Callable[[Tensor], Tensor]


def network(stride: int) -> nn.Module:
    """Five convolutions of 3 x 3, so many of them of stride 2 as `stride` says."""
    torch.manual_seed(0)
    strides = [2 if 2**number < stride else 1 for number in range(5)]
    layers = [
        nn.Conv2d(3 if i == 0 else 4, 4, 3, stride=s, padding=1) for i, s in enumerate(strides)
    ]
    return nn.Sequential(*layers).eval()


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2, 8, 32])
@pytest.mark.parametrize("size", [(160, 224), (161, 130), (40, 203), (97, 31)])
def test_tiles_are_the_whole_where_the_field_of_view_fits(
    stride: int, size: tuple[int, int]
) -> None:
    # Its field of view reaches 1 + 2 + 4 + 8 + 16 pixels at the most.
    net = network(stride)
    whole = net(images(*size))
    for tile in (32, 64, 90):
        joined = in_tiles(net, images(*size), tile=tile, surroundings=32)
        torch.testing.assert_close(joined, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_without_surroundings_borders_of_tiles_show() -> None:
    net = network(8)
    joined = in_tiles(net, images(160, 160), tile=64, surroundings=0)
    assert (joined - net(images(160, 160))).abs().max() > 0.01


@pytest.mark.parametrize("tile", [0, 200, 10_000])
def test_what_a_tile_holds_is_seen_as_a_whole(tile: int) -> None:
    seen = []

    def look(part: Tensor) -> Tensor:
        seen.append(part.shape[-2:])
        return part

    given = images(200, 120)
    assert in_tiles(look, given, tile=tile) is given
    assert seen == [(200, 120)]


def test_no_tile_sees_more_than_itself_and_its_surroundings() -> None:
    seen = []

    def look(part: Tensor) -> Tensor:
        seen.append(max(part.shape[-2:]))
        return part.float()

    pixels = torch.randint(0, 256, (1, 3, 300, 500), dtype=torch.uint8)
    assert torch.equal(in_tiles(look, pixels, tile=64, surroundings=32), pixels.float())
    assert max(seen) <= 64 + 2 * 32


@pytest.mark.parametrize("length", [1, 64, 65, 1000])
def test_every_pixel_is_kept_once(length: int) -> None:
    tiles = list(cut(length, 64, 32))
    assert [pixel for t in tiles for pixel in range(length)[t.kept]] == list(range(length))
    assert all(t.seen.start % 32 == 0 for t in tiles)


def test_what_is_refused() -> None:
    for options in ({"tile": -1}, {"tile": 32, "surroundings": -1}):
        with pytest.raises(ValueError, match="must be"):
            in_tiles(network(1), images(64, 64), **options)
    with pytest.raises(ValueError, match="at no stride up to 32"):
        in_tiles(lambda part: part[..., :3, :3], images(128, 128), tile=32)
