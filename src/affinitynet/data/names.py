"""Names as people and systems write them, and files found by them.

An accented letter is one character (NFC) or a letter and an accent (NFD, as macOS writes). Both
look alike, so a name in a list and the name of its file may differ in that alone.
"""

import errno
import unicodedata
from pathlib import Path

from affinitynet.errors import UserError


def compose(name: str) -> str:
    """Write accented letters as one character each (NFC): equal names are then equal text."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spellings(name: str) -> tuple[str, ...]:
    """Return the forms in which a name may be stored, its own first: composed and decomposed."""
    forms = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))
    return tuple(dict.fromkeys(forms))


def fold(name: str) -> str:
    """Reduce a name to what tells it from others: no case, spaces, '-', '_', invisible letters."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if c not in " -_" and unicodedata.category(c) != "Cf")


def check_name(name: str, what: str) -> str:
    """Return the name as it is; `what` says whose name it is.

    Raises:
        UserError: it is empty, has spaces around it, or characters that end lines or show nothing.
    """
    if not name or name != name.strip():
        raise UserError(f"{what} {name!r}: is empty or has spaces around it; correct the name")
    # Cc: controls, Cs: halves of surrogate pairs, Zl and Zp: ends of lines and paragraphs. Names go
    # into text files of one a line, which such characters would break.
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in name):
        raise UserError(f"{what} {name!r}: has a control character in it; correct the name")
    return name


def list_folder(folder: Path) -> list[Path]:
    """Return what a folder holds in order of its names, [] where there is or can be no such one."""
    try:
        return sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return []
        raise


class Files:
    """Files found by names that may be written in the other form, each folder listed once."""

    def __init__(self) -> None:
        """Know no folder yet."""
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def find(self, base: Path, name: str) -> Path | None:
        """Return the file `base/name`, or the only one whose name is composed the same, or None."""
        path = base / name
        try:
            # The usual case, without listing a folder of a hundred thousand images.
            if path.is_file():
                return path
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise
        path = base
        # A folder on the way may be spelled in the other form as well, so each part is looked up.
        for part in name.split("/"):
            exact, same = path / part, self.list(path).get(compose(part), [])
            if exact in same:
                path = exact
            # On Linux both spellings can lie side by side; neither is then the one that was meant.
            elif len(same) == 1:
                path = same[0]
            else:
                return None
        return path if path.is_file() else None

    def list(self, folder: Path) -> dict[str, list[Path]]:
        """Return what a folder holds, by composed names; {} where there is no such folder."""
        if folder not in self._listed:
            found: dict[str, list[Path]] = {}
            for path in list_folder(folder):
                found.setdefault(compose(path.name), []).append(path)
            self._listed[folder] = found
        return self._listed[folder]
