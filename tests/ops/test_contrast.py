"""Patch features, banks and their scale, held to loops and to what must not change them."""

import pytest
import torch
from torch import Generator, Tensor

from affinitynet.ops import contrast


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


def mean_around(features: Tensor, y: int, x: int) -> Tensor:
    """The mean of the 3 x 3 cells around one, those outside left out."""
    rows, columns = features.shape[1:]
    near = [
        features[:, j, i]
        for j in range(max(y - 1, 0), min(y + 2, rows))
        for i in range(max(x - 1, 0), min(x + 2, columns))
    ]
    return torch.stack(near).mean(0)


def test_patches_are_neighborhoods_of_all_maps() -> None:
    fine, coarse = normal(2, 3, 4, 6), normal(2, 5, 2, 3, seed=1)
    patches = contrast.patch_features([fine, coarse])
    assert patches.shape == (2, 8, 4, 6)
    for y, x in [(0, 0), (1, 5), (3, 2)]:
        torch.testing.assert_close(patches[1, :3, y, x], mean_around(fine[1], y, x))
    # A cell of the finer grid lies a quarter of a cell from the coarse one's center.
    corners = [mean_around(coarse[0], y, x) for y, x in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    weights = [0.75 * 0.75, 0.75 * 0.25, 0.25 * 0.75, 0.25 * 0.25]
    expected = sum(w * c for w, c in zip(weights, corners, strict=True))
    torch.testing.assert_close(patches[0, 3:, 1, 1], expected)


def test_a_finer_map_becomes_the_mean_of_its_cells() -> None:
    fine = torch.ones(1, 1, 4, 4)
    fine[..., 2:] = 3.0
    patches = contrast.patch_features([torch.zeros(1, 2, 2, 2), fine])
    columns = [(1 + (1 + 1 + 3) / 3) / 2, ((1 + 3 + 3) / 3 + 3) / 2]
    torch.testing.assert_close(patches[0, 2], torch.tensor([columns, columns]))


def test_standardized_maps_count_alike() -> None:
    patches = torch.cat([100 * normal(500, 4) + 7, 0.01 * normal(500, 30, seed=1)], 1)
    mean, scale = contrast.patch_statistics(patches, (4, 30))
    standard = (patches - mean) / scale
    for part in standard.split([4, 30], 1):
        assert part.mean(0).abs().max() < 1e-4
        assert float(part.var(0).sum()) == pytest.approx(1, rel=1e-4)


def test_a_map_that_never_changes_can_be_standardized() -> None:
    mean, scale = contrast.patch_statistics(torch.ones(5, 3), (3,))
    assert ((torch.ones(5, 3) - mean) / scale == 0).all()


@pytest.mark.parametrize("neighbors", [1, 3, 50])
def test_distance_is_that_to_the_nearest(neighbors: int) -> None:
    patches, bank = normal(40, 6), normal(20, 6, seed=1)
    found = contrast.nearest_distance(patches, bank, neighbors)
    for patch, distance in zip(patches, found, strict=True):
        nearest = sorted(float((patch - other).norm()) for other in bank)[:neighbors]
        assert float(distance) == pytest.approx(sum(nearest) / len(nearest), abs=1e-4)


@pytest.mark.parametrize("size", [1, 7, 95, 96, 97, 103, 1000, 1601])
@pytest.mark.parametrize("neighbors", [1, 3, 5])
def test_no_nearest_patch_is_missed_in_a_bank_of_any_size(size: int, neighbors: int) -> None:
    """Byte for byte what sorting all distances gives, for equal ones and clusters too."""
    patches, bank = normal(70, 6), normal(size, 6, seed=1)
    bank[size // 2 :] = bank[: size - size // 2].clone()  # every distance twice
    order = torch.arange(size) if neighbors == 1 else bank[:, 0].argsort()
    bank = bank[order]
    squares = torch.addmm((bank * bank).sum(1), patches, bank.T, alpha=-2)
    nearest = squares.sort(1).values[:, :neighbors] + (patches * patches).sum(1, keepdim=True)
    expected = nearest.clamp(min=0).sqrt().mean(1)
    assert torch.equal(contrast.nearest_distance(patches, bank, neighbors), expected)


def test_rows_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    patches, bank = normal(300, 6), normal(50, 6, seed=1)
    whole = contrast.nearest_distance(patches, bank)
    monkeypatch.setattr(contrast, "_ENTRIES", 50 * 64)
    torch.testing.assert_close(contrast.nearest_distance(patches, bank), whole)
    assert contrast.nearest_distance(patches[:0], bank).shape == (0,)


def test_a_patch_of_the_bank_has_no_distance() -> None:
    bank = normal(30, 8)
    assert contrast.nearest_distance(bank, bank, 1).max() < 2e-3


def test_a_coreset_leaves_no_corner_out() -> None:
    """A thousand patches in one place and one in each of four others: each place has its patch."""
    crowd = 0.01 * normal(1000, 4)
    corners = 10 * torch.eye(4)
    chosen = contrast.coreset(torch.cat([crowd, corners]), 5, Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == 5
    assert {1000, 1001, 1002, 1003} < set(chosen.tolist())
    assert contrast.coreset(corners, 9, Generator()).tolist() == [0, 1, 2, 3]


def test_zero_is_the_median_and_one_the_quantile() -> None:
    scores = torch.arange(101.0)[torch.randperm(101, generator=Generator().manual_seed(0))]
    assert contrast.calibration([scores], 0.9) == (50, 90)
    made = contrast.calibrate(torch.tensor([20.0, 50, 70, 90, 130]), 50, 90)
    assert made.tolist() == [0, 0, 0.5, 1, 2]


def test_the_image_in_the_middle_sets_the_scale() -> None:
    images = [torch.arange(101.0) + shift for shift in (0, 1, 2, 3, 900)]
    assert contrast.calibration(images, 0.9) == (52, 92)


def test_scores_that_are_all_the_same_have_a_scale() -> None:
    zero, one = contrast.calibration([torch.full((10,), 4.0)])
    assert zero < one
