"""The lists of a VOC devkit, one image a line, and the images that they name."""

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from affinitynet.data.images import IMAGE_SUFFIXES, is_image_name
from affinitynet.data.names import compose, list_folder
from affinitynet.data.text import read_lines
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative

_IMAGES = "JPEGImages/"
# Image and mask in a line, as published for train_aug: /JPEGImages/x.jpg /SegmentationClass/x.png
_PAIR = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, IMAGE_SUFFIXES))}))\s+(\S.*\.png)", re.I)
_PER_CLASS = re.compile(r"\S.*\s(-1|0|1)")  # of the lists of single classes: x -1


class Images:
    """The images of a devkit by their ids: the path below JPEGImages without its extension."""

    def __init__(self, base: Path) -> None:
        """Look into `base`, the folder JPEGImages, but list no folder yet."""
        self._base = base
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def find(self, sample_id: str) -> list[Path]:
        """Return the files that have this id, letter for letter if there are such."""
        folder, _, name = sample_id.rpartition("/")
        # Composed (NFC): a disk may spell an umlaut in another way than a list.
        same = self._list(self._base / folder).get(compose(name), [])
        return [path for path in same if path.stem == name] or same

    def only(self, sample_id: str) -> Path:
        """Return the one file of an id.

        Raises:
            UserError: there are several.
        """
        first, *more = self.find(sample_id)
        if more:
            raise UserError(
                f"{self._base}: has both {first.name} and {more[0].name} for {sample_id}; "
                "rename one"
            )
        return first

    def identify(self, line: str) -> str:
        """Return the id of the image that a line names, the line itself if there is none."""
        for name in _readings(line):
            if _is_plain(name) and (found := self.find(name)):
                return found[0].relative_to(self._base).with_suffix("").as_posix()
        return line

    def _list(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listed:
            found: dict[str, list[Path]] = {}
            for path in list_folder(folder):
                if is_image_name(path):
                    found.setdefault(compose(path.stem), []).append(path)
            self._listed[folder] = found
        return self._listed[folder]


def read_lists(root: Path, images: Images) -> dict[str, list[str]]:
    """Read split -> ids, from the lists of one image a line, spaces in its name and all.

    Lines may also be paths (``/JPEGImages/x.jpg``), with the mask's behind. The per-class lists of
    Main, ``x -1`` on every line, are no splits.

    Raises:
        UserError: there is no list, or it names an image that is not there.
    """
    # Main lists all images, most of them without masks; it serves kits made for detection.
    for folder in (root / "ImageSets" / "Segmentation", root / "ImageSets" / "Main"):
        lists: dict[str, list[str]] = {}
        for path in sorted(folder.glob("*.txt")):
            lines = read_lines(path)
            if not _is_per_class(lines, images):
                ids = [_listed_id(line, images, path) for line in lines]
                lists[path.stem] = list(dict.fromkeys(ids))
        if any(lists.values()):
            return lists
    raise UserError(
        f"{root}: has no list of images; put one as ImageSets/Segmentation/train.txt, one id a line"
    )


def _listed_id(line: str, images: Images, path: Path) -> str:
    sample_id = images.identify(line)
    if _is_plain(sample_id) and images.find(sample_id):
        return sample_id
    *_, last = _readings(line)
    check_relative(last, f"{path}: the image")
    raise UserError(f"{path}: names {last}, but there is no such image in JPEGImages; correct it")


def _is_per_class(lines: list[str], images: Images) -> bool:
    if not lines or not all(_PER_CLASS.fullmatch(line) for line in lines):
        return False
    # An image may itself be named "x 1".
    return not any(_is_plain(line) and images.find(line) for line in lines)


def _readings(line: str) -> Iterator[str]:
    """What a line may say: a name as it stands, or a path with an extension."""
    # As it stands first: a name may have a dot or a space in it ("a.1 b").
    yield line
    pair = _PAIR.fullmatch(line)
    path = pair[1] if pair else line
    path = path.rpartition(_IMAGES)[2] if _IMAGES in path else path
    suffix = PurePosixPath(path).suffix
    yield path.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else path


def _is_plain(name: str) -> bool:
    try:
        check_relative(name, "")
    except UserError:
        return False
    return True
