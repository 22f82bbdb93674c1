"""The exception for the user's mistakes, and suggestions for mistyped names."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in the user's input: what is wrong, in which file or setting, what to do.

    The command line prints it as one line and ends with exit code `code`. Names in it may come from
    anywhere, so what is no printable character is written as its escape.
    """

    code = 2

    def __init__(self, message: str) -> None:
        """Keep the message as one line that does nothing to a terminal."""
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


class FailedImagesError(UserError):
    """Some images of many failed; what was made of the others is there."""

    code = 1


class NotFiniteError(ValueError):
    """NaN or infinite values where numbers are needed, as a network that diverged produces."""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "did you mean X?" with the known name nearest to `name`; "" if none is near.

    cutoff: the least similarity, from 0 to 1, of the two names.
    """
    near = close_names(name, known, cutoff)
    return f"did you mean {near[0]}?" if near else ""


def close_names(name: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Return the known name nearest to `name` in a list of one; an empty list if none is near."""
    return get_close_matches(name, list(known), n=1, cutoff=cutoff)


def either(names: Sequence[str]) -> str:
    """Join names as an English choice: "a, b or c"."""
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
