"""Maps of other programs, in files written as those programs write them."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from affinitynet.data.cams import load_cams, save_cams
from affinitynet.data.sources import read_cams
from affinitynet.data.sources.enlarge import enlarge, grid_stride
from affinitynet.data.voc import VOC_CLASSES
from affinitynet.errors import UserError

SIZE = (37, 50)
NAMES = ("cat", "dog", "horse", "cow")
TAGS = (1, 3)
rng = np.random.default_rng(0)
MAPS = rng.random((2, *SIZE), np.float32)


def read(path, names=NAMES, classes=NAMES, tags=TAGS, size=SIZE):
    return read_cams(path, names, classes, tags, size)


def psa(path, content):
    np.save(path / "a.npy", content)
    return path / "a.npy"


def check(found, maps=MAPS, classes=TAGS):
    assert (found.classes.dtype, found.cams.dtype) == (np.int64, np.float32)
    assert found.classes.tolist() == list(classes)
    np.testing.assert_array_equal(found.cams, maps)


def test_psas_dictionary(tmp_path):
    check(read(psa(tmp_path, {3: MAPS[1], 1: MAPS[0]})))


def test_psas_dictionary_of_an_image_of_background(tmp_path):
    found = read(psa(tmp_path, {}), tags=())
    assert found.cams.shape == (0, *SIZE)
    assert found.classes.dtype == np.int64


@pytest.mark.parametrize("number", [torch.from_numpy, np.asarray])
def test_irns_dictionary(tmp_path, number):
    small = rng.random((2, 10, 13), np.float32)
    content = {"keys": number(np.array([1, 3])), "cam": number(small), "high_res": MAPS}
    np.save(tmp_path / "a.npy", content)
    check(read(tmp_path / "a.npy"))
    del content["high_res"]
    np.save(tmp_path / "a.npy", content)
    check(read(tmp_path / "a.npy"), enlarge(small, 4, SIZE))


def test_npz_of_keys_and_of_names(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, keys=np.array([3, 1]), cams=MAPS[::-1].astype(np.float64))
    check(read(path))
    np.savez_compressed(path, dog=MAPS[0], cow=np.asfortranarray(MAPS[1]))
    check(read(path))


def test_folder_of_pngs(tmp_path):
    codes = (MAPS[0] * 255).astype(np.uint8), (MAPS[1] * 65535).astype(np.uint16)
    for name, code in zip(("dog", "3"), codes, strict=True):  # a name, and a number
        Image.fromarray(code).save(tmp_path / f"{name}.png")
    (tmp_path / "._dog.png").write_bytes(b"macOS writes these")
    found = read(tmp_path)
    assert found.classes.tolist() == [1, 3]
    np.testing.assert_array_equal(found.cams[0], codes[0] / np.float32(255))
    np.testing.assert_array_equal(found.cams[1], codes[1] / np.float32(65535))


def test_numbers_of_voc_in_a_part_of_voc(tmp_path):
    path = psa(tmp_path, {7: MAPS[0], 14: MAPS[1]})  # cat and person
    found = read(path, VOC_CLASSES, ("bird", "cat"), (1,))
    check(found, MAPS[:1], (1,))
    assert found.ignored == ("person",)


def test_maps_of_another_run(tmp_path):
    """Its numbers are those of the data set's classes, whatever the order of other files'."""
    save_cams(tmp_path / "a.npz", TAGS, MAPS)
    _, kept = load_cams(tmp_path / "a.npz")
    check(read(tmp_path / "a.npz", names=VOC_CLASSES), kept)
    with pytest.raises(UserError, match="a map of cow, which the image is not tagged with"):
        read(tmp_path / "a.npz", tags=(1,))
    with pytest.raises(UserError, match="holds 3, which is none of the classes"):
        read(tmp_path / "a.npz", classes=NAMES[:3])
    save_cams(tmp_path / "a.npz", TAGS, 2 * MAPS)
    with pytest.raises(UserError, match="values above 1"):
        read(tmp_path / "a.npz")


def test_rounding_may_pass_one(tmp_path):
    full = np.ones(SIZE, np.float32)
    check(read(psa(tmp_path, {1: full * 1.0005, 3: MAPS[1]})), np.stack([full, MAPS[1]]))


def test_an_empty_map_of_no_tag_is_passed_over(tmp_path):
    check(read(psa(tmp_path, {0: np.zeros(SIZE), 1: MAPS[0], 3: MAPS[1]})))


def changed(index, value):
    maps = MAPS.copy()
    maps[index, 3, 4] = value
    return maps


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({1: MAPS[0]}, "holds no map of the image's tag cow"),
        ({0: MAPS[0], 1: MAPS[0], 3: MAPS[1]}, "a map of cat, which the image is not tagged with"),
        ({4: MAPS[0]}, "entry 4 is no class number.* to 3; set cams.classes"),
        ({-1: MAPS[0]}, "entry -1 is no class number"),
        ({2.5: MAPS[0]}, "neither a class number nor a name"),
        ({np.float32("inf"): MAPS[0]}, "neither a class number nor a name"),
        ({1 << 90: MAPS[0]}, "neither a class number nor a name"),
        ({True: MAPS[0]}, "neither a class number nor a name"),
        ({"dgo": MAPS[0]}, "entry 'dgo' is none of the classes; did you mean dog?"),
        ({"9" * 5000: MAPS[0]}, "is none of the classes"),
        ({1: MAPS[0], "dog": MAPS[0]}, "holds two maps of dog"),
        ({1: [1.0, 2.0]}, "entry 1 is no array"),
        ({1: changed(0, np.nan)[0]}, "entry 1 holds values that are not finite"),
        ({1: changed(0, np.inf)[0]}, "entry 1 holds values that are not finite"),
        ({1: np.full(SIZE, 1e300)}, "entry 1 holds values that are not finite"),
        ({1: changed(0, -0.25)[0]}, "entry 1 holds values below 0, -0.25; cut"),
        ({1: changed(0, 5.0)[0]}, "entry 1 holds values above 1, 5; divide"),
        ({1: changed(0, 3e38)[0]}, r"entry 1 holds values above 1, 3e\+38; divide"),
        ({1: MAPS}, r"entry 1 is float32 of shape \(2, 37, 50\)"),
        ({1: MAPS[0].astype(np.uint8)}, "entry 1 is uint8"),
        ({1: MAPS[0].T}, "entry 1 is 50 x 37, the image 37 x 50"),
        ({1: MAPS[0, :, 1:]}, "entry 1 is 37 x 49, the image 37 x 50"),
        ({"keys": np.array([1, 3])}, "holds keys, but none of high_res, cams, cam"),
        ({"keys": np.array([1.0, 3]), "cam": MAPS}, "keys .* of float64 .* do not fit"),
        ({"keys": np.array([1]), "cam": MAPS}, "do not fit"),
        ({"keys": np.array([1, 3]), "cam": MAPS[0]}, "do not fit"),
        ({"keys": [1, 3], "cam": MAPS}, "entry 'keys' is no array"),
        ({"keys": np.array([3, 3]), "cam": MAPS}, "holds two maps of cow"),
        ({"keys": np.array([1, 9]), "cam": MAPS}, "entry 9 is no class number"),
    ],
)
def test_each_mistake_names_file_and_entry(tmp_path, content, message):
    with pytest.raises(UserError, match=rf"a\.npy: .*{message}"):
        read(psa(tmp_path, content))


def test_npz_mistakes(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, dog=MAPS[0], sheep=MAPS[1])
    with pytest.raises(UserError, match=r"a\.npz: entry 'sheep' is none of the classes"):
        read(path)
    np.savez(path, dog=np.array([{}], object))
    with pytest.raises(UserError, match=r"a\.npz: entry 'dog'.*Python objects"):
        read(path)
    np.savez_compressed(path, dog=np.zeros((4000, 4000), np.float32))
    with pytest.raises(UserError, match=r"a\.npz: entry 'dog' is larger than maps of the image"):
        read(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"a\.npz: can't be read"):
        read(path)


def test_png_mistakes(tmp_path):
    folder = tmp_path / "maps" / "a"
    folder.mkdir(parents=True)
    Image.new("P", SIZE[::-1]).save(folder / "dog.png")
    with pytest.raises(UserError, match=r"dog\.png: is a PNG of mode P; .*8 or 16 bits of gray"):
        read(folder)
    Image.new("L", (50, 36)).save(folder / "dog.png")
    with pytest.raises(UserError, match=r"a: entry 'dog' is 36 x 50, the image 37 x 50"):
        read(folder)
    (folder / "dog.png").rename(tmp_path / "dog.png")
    (folder / "dog.png").symlink_to(tmp_path / "dog.png")
    with pytest.raises(UserError, match=r"leads out of .* through a symbolic link"):
        read(folder)


@pytest.mark.parametrize("stride", [2, 3, 4, 8, 16, 31, 32])
@pytest.mark.parametrize("size", [(37, 50), (64, 96), (375, 500), (33, 1)])
def test_enlarging_is_torchs(stride, size):
    grid = tuple(-(-n // stride) for n in size)
    maps = rng.random((3, *grid), np.float32)
    whole = [stride * n for n in grid]
    # In double precision: torch's float32 takes the place on the grid in float32 too, 1e-5 off.
    exact = torch.from_numpy(maps)[None].double()
    theirs = F.interpolate(exact, whole, mode="bilinear", align_corners=False)[0]
    found = enlarge(maps, stride, size)
    np.testing.assert_allclose(found, theirs[:, : size[0], : size[1]], atol=1e-6, rtol=0)
    assert found.dtype == np.float32


def test_strides():
    assert grid_stride((94, 125), (375, 500)) == 4
    assert grid_stride((47, 63), (375, 500)) == 8
    assert grid_stride((24, 32), (375, 500)) == 16
    assert grid_stride((54, 72), (375, 500)) == 7
    assert grid_stride((375, 500), (375, 500)) is None
    assert grid_stride((24, 33), (375, 500)) is None
    assert grid_stride((3, 3), (10, 10), first=5) == 4  # no 5 is there
    assert grid_stride((2, 2), (10, 10), first=5) == 5
    assert grid_stride((2, 2), (10, 10)) == 8


def test_maps_on_a_grid_are_enlarged(tmp_path):
    small = rng.random((2, 3, 4), np.float32)
    check(read(psa(tmp_path, {1: small[0], 3: small[1]})), enlarge(small, 16, SIZE))


def file_of(save, content) -> bytes:
    stream = io.BytesIO()
    save(stream, content) if save is np.save else save(stream, **content)
    return stream.getvalue()


SMALL = np.ones((2, 3, 4), np.float32)
FILES = (
    (".npy", file_of(np.save, {1: SMALL[0], 3: SMALL[1]})),
    (".npy", file_of(np.save, {"keys": np.array([1, 3]), "cam": torch.from_numpy(SMALL)})),
    (".npz", file_of(np.savez, {"keys": np.array([1, 3]), "cams": SMALL})),
    (".npz", file_of(np.savez_compressed, {"dog": SMALL[0], "cow": SMALL[1]})),
)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(FILES),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(min_size=1, max_size=6))),
)
def test_mutated_files_are_users_errors_or_maps(tmp_path, file, edits):
    suffix, data = file
    changed = bytearray(data)
    for share, cut, put in edits:
        place = int(share * len(changed))
        changed[place : place + cut] = put
    path = tmp_path / f"a{suffix}"
    path.write_bytes(changed)
    try:
        found = read(path, size=(3, 4))
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert np.isfinite(found.cams).all()
        assert found.cams.shape == (2, 3, 4)
