"""Trust: how the agreement of the stages becomes a score, and the table of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affinitynet.data import Manifest, Sample, write_labels
from affinitynet.data.cams import save_cams
from affinitynet.data.grids import save_scores
from affinitynet.data.trust import (
    TRUST,
    agreement,
    agreement_with_maps,
    combine,
    least_trusted,
    map_contrast,
    measure_trust,
    rank_masks,
    read_trust,
    steps_of,
    walk_margin,
)
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import find_stage, stages_of
from affinitynet.run_folder.tables import write_table

SIZE = (6, 8)


def square(columns: int, label: int = 1) -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    labels[:, :columns] = label
    return labels


def test_agreement_is_the_iou_of_the_tags() -> None:
    assert agreement(square(4), square(2), [0]) == 0.5
    # The second tag is in neither map: both have missed it.
    assert agreement(square(4), square(2), [0, 1]) == 0.25
    assert agreement(square(4), square(4, label=2), [0, 1]) == 0
    assert agreement(square(4), square(4), []) == 1


def test_maps_agree_by_their_values() -> None:
    cams = np.zeros((1, *SIZE), np.float32)
    cams[0, :, :4] = 0.5
    # Inside: 4 columns of min(0.5, 1); the larger of both is 1 there and 0 elsewhere.
    assert agreement_with_maps([0], cams, square(4), [0]) == pytest.approx(0.5)
    assert agreement_with_maps([0], cams, square(2), [0]) == pytest.approx(1 / (2 + 1))
    assert agreement_with_maps([0], cams, square(0), [0]) == 0
    assert agreement_with_maps([0], cams, square(4), [1]) == 0  # a tag without a map


def test_a_map_is_larger_inside_of_a_good_mask() -> None:
    cams = np.zeros((2, *SIZE), np.float32)
    cams[0, :, :2], cams[1, :, 2:4] = 0.8, 0.4
    assert map_contrast(cams, square(4) > 0) == pytest.approx(0.6)
    assert map_contrast(cams, square(2) > 0) == pytest.approx(0.8 - 0.4 * 2 / 6)
    assert map_contrast(cams, square(4) == 0) == 0  # smaller inside
    assert map_contrast(cams, square(0) > 0) == map_contrast(cams[:0], square(4) > 0) == 0


def test_the_margin_is_that_of_the_cells_a_class_wins() -> None:
    scores = np.array([[[0.9, 0.25, 0.0]], [[0.1, 0.75, 0.5]], [[0.0, 0.0, 0.5]]], np.float32)
    assert walk_margin(scores) == pytest.approx((0.5 + 0) / 2)
    assert walk_margin(scores[:1]) == 0


def test_a_tag_that_is_not_shown_counts_whatever_agrees() -> None:
    assert combine([0.5, 0.7], 1) == pytest.approx(0.6)
    assert combine([0.5, 0.7], 0.5) == pytest.approx(0.3)
    assert combine([1, 1], 0) == 0
    assert combine([], 1) == 1


@pytest.fixture
def run(tmp_path: Path) -> tuple[Recipe, Manifest]:
    """Four images: of the first the stages agree, of the third the walk has lost the object."""
    samples = tuple(Sample(f"i{k}", tmp_path / f"{k}.png", (0,) if k < 3 else ()) for k in range(4))
    manifest = Manifest(tmp_path, ("cat",), {"train": samples})
    recipe = Recipe(out=tmp_path / "run")
    for number, sample in enumerate(samples):
        cams = np.zeros((len(sample.tags), *SIZE), np.float32)
        cams[:, :, :4] = 1
        save_cams(recipe.out / "cams" / f"{sample.id}.npz", sample.tags, cams)
        columns = (4, 2, 0, 0)[number]
        for folder in ("walk", "pseudo"):
            path = recipe.out / folder / f"{sample.id}.png"
            write_labels(path, square(columns), manifest.palette)
        scores = np.full((len(sample.tags) + 1, 1, 1), 1.0)
        scores[1:] = 3  # a margin of a half
        save_scores(recipe.out / "scores" / f"{sample.id}.npz", sample.tags, scores)
    return recipe, manifest


def test_the_least_trusted_come_first(run: tuple[Recipe, Manifest]) -> None:
    table = measure_trust(*run)
    assert table["image"] == ["i2", "i1", "i0", "i3"]
    # Of the second image 2 of 4 columns are left: outside, the map is 1 in 2 of 6.
    second = (0.5 + 1 + (1 - 2 / 6) + 0.5) / 4
    assert table["trust"] == [0, pytest.approx(second, abs=1e-4), 3.5 / 4, 1]
    assert table["tags_shown"] == [0, 1, 1, None]
    assert table["cams_walk"] == [0, 0.5, 1, None]
    assert table["walk_pseudo"] == [0, 1, 1, None]


def test_the_file_speaks_of_finished_masks_only(run: tuple[Recipe, Manifest]) -> None:
    recipe, manifest = run
    stages = stages_of(recipe)
    rank_masks(recipe, manifest, find_stage("compute_cams", stages))
    assert not (recipe.out / TRUST).exists()
    rank_masks(recipe, manifest, find_stage("propagate", stages))
    assert read_trust(recipe) == {}  # the stage has not written its record yet
    (recipe.out / "pseudo" / "stage.json").write_text("{}")
    assert read_trust(recipe) == measure_trust(recipe, manifest)
    (recipe.out / TRUST).write_text("image,trust\na,b\n")
    assert read_trust(recipe) == {}


def test_a_file_of_other_masks_is_written_anew(run: tuple[Recipe, Manifest]) -> None:
    recipe, manifest = run
    (recipe.out / "pseudo" / "stage.json").write_text("{}")
    propagate = find_stage("propagate", stages_of(recipe))
    rank_masks(recipe, manifest, propagate, missing=True)
    own = read_trust(recipe)
    assert own == measure_trust(recipe, manifest)

    def kept(table: dict[str, list[Any]]) -> bool:
        write_table(recipe.out / TRUST, table)
        rank_masks(recipe, manifest, propagate, missing=True)
        assert list(read_trust(recipe)) == list(own)
        return read_trust(recipe) == table

    assert kept(own | {"trust": [0.5] * 4})
    # With `relabel.enabled` it ranked final masks that the recipe makes no longer.
    before = {name: own[name] for name in ("image", "trust", "cams_walk", "walk_pseudo")}
    assert not kept(before | {"pseudo_masks": [1.0] * 4} | own)
    files = recipe.model_copy(
        update={"pseudo": recipe.pseudo.model_copy(update={"source": "files:x"})}
    )
    rank_masks(files, manifest, find_stage("propagate", stages_of(files)), missing=True)
    assert not (recipe.out / TRUST).exists()  # nothing could agree


def test_a_recipe_tells_the_steps(tmp_path: Path) -> None:
    def names(**settings: object) -> list[str]:
        found = Recipe(out=tmp_path).model_dump() | settings
        return [f"{a.folder}-{b.folder}" for a, b in steps_of(Recipe.model_validate(found))]

    assert names() == ["cams-walk", "walk-pseudo"]
    assert names(relabel={"enabled": True})[-1] == "pseudo-masks"
    assert names(pseudo={"source": "files:a"}) == []


def test_what_is_said_of_it(run: tuple[Recipe, Manifest]) -> None:
    lost, least = least_trusted(measure_trust(*run))
    assert lost == "trust: 0 for 1 of 3 masks: they show none of their tags"
    assert least.startswith("trust: least in i2 (0.00), i1 (0.67), i0 (0.88); all are in trust.csv")
    assert least_trusted({}) == []
