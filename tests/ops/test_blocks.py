"""Large images block by block: every pixel once, and nearly the labels of the whole."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from affinitynet.ops import confident_labels, dense_crf
from affinitynet.ops._mean_field import Settings, mean_field
from affinitynet.ops.blocks import blocks, in_blocks

NARROW = {"bilateral_sxy": 6.0, "bilateral_srgb": 20.0}


def scene(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image of smooth patches with noise, and two maps that follow it loosely."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 5, height // 8, width // 8, generator=generator)
    fine = F.interpolate(coarse, (height, width), mode="bilinear")[0]
    image = 200 * fine[:3] + 20 * torch.rand(3, height, width, generator=generator)
    return image.byte().permute(1, 2, 0).contiguous(), fine[3:]


@pytest.mark.parametrize("size", [(1, 1), (7, 30), (64, 65), (100, 31)])
@pytest.mark.parametrize(("block", "margin"), [(1, 0), (8, 3), (33, 50)])
def test_every_pixel_is_kept_once(size: tuple[int, int], block: int, margin: int) -> None:
    numbers = torch.arange(size[0] * size[1]).view(size)
    found = torch.full(size, -1)
    for seen, kept, inside in blocks(*size, block, margin):
        assert (found[kept] == -1).all()
        found[kept] = numbers[seen][inside]
        for there, here, length in zip(seen, kept, size, strict=True):
            assert here.stop - here.start <= block
            assert there.start == max(0, here.start - margin)
            assert there.stop == min(length, here.stop + margin)
    assert torch.equal(found, numbers)


def test_blocks_have_nearly_the_labels_of_the_whole() -> None:
    image, maps = scene(120, 200)
    label = partial(confident_labels, **NARROW)  # type: ignore[arg-type]
    whole = label(image, maps)
    assert len(whole.unique()) > 2
    made = in_blocks(label, image, maps, block=64, bilateral_sxy=6)
    assert not torch.equal(made, label(image, maps, iterations=0))
    assert (made == whole).float().mean() > 0.998
    refine = partial(dense_crf, **NARROW)  # type: ignore[arg-type]
    refined = in_blocks(refine, image, maps, block=64, bilateral_sxy=6)
    assert refined.shape == maps.shape
    torch.testing.assert_close(refined.sum(0), torch.ones(120, 200))


@pytest.mark.parametrize("block", [0, 40, 64])
def test_an_image_that_fits_a_block_is_refined_as_it_is(block: int) -> None:
    image, maps = scene(24, 40)
    made = in_blocks(partial(dense_crf, **NARROW), image, maps, block=block, bilateral_sxy=6)  # type: ignore[arg-type]
    assert torch.equal(made, dense_crf(image, maps, **NARROW))  # type: ignore[arg-type]


def test_a_block_that_sees_all_changes_nothing() -> None:
    image, maps = scene(24, 40)
    wide = {"bilateral_sxy": 20.0, "bilateral_srgb": 20.0}
    made = in_blocks(partial(dense_crf, **wide), image, maps, block=20, bilateral_sxy=20)  # type: ignore[arg-type]
    assert torch.equal(made, dense_crf(image, maps, **wide))  # type: ignore[arg-type]


def test_lattices_lie_where_those_of_the_whole_do() -> None:
    """The kernels and the tensor path, each at the same place of a larger image."""
    image, maps = scene(40, 48)
    unary = -maps.clamp(1e-5, 1).log().reshape(1, 2, -1)
    here = dense_crf(image, maps, origin=(13, 70))
    settings = Settings(10, 3, 3, 80, 13, 10, (13, 70))
    twin = mean_field(image.float(), unary, settings).reshape(maps.shape)
    torch.testing.assert_close(here, twin, rtol=0, atol=1e-3)
    assert not torch.equal(here, dense_crf(image, maps))


def test_a_block_is_a_whole_number() -> None:
    image, maps = scene(16, 16)
    with pytest.raises(ValueError, match="block must be a whole number"):
        in_blocks(dense_crf, image, maps, block=-1, bilateral_sxy=80)
