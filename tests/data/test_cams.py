import numpy as np
import pytest

from affinitynet.data.cams import load_cams, save_cams
from affinitynet.errors import UserError

ANEW = "make all CAMs again with --redo compute_cams"


def some_maps(*shape):
    return np.random.default_rng(0).random(shape, np.float32) ** 3


def rewrite(path, **changes):
    with np.load(path) as arrays:
        content = dict(arrays)
    content.update(changes)
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


def test_what_is_written_is_read_again(tmp_path):
    maps = some_maps(2, 37, 50)
    maps[1] *= 4  # a calibrated map
    save_cams(tmp_path / "deep" / "a.npz", [3, 19], maps)
    classes, cams = load_cams(tmp_path / "deep" / "a.npz", classes=20, size=(37, 50))
    assert (classes.dtype, cams.dtype) == (np.int64, np.float32)
    assert classes.tolist() == [3, 19]
    scale = maps.max((1, 2), keepdims=True)
    np.testing.assert_array_equal(cams.max((1, 2), keepdims=True), scale)
    # A code is off by half at most, so the root of a value by 1 / 510.
    assert np.abs(np.sqrt(cams / scale) - np.sqrt(maps / scale)).max() <= 0.5 / 255 + 1e-6


def test_backgrounds_of_large_exponents_survive(tmp_path):
    # Equal steps, round(255 m) / 255, move these by up to 0.44.
    maps = np.linspace(0, 1, 100_000, dtype=np.float32).reshape(1, 100, 1000)
    save_cams(tmp_path / "a.npz", [0], maps)
    _, cams = load_cams(tmp_path / "a.npz")
    for alpha in (4, 32, 300):
        assert np.abs((1 - cams) ** alpha - (1 - maps) ** alpha).max() < 0.03


def test_zeros_stay_zeros(tmp_path):
    maps = some_maps(2, 5, 7)
    maps[0] = 0
    maps[1, 2] = 0
    save_cams(tmp_path / "a.npz", (0, 1), maps)
    _, cams = load_cams(tmp_path / "a.npz")
    assert (cams[maps == 0] == 0).all()
    assert (cams[1, 3:] > 0).any()


def test_an_image_without_tags_has_no_maps(tmp_path):
    save_cams(tmp_path / "a.npz", (), np.zeros((0, 5, 7), np.float32))
    classes, cams = load_cams(tmp_path / "a.npz", classes=3, size=(5, 7))
    assert (classes.shape, cams.shape) == ((0,), (0, 5, 7))


def test_same_maps_same_bytes_and_once_more_too(tmp_path, monkeypatch):
    save_cams(tmp_path / "a.npz", [3], some_maps(1, 9, 11))
    monkeypatch.setattr("time.time", lambda: 1e9)
    save_cams(tmp_path / "b.npz", [3], some_maps(1, 9, 11).astype(np.float64))
    save_cams(tmp_path / "c.npz", *load_cams(tmp_path / "a.npz"))
    assert len({(tmp_path / name).read_bytes() for name in ("a.npz", "b.npz", "c.npz")}) == 1


def test_numpy_reads_it_by_the_documented_formula(tmp_path):
    save_cams(tmp_path / "a.npz", [3], some_maps(1, 9, 11))
    _, cams = load_cams(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as arrays:
        assert arrays["cams"].dtype == np.uint8
        value = arrays["scale"][:, None, None] * (arrays["cams"] / 255) ** 2
    np.testing.assert_allclose(cams, value, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1e-6])
def test_bad_values_are_not_written(tmp_path, bad):
    maps = some_maps(1, 5, 7)
    maps[0, 1, 2] = bad
    with pytest.raises(ValueError, match="finite and at least 0"):
        save_cams(tmp_path / "a.npz", [0], maps)
    assert not list(tmp_path.iterdir())


def test_bad_shapes_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="K = 2"):
        save_cams(tmp_path / "a.npz", [0, 1], some_maps(1, 5, 7))
    with pytest.raises(ValueError, match="K = 5"):
        save_cams(tmp_path / "a.npz", range(5), some_maps(5, 7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": np.array([2, 20])}, "'classes' holds 20, which is none of the classes"),
        ({"classes": np.array([-1, 2])}, "'classes' holds -1"),
        ({"classes": np.array([3, 2])}, "'classes' is not sorted"),
        ({"classes": np.array([2, 2])}, "'classes' is not sorted, or holds a class twice"),
        ({"classes": np.array([2.0, 3])}, "'classes' is float64, not int64"),
        ({"classes": np.array(2)}, r"'classes' has shape \(\), not \(any\)"),
        ({"classes": np.array([2])}, r"'scale' has shape \(2,\), not \(1\)"),
        ({"classes": None}, "'classes' is missing"),
        ({"scale": None}, "'scale' is missing"),  # version 0.1's files
        ({"scale": np.array([1, np.nan], np.float32)}, "'scale' holds values that are not finite"),
        ({"scale": np.array([1, -1], np.float32)}, "'scale' holds values .* below 0"),
        ({"scale": np.ones(2)}, "'scale' is float64"),
        ({"cams": None}, "'cams' is missing"),
        ({"cams": np.zeros((2, 5, 7), np.float16)}, "'cams' is float16, not uint8"),
        ({"cams": np.zeros((3, 5, 7), np.uint8)}, r"'cams' has shape \(3, 5, 7\)"),
        ({"cams": np.zeros((2, 5, 8), np.uint8)}, r"'cams' has shape \(2, 5, 8\), not \(2, 5, 7\)"),
        ({"cams": np.array([[["x"]]], object)}, "'cams' is object, not uint8"),
    ],
)
def test_each_entry_is_checked(tmp_path, changes, message):
    path = tmp_path / "a.npz"
    save_cams(path, [3, 19], some_maps(2, 5, 7))
    rewrite(path, **changes)
    with pytest.raises(UserError, match=rf"a\.npz: entry {message}.*; {ANEW}"):
        load_cams(path, classes=20, size=(5, 7))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"a\.npz: no such file; {ANEW}"):
        load_cams(tmp_path / "a.npz")


def test_damage_anywhere_is_a_users_error_or_changes_nothing(tmp_path):
    path = tmp_path / "a.npz"
    save_cams(path, [3], some_maps(1, 9, 11))
    whole = path.read_bytes()
    _, cams = load_cams(path)
    refused = 0
    for place in range(len(whole)):
        for flip in (0x01, 0x80):
            path.write_bytes(
                whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :],
            )
            try:
                classes, found = load_cams(path, classes=20, size=(9, 11))
            except UserError as error:
                assert ANEW in str(error)  # noqa: PT017
                refused += 1
            else:  # what nobody reads, such as an entry's date
                assert classes.tolist() == [3]
                np.testing.assert_array_equal(found, cams)
    assert refused > len(whole)


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.99])
def test_a_cut_file_is_refused(tmp_path, share):
    path = tmp_path / "a.npz"
    save_cams(path, [3], some_maps(1, 9, 11))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(UserError, match=rf"a\.npz: can't be read.*{ANEW}"):
        load_cams(path)
