"""Class activation maps that another program made, psa's, IRN's or your own, or another run.

    psa   <id>.npy: {class number: (H, W)}
    IRN   <id>.npy: {keys: (K,), cam: (K, ceil(H / 4), ceil(W / 4)), high_res: (K, H, W)}
    npz   <id>.npz: an array (H, W) a class, by its name; or keys (K,) and cams (K, H, W)
    PNG   <id>/<class>.png: 8 or 16 bits of gray for 0 to 1
    run   <id>.npz, `cams/` of another run of the same data set: as data/cams.py writes it

Class numbers count from 0, without background.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from affinitynet.data.cams import load_cams
from affinitynet.data.images import open_image
from affinitynet.data.names import spellings
from affinitynet.data.npz import open_npz
from affinitynet.data.sources.enlarge import Size, enlarge, grid_stride
from affinitynet.data.sources.find import check_inside
from affinitynet.data.truth import check_unturned
from affinitynet.data.unpickle import load_dictionary
from affinitynet.errors import UserError, did_you_mean

_ADVICE = "write it again"
_OF_A_RUN = {"classes", "cams", "scale"}
_STACKS = ("high_res", "cams", "cam")  # the best first: IRN's cam is high_res at stride 4
Array = npt.NDArray[Any]
_Key = str | int
_MOST = 10**9  # above it, no class number
_ROUNDING = 1e-3  # by which a map in float16 may pass 1


class SourceCams(NamedTuple):
    """One image's maps from a file.

    classes: (K,) int64, the image's tags.
    cams: (K, H, W) float32 in [0, 1].
    ignored: names in the file that the data set does not have.
    """

    classes: npt.NDArray[np.int64]
    cams: npt.NDArray[np.float32]
    ignored: tuple[str, ...]


def read_cams(
    path: Path, names: Sequence[str], classes: Sequence[str], tags: Sequence[int], size: Size
) -> SourceCams:
    """Read the maps of an image's tags from a file of another program.

    Maps on a grid of stride s, ceil(H / s) x ceil(W / s), are enlarged bilinearly.

    Args:
        path: a `.npy` or `.npz` file, or a folder of PNGs.
        names: the classes in the order of the file's numbers.
        classes: the data set's classes; a map of another of the `names` is left out.
        tags: the image's tags, indices of `classes`; each needs a map.
        size: (H, W) of the image.

    Raises:
        UserError: the file is damaged; a class, size or value is wrong; a tag has no map; or a map
            that is not all zero is of a class which the image is not tagged with.
    """
    found: dict[int, Array] = {}
    ignored = []
    # 8 bytes a pixel and class: nothing larger can be maps of this image.
    for key, values in _entries(path, 8 * max(len(names), 1) * size[0] * size[1], classes):
        name = _class_name(path, key, names, classes)
        if name not in classes:
            ignored.append(name)
            continue
        index = classes.index(name)
        if index in found:
            raise UserError(f"{path}: holds two maps of {name}; remove one")
        cam = _checked(path, key, values, size)
        if index not in tags and cam.any():
            raise UserError(
                f"{path}: holds a map of {name}, which the image is not tagged with; "
                "add the tag or remove the map"
            )
        found[index] = cam
    for tag in sorted(tags):
        if tag not in found:
            raise UserError(f"{path}: holds no map of the image's tag {classes[tag]}; add it")
    order = np.array(sorted(tags), np.int64)
    cams = [found[index] for index in order.tolist()]
    return SourceCams(
        order, np.stack(cams) if cams else np.zeros((0, *size), np.float32), tuple(ignored)
    )


def _entries(path: Path, limit: int, classes: Sequence[str]) -> list[tuple[_Key, Array]]:
    """Each class (its number or name) with its map, whatever the form; limit: bytes an array."""
    if path.is_dir():
        return [(file.stem, _read_png(file, path)) for file in sorted(path.glob("[!.]*.png"))]
    content = load_dictionary(path) if path.suffix == ".npy" else _read_npz(path, limit, classes)
    if "keys" not in content:
        return [(_number(path, key), _array(path, key, content[key])) for key in content]
    stack = next((name for name in _STACKS if name in content), None)
    if stack is None:
        raise UserError(f"{path}: holds keys, but none of {', '.join(_STACKS)}; add the maps")
    keys, maps = _array(path, "keys", content["keys"]), _array(path, stack, content[stack])
    if keys.ndim != 1 or keys.dtype.kind not in "iu" or maps.ndim != 3 or len(maps) != len(keys):
        raise UserError(
            f"{path}: keys {keys.shape} of {keys.dtype} and {stack} {maps.shape} do not fit; "
            "write K whole numbers and K maps (K, H, W)"
        )
    return list(zip(keys.tolist(), maps, strict=True))


def _read_npz(path: Path, limit: int, classes: Sequence[str]) -> dict[str, Array]:
    with open_npz(path, _ADVICE) as archive:
        for name in archive.names:
            # Before its memory is taken: a small file can hold a large array.
            if archive.header(name).bytes > limit:
                raise archive.error(name, "is larger than maps of the image can be")
        if set(archive.names) != _OF_A_RUN:
            return {name: archive.array(name) for name in archive.names}
    # Its numbers are those of the data set's classes, not of the files' order.
    numbers, cams = load_cams(path, classes=len(classes))
    return {classes[number]: cam for number, cam in zip(numbers, cams, strict=True)}


def _read_png(file: Path, folder: Path) -> Array:
    check_inside(file, folder)
    check_unturned(file)
    with open_image(file) as image:
        if image.format != "PNG" or image.mode not in ("L", "I", "I;16", "I;16B", "I;16L"):
            raise UserError(
                f"{file}: is a {image.format} of mode {image.mode}; "
                "save the map as PNG of 8 or 16 bits of gray"
            )
        values = np.asarray(image)
        most = 255 if image.mode == "L" else 65535
    return values.astype(np.float32) / np.float32(most)


def _array(path: Path, key: Any, value: Any) -> Array:
    if not isinstance(value, np.ndarray):
        raise UserError(f"{path}: entry {key!r} is no array; {_ADVICE}")
    return value


def _number(path: Path, key: Any) -> _Key:
    if isinstance(key, str):
        return key
    # True is an int too.
    if isinstance(key, bool) or not isinstance(key, int | np.integer) or abs(int(key)) > _MOST:
        raise UserError(f"{path}: holds a key that is neither a class number nor a name; {_ADVICE}")
    return int(key)


def _class_name(path: Path, key: _Key, names: Sequence[str], classes: Sequence[str]) -> str:
    if isinstance(key, str):
        for name in spellings(key):
            if name in classes or name in names:
                return name
        if not (key.isascii() and key.isdigit() and len(key) < 10):
            near = did_you_mean(key, classes)
            raise UserError(f"{path}: entry {key!r} is none of the classes; {near or _ADVICE}")
    if not 0 <= int(key) < len(names):
        raise UserError(
            f"{path}: entry {key} is no class number: they count from 0 without background, to "
            f"{len(names) - 1}; set cams.classes to the classes in the order of the numbers"
        )
    return names[int(key)]


def _checked(path: Path, key: _Key, values: Array, size: Size) -> npt.NDArray[np.float32]:
    if values.dtype.kind != "f" or values.ndim != 2:
        raise UserError(
            f"{path}: entry {key!r} is {values.dtype} of shape {values.shape}; "
            "write a map (H, W) of floating point numbers"
        )
    # A float64 too large for float32 becomes infinite, which the next check refuses.
    with np.errstate(over="ignore"):
        cam: npt.NDArray[np.float32] = values.astype(np.float32)
    if not np.isfinite(cam).all():
        raise UserError(f"{path}: entry {key!r} holds values that are not finite; {_ADVICE}")
    if (cam < 0).any():
        raise UserError(
            f"{path}: entry {key!r} holds values below 0, {cam.min():.3g}; cut the maps at 0"
        )
    if (cam > 1 + _ROUNDING).any():
        raise UserError(
            f"{path}: entry {key!r} holds values above 1, {cam.max():.3g}; divide each map by its "
            "largest value"
        )
    cam = np.minimum(cam, 1)
    if cam.shape == size:
        return cam
    stride = grid_stride((cam.shape[0], cam.shape[1]), size)
    if stride is None:
        raise _wrong_size(path, key, cam.shape, size)
    enlarged: npt.NDArray[np.float32] = enlarge(cam[None], stride, size)[0]
    return enlarged


def _wrong_size(path: Path, key: _Key, found: tuple[int, ...], size: Size) -> UserError:
    shape = " x ".join(map(str, found))
    return UserError(
        f"{path}: entry {key!r} is {shape}, the image {size[0]} x {size[1]}; "
        "write maps of the image's height and width, or of a whole stride"
    )
