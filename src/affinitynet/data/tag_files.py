"""Finds the files of tags in a data set's folder, and tells what each of them is."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from affinitynet.data.columns import find_columns
from affinitynet.data.cvat import read_cvat
from affinitynet.data.delimited import read_delimited
from affinitynet.data.folder import RUN_FILES
from affinitynet.data.images import is_hidden
from affinitynet.data.indicators import indicator_columns
from affinitynet.data.json_rows import LINES, load_json, read_json_rows
from affinitynet.data.label_studio import is_label_studio
from affinitynet.data.names import compose
from affinitynet.data.rows import TABLE
from affinitynet.data.splits import known_split
from affinitynet.errors import UserError

TABLES = (".csv", ".tsv", ".txt")
SUFFIXES = (".csv", ".tsv", *LINES, ".json", ".xml")
OURS = (
    "groups.csv",
    "predict.json",
    "choices.json",
    "truth.json",
    "toy.json",
)  # files of other meanings
MOST = 12  # files of a kind in a folder that are looked into
COCO_LISTS = {"images", "annotations", "categories"}


class TagFile(NamedTuple):
    """A file of tags: its format, the split that its name or folder says, or ""."""

    path: Path
    format: str
    split: str = ""


class TagFiles(NamedTuple):
    """The files to read together, and what else may hold tags but is not read, with the reason."""

    files: tuple[TagFile, ...]
    unread: dict[Path, str]


def recognize(path: Path) -> str:
    """Tell a tag file's format by its content: table, labelstudio, cvat or coco.

    Raises:
        UserError: it is none of these; what was found and what it lacks.
    """
    suffix = path.suffix.lower()
    # VOC writes one XML an image, so that being XML says nothing; the reader itself tells.
    if suffix == ".xml":
        read_cvat(path)
        return "cvat"
    if suffix == ".json":
        content = load_json(path)
        # Before the lists of objects: an export of Label Studio is a list of objects, too.
        if is_label_studio(content):
            return "labelstudio"
        if isinstance(content, dict) and content.keys() >= COCO_LISTS:
            return "coco"
        if not isinstance(content, list):
            raise UserError(
                f"{path}: is neither COCO (images, annotations, categories), an export of Label "
                "Studio, nor a list of objects with image and labels; export it as one of these"
            )
    if suffix not in (*LINES, ".json", *TABLES):
        raise UserError(f"{path}: is of no kind that is read; save it as CSV")
    grid = read_json_rows(path) if suffix in (*LINES, ".json") else read_delimited(path)
    columns = find_columns(path, grid.header)
    if columns.labels is None and not indicator_columns(grid, columns.rest):
        raise UserError(f"{path}: has no column of labels, and no columns of 0 and 1; add them")
    return "table"


def find_tag_files(root: Path, only: str = "") -> TagFiles:
    """Find the tag files of a data set: in its folder, in each split's folder, or a level below.

    ``labels.csv`` is taken whatever is beside it. Files that are named after splits (train.csv and
    val.csv) belong together. `only` is a format; files of others are passed over.

    Raises:
        UserError: several files may hold the tags; names them.
    """
    unread: dict[Path, str] = {}
    own = _recognized(root, only, unread)
    below = {
        folder: found for folder in _folders(root) if (found := _recognized(folder, only, unread))
    }
    table = [file for file in own if file.path.name == TABLE]
    if table:
        others = [f for f in own if f not in table] + [f for files in below.values() for f in files]
        unread |= {file.path: f"{TABLE} is there" for file in others}
        return TagFiles(tuple(table), unread)
    in_splits = {folder: files for folder, files in below.items() if known_split(folder.name)}
    chosen = own or [file for files in in_splits.values() for file in files]
    chosen = chosen or [file for files in below.values() for file in files]
    rivals = chosen + ([f for files in in_splits.values() for f in files] if own else [])
    if len(rivals) > 1 and not _belong_together(rivals):
        raise UserError(_ambiguous(root, rivals))
    return TagFiles(tuple(chosen), unread)


def as_tag_file(path: Path, format: str = "auto") -> TagFile:
    """Take a file that was given by its path.

    Raises:
        UserError: it is of no known format, or of another one than `format`.
    """
    found = recognize(path)
    if format not in ("auto", found):
        raise UserError(f"{path}: is of the format {found}, not {format}; leave --format out")
    return TagFile(path, found)


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders that may hold tag files: those in the root, and splits one level below."""
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and not is_hidden(folder.name):
            yield folder
            # By their names first: a folder may hold a hundred thousand images.
            inner = (path for path in folder.iterdir() if known_split(path.name))
            yield from (path for path in sorted(inner) if path.is_dir())


def _recognized(folder: Path, only: str, unread: dict[Path, str]) -> list[TagFile]:
    found = []
    for path in _candidates(folder, unread):
        try:
            format = recognize(path)
        # No error: files of other meanings lie beside tags; `check` says that it is not read, and
        # why.
        except UserError as error:
            unread[path] = str(error).removeprefix(str(path)).lstrip(":, ")
            continue
        if not only or only == format:
            found.append(TagFile(path, format, _split_of(path)))
    return found


def _candidates(folder: Path, unread: dict[Path, str]) -> Iterator[Path]:
    """Yield the files that may list tags; run folders have none, nor files of one image each."""
    if all((folder / name).is_file() for name in RUN_FILES):
        return
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") or path.name in OURS
        if path.suffix.lower() in SUFFIXES and not hidden and path.is_file():
            kinds.setdefault(path.suffix.lower(), []).append(path)
    for suffix, paths in kinds.items():
        # One file an image, as many programs write their annotations.
        if len(paths) > MOST:
            unread[paths[0]] = f"it is one of {len(paths)} {suffix} files, too many to list tags"
        else:
            yield from paths


def _split_of(path: Path) -> str:
    """The split that a file's name says (train.csv, labels_val.csv), else that of its folder."""
    # First or last word only: split names inside of others ("my_test_tags") mean something else.
    words = compose(path.stem).replace("-", "_").split("_")
    named = [word for word in (words[0], words[-1]) if known_split(word)]
    return named[0] if named else path.parent.name if known_split(path.parent.name) else ""


def _belong_together(files: list[TagFile]) -> bool:
    """Whether they are the splits of one data set: alike, and each of another split."""
    kinds = {(file.format, file.path.suffix.lower()) for file in files}
    splits = {known_split(file.split) if file.split else "" for file in files}
    return len(kinds) == 1 and "" not in splits and len(splits) == len(files)


def _ambiguous(root: Path, files: list[TagFile]) -> str:
    named = " and ".join(f"{f.path.relative_to(root)} ({f.format})" for f in files[:3])
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return (
        f"{root}: {named}{more} may hold the tags; give the path of the one to read in place of "
        "the folder"
    )
