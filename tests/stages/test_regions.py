"""Regions of no class vote on confident areas and pseudo masks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import affinitynet as an
from affinitynet.data import read_labels
from affinitynet.data.sources.regions import read_regions
from affinitynet.errors import UserError
from affinitynet.ops.regions import vote_regions

Begin = Callable[[an.Run, Path, str], None]


def slow_vote(labels: Any, regions: Any, neutral: int) -> Any:
    """Region by region, class by class."""
    found = labels.copy()
    for region in set(regions.ravel().tolist()) - {0}:
        inside = regions == region
        for label in set(labels[inside].tolist()) - {0, neutral}:
            if 2 * (labels[inside] == label).sum() > inside.sum():
                found[inside] = label
    return found


def test_votes_are_those_of_the_slow_twin() -> None:
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, 2, 255], (40, 50), p=[0.2, 0.5, 0.2, 0.1])
    regions = np.kron(random.choice([0, 3, 700, 70_000, 9], (8, 10)), np.ones((5, 5), int))
    regions[20:] = np.arange(regions[20:].size).reshape(20, 50) // 7 + 1
    found = vote_regions(torch.from_numpy(labels), torch.from_numpy(regions), 255)
    expected = slow_vote(labels, regions, 255)
    assert (expected != labels).any()
    np.testing.assert_array_equal(found.numpy(), expected)


def test_half_is_not_more_than_half() -> None:
    labels = torch.tensor([[1, 1, 0, 255], [2, 2, 2, 0]])
    regions = torch.tensor([[1, 1, 1, 1], [2, 2, 2, 2]])
    expected = torch.tensor([[1, 1, 0, 255], [2, 2, 2, 2]])
    assert torch.equal(vote_regions(labels, regions), expected)


def test_the_background_takes_no_region_and_no_region_is_none() -> None:
    labels = torch.tensor([[0, 0, 0, 1], [1, 1, 1, 0]])
    regions = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    assert torch.equal(vote_regions(labels, regions), labels)


@pytest.mark.parametrize("form", ["png", "npy", "npz"])
def test_each_form_is_read_and_what_is_wrong_refused(form: str, tmp_path: Path) -> None:
    regions = np.array([[0, 1, 40_000], [2, 2, 300]])

    def write(values: Any) -> Path:
        file = tmp_path / f"a.{form}"
        if form == "png":
            Image.fromarray(values.astype(np.uint16)).save(file)
        elif form == "npy":
            np.save(file, values)
        else:
            np.savez(file, values)
        return file

    np.testing.assert_array_equal(read_regions(write(regions), (2, 3)), regions)
    with pytest.raises(UserError, match="is 2 x 3, the image 3 x 2"):
        read_regions(write(regions), (3, 2))
    if form != "png":
        with pytest.raises(UserError, match="whole numbers"):
            read_regions(write(regions.astype(float)), (2, 3))
        with pytest.raises(UserError, match="holds the number -1"):
            read_regions(write(regions - 1), (2, 3))


def test_both_stages_take_the_votes(
    toy: Path, tiny_recipe: Path, tmp_path: Path, finished: an.Run, begin: Begin
) -> None:
    out = tmp_path / "plain"
    begin(finished, out, "train_segmenter")
    plain = an.Run(an.Recipe.load(tiny_recipe, data=toy, out=out))
    folder = tmp_path / "regions"
    folder.mkdir()
    blocks = np.kron(np.arange(1, 65).reshape(8, 8), np.ones((8, 8), np.int64))
    for sample in plain.manifest.samples:
        np.save(folder / f"{sample.id}.npy", blocks)
    source = f"files:{folder}"
    settings = {"confident.regions": source, "pseudo.regions": source}
    # Starting from the finished run: what is behind the setting is out of date, what is before not.
    recipe = an.Recipe.load(tiny_recipe, data=toy, out=out, **settings)
    states = {status.name: status.state for status in an.Run(recipe).status()}
    assert (states["compute_cams"], states["mine_confident"]) == ("done", "stale")
    an.run(recipe, until="mine_confident", redo="mine_confident")
    sample = plain.manifest.split("train")[0]
    voted = read_labels(recipe.out / "confident" / f"{sample.id}.png")
    again = vote_regions(torch.from_numpy(voted.astype(int)), torch.from_numpy(blocks)).numpy()
    np.testing.assert_array_equal(again, voted)  # a vote upon a vote changes nothing
    an.run(recipe, until="propagate")
    mask = read_labels(recipe.out / "pseudo" / f"{sample.id}.png")
    np.testing.assert_array_equal(
        vote_regions(torch.from_numpy(mask.astype(int)), torch.from_numpy(blocks)).numpy(), mask
    )
    # Other regions are another ingredient.
    np.save(folder / f"{sample.id}.npy", blocks + 1)
    states = {status.name: status.state for status in an.Run(recipe).status(verify=True)}
    assert (states["compute_cams"], states["mine_confident"]) == ("done", "stale")
    (folder / f"{sample.id}.npy").unlink()
    with pytest.raises(UserError, match=f"holds no regions of image {sample.id}"):
        an.run(recipe, until="mine_confident", redo="mine_confident")
    with pytest.raises(UserError, match=r"pseudo\.regions = 'files:nowhere': no such folder"):
        an.run(
            an.Recipe.load(
                tiny_recipe, data=toy, out=tmp_path / "new", **{"pseudo.regions": "files:nowhere"}
            )
        )
