import numpy as np
import pytest

from affinitynet.data.grids import (
    half_disc,
    load_affinity,
    load_scores,
    radius_of,
    save_affinity,
    save_scores,
)
from affinitynet.errors import UserError
from affinitynet.ops.affinity import displacements

rng = np.random.default_rng(0)


def test_half_discs_are_those_of_the_walk():
    for radius in range(2, 21):
        assert half_disc(radius) == len(displacements(radius))
        assert radius_of(len(displacements(radius))) == radius
    assert half_disc(5) == 34
    assert radius_of(35) is None
    assert radius_of(0) is None


def test_scores_are_read_again(tmp_path):
    scores = rng.random((3, 5, 7), np.float32)
    save_scores(tmp_path / "a.npz", [1, 4], scores)
    classes, found = load_scores(tmp_path / "a.npz", classes=5, size=(5, 7))
    assert classes.tolist() == [1, 4]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, scores.astype(np.float16))


def test_scores_of_background_alone(tmp_path):
    save_scores(tmp_path / "a.npz", [], np.ones((1, 5, 7), np.float32))
    classes, found = load_scores(tmp_path / "a.npz")
    assert (len(classes), found.shape) == (0, (1, 5, 7))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -0.1, 1e5])
def test_bad_scores_are_not_written(tmp_path, bad):
    scores = np.ones((2, 5, 7), np.float32)
    scores[1, 2, 3] = bad
    with pytest.raises(ValueError, match="at least 0"):
        save_scores(tmp_path / "a.npz", [0], scores)
    with pytest.raises(ValueError, match="K = 2"):
        save_scores(tmp_path / "a.npz", [0, 1], np.ones((2, 5, 7)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.ones((2, 5, 7), np.float16), r"has shape \(2, 5, 7\), not \(3, 5, 7\)"),
        (np.ones((3, 5, 8), np.float16), r"has shape \(3, 5, 8\)"),
        (np.ones((3, 5, 7), np.float32), "is float32, not float16"),
        (np.full((3, 5, 7), np.nan, np.float16), "not finite"),
        (np.full((3, 5, 7), -1, np.float16), "below 0"),
    ],
)
def test_scores_are_checked(tmp_path, scores, message):
    np.savez(tmp_path / "a.npz", classes=np.array([0, 1]), scores=scores)
    with pytest.raises(UserError, match=rf"a\.npz: entry 'scores' .*{message}.*--redo propagate"):
        load_scores(tmp_path / "a.npz", size=(5, 7))


def test_affinities_are_read_again(tmp_path):
    affinity = rng.random((34, 5, 7), np.float32)
    save_affinity(tmp_path / "a.npz", affinity)
    found, radius = load_affinity(tmp_path / "a.npz", size=(5, 7))
    assert (radius, found.dtype) == (5, np.float32)
    np.testing.assert_array_equal(found, affinity.astype(np.float16))


@pytest.mark.parametrize("bad", [np.nan, -0.1, 1.1])
def test_bad_affinities_are_neither_written_nor_read(tmp_path, bad):
    affinity = np.full((34, 5, 7), bad, np.float16)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        save_affinity(tmp_path / "a.npz", affinity)
    np.savez(tmp_path / "a.npz", affinity=affinity)
    with pytest.raises(UserError, match=r"'affinity' holds values outside of \[0, 1\]"):
        load_affinity(tmp_path / "a.npz")


def test_affinities_of_no_radius_are_neither_written_nor_read(tmp_path):
    affinity = np.ones((33, 5, 7), np.float16)
    with pytest.raises(ValueError, match="half disc"):
        save_affinity(tmp_path / "a.npz", affinity)
    np.savez(tmp_path / "a.npz", affinity=affinity)
    with pytest.raises(UserError, match="'affinity' has 33 maps, as no whole radius has"):
        load_affinity(tmp_path / "a.npz")
