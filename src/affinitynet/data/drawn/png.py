"""Label maps as PNG: a folder of them by image id, or one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from affinitynet.data.corrections import read_drawn
from affinitynet.data.drawn.drawing import Drawing, Owners, endings
from affinitynet.data.images import read_size, walk_files
from affinitynet.data.labels import Labels
from affinitynet.data.manifest import Manifest
from affinitynet.errors import UserError


def read_png(path: Path, manifest: Manifest, rest: int) -> list[Drawing]:
    """List the PNGs below a folder, or one PNG: labels in the data set's numbers, as they are.

    A file is that of the image whose id its path below the folder is, or else its name.

    Raises:
        UserError: a file is of no image, or can't be read.
    """
    folder = path if path.is_dir() else path.parent
    files = [path] if path.is_file() else [f for f in walk_files(path) if _is_png(f)]
    if not files:
        raise UserError(f"{path}: holds no PNG; name the folder of the masks")
    owners = Owners(manifest)
    drawings = []
    for file in files:
        path_below = file.relative_to(folder)
        names = [endings(path.as_posix()) for path in (path_below.with_suffix(""), path_below)]
        sample = owners.find(
            str(file), *(name for pair in zip(*names, strict=True) for name in pair)
        )
        drawings.append(Drawing(sample, str(file), read_size(file), _reader(file, manifest)))
    return drawings


def _is_png(file: Path) -> bool:
    return file.suffix.lower() == ".png"


def _reader(file: Path, manifest: Manifest) -> Callable[[], Labels]:
    return partial(read_drawn, file, len(manifest.classes))
