import numpy as np
import pytest

from affinitynet.data.sources import read_affinity_source
from affinitynet.errors import UserError

SIZE = (37, 50)
AFFINITY = np.random.default_rng(0).random((34, 5, 7), np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_affinities_are_read(tmp_path, dtype):
    np.savez(tmp_path / "a.npz", affinity=AFFINITY.astype(dtype))
    found, radius, stride = read_affinity_source(tmp_path / "a.npz", SIZE)
    assert (radius, stride, found.dtype) == (5, 8, np.float32)
    np.testing.assert_array_equal(found, AFFINITY.astype(dtype).astype(np.float32))


def test_other_strides_and_radii(tmp_path):
    np.savez(tmp_path / "a.npz", affinity=np.ones((4, 10, 13)))
    assert read_affinity_source(tmp_path / "a.npz", SIZE)[1:] == (2, 4)
    np.savez(tmp_path / "a.npz", affinity=np.ones((4, 2, 2)))
    assert read_affinity_source(tmp_path / "a.npz", (10, 10), stride=6)[1:] == (2, 6)


def test_rounding_above_one_is_cut(tmp_path):
    np.savez(tmp_path / "a.npz", affinity=np.full((34, 5, 7), 1 + 5e-7))
    assert read_affinity_source(tmp_path / "a.npz", SIZE).affinity.max() == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"affinities": AFFINITY}, "'affinity' is missing"),
        ({"affinity": AFFINITY[0]}, r"is float32 of shape \(5, 7\), not \(P, h, w\)"),
        ({"affinity": np.ones((34, 5, 7), int)}, "is int64 of shape"),
        ({"affinity": np.array(["x"], object)}, "is object of shape"),
        ({"affinity": AFFINITY[1:]}, r"has P = 33, which no half disc has \(radius 5 has 34\)"),
        ({"affinity": AFFINITY[:, 1:]}, "is 4 x 7, no grid of an image of 37 x 50"),
        ({"affinity": AFFINITY * 2}, r"outside of \[0, 1\]"),
        ({"affinity": -AFFINITY}, r"outside of \[0, 1\]"),
        ({"affinity": AFFINITY * np.nan}, r"outside of \[0, 1\]"),
    ],
)
def test_mistakes_name_file_and_entry(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(UserError, match=rf"a\.npz: entry 'affinity' .*{message}|{message}"):
        read_affinity_source(tmp_path / "a.npz", SIZE)
