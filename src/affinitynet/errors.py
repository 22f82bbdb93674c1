"""The one exception that means: the user can fix this, and the message says how."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in the user's input: what is wrong, with which file or setting, what to do.

    The command line prints it as one line and ends with exit code 2.
    """


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Ask for the known name nearest to one that is not; empty where none is as near as cutoff."""
    near = get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {near[0]}?" if near else ""
