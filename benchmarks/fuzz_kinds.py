"""What the inputs of `fuzz.py` share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SIZE = (24, 32)
NAMES = ("cat", "dog")


class Input(NamedTuple):
    """Files of which one is changed each time, and the call that reads them."""

    files: list[Path]
    read: Callable[[], Any]
    form: str = ""  # how to change them inside; "" goes by the suffix

    def kind(self, file: Path) -> str:
        """Say which format a file has."""
        return self.form or file.suffix.removeprefix(".")
