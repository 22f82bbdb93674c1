"""Files that hold the same bytes, found without reading all of them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PIECE = 1 << 16  # bytes of a file's beginning that tell most files apart


def identical(files: Iterable[Path]) -> list[list[Path]]:
    """Return the groups of two files or more that are equal, each in the files' order.

    What can't be read, as a link that leads nowhere, equals nothing: whoever needs it says so.
    """
    sizes: dict[int, list[Path]] = defaultdict(list)
    # Reading every image would take minutes, so sizes come first, then the beginnings of files of
    # one size, then the whole of those that still agree.
    for file in files:
        with suppress(OSError):
            sizes[file.stat().st_size].append(file)
    groups: dict[tuple[bytes, int], list[Path]] = defaultdict(list)
    for size, same in sizes.items():
        for file in same if len(same) > 1 else ():
            with suppress(OSError), file.open("rb") as content:
                groups[hashlib.sha256(content.read(_PIECE)).digest(), size].append(file)
    found = []
    for (_, size), same in groups.items():
        equal: dict[bytes, list[Path]] = defaultdict(list)
        for file in same if len(same) > 1 else ():
            with suppress(OSError):
                content_of = file.read_bytes() if size > _PIECE else b""  # else known to be equal
                equal[hashlib.sha256(content_of).digest()].append(file)
        found += [copies for copies in equal.values() if len(copies) > 1]
    return found
