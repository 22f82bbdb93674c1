"""What a map points at is taken out of the image; nothing else changes."""

import torch
from torch import Generator

from affinitynet.ops import deletion


def test_the_strongest_pixels_are_as_many_as_asked() -> None:
    cam = torch.rand(20, 30, generator=Generator().manual_seed(0))
    found = deletion.strongest_pixels(cam, 0.02)
    assert found.shape == cam.shape
    assert found.sum() == 12
    assert cam[found].min() > cam[~found].max()


def test_pixels_of_zero_are_never_among_them() -> None:
    cam = torch.zeros(10, 10)
    assert not deletion.strongest_pixels(cam, 0.5).any()
    cam[3, 4] = 0.1
    assert deletion.strongest_pixels(cam, 0.5).nonzero().tolist() == [[3, 4]]


def test_a_spot_on_a_plain_is_gone() -> None:
    image = torch.full((3, 64, 64), 80.0)
    hole = torch.zeros(64, 64, dtype=torch.bool)
    hole[20:26, 30:36] = True
    image[:, hole] = 255
    filled = deletion.fill_from_surroundings(image, hole)
    torch.testing.assert_close(filled, torch.full((3, 64, 64), 80.0))


def test_what_is_not_in_the_hole_stays() -> None:
    image = 255 * torch.rand(3, 40, 56, generator=Generator().manual_seed(1))
    hole = torch.zeros(40, 56, dtype=torch.bool)
    hole[:20, 10:50] = True  # wider than the first window: filled in more than one turn
    filled = deletion.fill_from_surroundings(image, hole)
    assert torch.equal(filled[:, ~hole], image[:, ~hole])
    assert not torch.equal(filled[:, hole], image[:, hole])
    assert filled.min() >= 0
    assert filled.max() <= 255


def test_a_filled_pixel_takes_the_color_of_its_side() -> None:
    image = torch.zeros(3, 64, 64)
    image[:, :, 32:] = 200
    hole = torch.zeros(64, 64, dtype=torch.bool)
    hole[10, 8] = hole[10, 56] = True
    filled = deletion.fill_from_surroundings(image, hole)
    assert filled[0, 10, 8] < 1
    assert filled[0, 10, 56] > 199


def test_an_image_that_is_all_hole_becomes_its_mean_color() -> None:
    image = torch.tensor([10.0, 30.0]).repeat(3, 4, 2)
    filled = deletion.fill_from_surroundings(image, torch.ones(4, 4, dtype=torch.bool))
    assert (filled == 20).all()
