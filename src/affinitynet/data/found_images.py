"""The image files that a list names, wherever below the data set's folder they lie."""

from collections import defaultdict
from pathlib import Path

from affinitynet.data.folder import RUN_FILES
from affinitynet.data.images import IMAGE_SUFFIXES, is_image_name, walk_files
from affinitynet.data.names import Files, compose
from affinitynet.data.rows import Listing, Row
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import check_relative


class FoundImages:
    """Finds images by the names in a list; every folder is listed once."""

    def __init__(self, root: Path, masks: Path) -> None:
        """Look below `root`, but for names alone not in `masks`."""
        self._root, self._masks, self._files = root, masks, Files()
        self._by_name: dict[str, list[Path]] | None = None
        self._elsewhere: dict[Path, int] = defaultdict(int)

    def find(self, listing: Listing, row: Row) -> Path:
        """Return a row's image: below the list's folder, the root, ``images/``, else the only one.

        The only one is the image whose path ends with the name, with any image suffix where the
        name has none. Backslashes stand between folders.

        Raises:
            UserError: no such image, several, or a name that leads out of the folder; with the row.
        """
        place = f"{listing.path}, {row.place}"
        names = row.names or (_plain(row.image, place),)
        # A dict, as the three are often one folder, but their order counts.
        bases = dict.fromkeys(
            (listing.base or listing.path.parent, self._root, self._root / "images")
        )
        for name in names:
            for base in bases:
                if (path := self._files.find(base, name)) is not None:
                    return path
        for name in names:
            ending = [path for path in self._named(name) if self._ends(path, name)]
            # Taking the first would give one image the tags of another without a word.
            if len(ending) > 1:
                two = " and ".join(str(path.relative_to(self._root)) for path in ending[:2])
                raise UserError(
                    f"{place}: {row.image} may be {two}; write its path from {self._root}"
                )
            if ending:
                self._elsewhere[ending[0].parent] += 1
                return ending[0]
        # Only a hint: on Linux two files may differ in case alone, so case is never guessed.
        near = [path.name for path in self._alike(names[-1])]
        hint = f"; {near[0]} is: write it so" if near else "; correct its path"
        raise UserError(f"{place}: there is no image {row.image} in {self._root}{hint}")

    def sample_id(self, image: Path) -> str:
        """Return the id of an image that was found."""
        return _id_below(self._root, image)

    def notes(self) -> tuple[str, ...]:
        """Say where images were found that lie neither by their names nor in ``images/``."""
        if not self._elsewhere:
            return ()
        count, most = (
            sum(self._elsewhere.values()),
            max(self._elsewhere, key=self._elsewhere.__getitem__),
        )
        folder = most.relative_to(self._root)
        return (
            f"{self._root}: {count} images were found by their names, most of them in {folder}",
        )

    def _named(self, name: str) -> list[Path]:
        if self._by_name is None:
            found: dict[str, list[Path]] = defaultdict(list)
            # Walked only when a name is not a path, as that takes long in a large folder. Masks
            # have their images' names, and would make each of these ambiguous.
            for path in walk_files(self._root, RUN_FILES):
                if is_image_name(path) and not path.is_relative_to(self._masks):
                    found[compose(path.stem)].append(path)
            self._by_name = dict(found)
        last = compose(name.rpartition("/")[2])
        # Only an image's suffix is cut off: a name without one may have dots in it.
        stem = last.rpartition(".")[0] if Path(last).suffix.lower() in IMAGE_SUFFIXES else last
        return self._by_name.get(stem, [])

    def _ends(self, path: Path, name: str) -> bool:
        own = compose(path.relative_to(self._root).as_posix())
        if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
            own = own.rpartition(".")[0]
        # The slash keeps a/1.jpg from fitting ba/1.jpg.
        return f"/{own}".endswith(f"/{compose(name)}")

    def _alike(self, name: str) -> list[Path]:
        folded = compose(name.rpartition("/")[2]).casefold()
        return [
            path
            for paths in (self._by_name or {}).values()
            for path in paths
            if path.name.casefold() == folded
        ]


class BehindUrl:
    """Finds images below a URL by their names alone: stores list millions of files slowly."""

    def __init__(self, url: str) -> None:
        """Look nowhere: a name that is wrong is found out by who opens the image."""
        self._url = Path(url)

    def find(self, listing: Listing, row: Row) -> Path:
        """Return a row's image.

        Raises:
            UserError: a name without an image's suffix, or one that leads out of the URL.
        """
        place = f"{listing.path}, {row.place}"
        name = _plain(row.image, place)
        if not is_image_name(Path(name)):
            raise UserError(
                f"{place}: {row.image} does not end as an image's file does (.jpg); write it whole"
            )
        return self._url / name

    def sample_id(self, image: Path) -> str:
        """Return the id of an image that was found."""
        return _id_below(self._url, image)

    def notes(self) -> tuple[str, ...]:
        """Say nothing."""
        return ()


def _id_below(root: Path, image: Path) -> str:
    base = root / "images"
    relative = image.relative_to(base if image.is_relative_to(base) else root)
    return relative.with_suffix("").as_posix()


def _plain(name: str, place: str) -> str:
    name = name.replace("\\", "/").removeprefix("./")
    check_relative(name, f"{place}: the image")
    return name
