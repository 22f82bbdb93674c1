"""SIGTERM, a scheduler's warning: the image or step is finished, all is saved, the code is 75.

75 is EX_TEMPFAIL of sysexits.h: nothing is wrong, the same command goes on. Job scripts requeue it.
"""

import signal
import threading
import time
from types import FrameType

from affinitynet.progress import say

CODE = 75
MESSAGE = "stopped by SIGTERM, all is saved; give the same command again to go on"
_asked = threading.Event()


class Stopped(Exception):  # noqa: N818 - no error: the program was asked to stop, and did
    """The run was asked to stop, and what it was at is saved."""


def watch_termination() -> None:
    """Have SIGTERM ask for a stop; where a program handles it, or ignores it, leave it so."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _ask)


def leave_termination() -> None:
    """Give SIGTERM back: a program that called a command ends on it again."""
    if signal.getsignal(signal.SIGTERM) is _ask:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def ask_stop() -> None:
    """Ask for a stop, as SIGTERM does."""
    _asked.set()


def stop_asked() -> bool:
    """Tell whether SIGTERM came."""
    return _asked.is_set()


def check_stop() -> None:
    """Stop here if that was asked for.

    Raises:
        Stopped: it was.
    """
    if _asked.is_set():
        raise Stopped(MESSAGE)


def _ask(number: int, frame: FrameType | None) -> None:
    ask_stop()


class Wait:
    """Waits in short steps for what another process does; says what for, once a minute."""

    FIRST, LONGEST, EVERY = 0.1, 2.0, 60.0  # seconds

    def __init__(self, text: str) -> None:
        """Begin to wait; `text` is what is said."""
        self._text, self._began, self._said = text, time.monotonic(), -self.EVERY
        self._pause = self.FIRST

    @property
    def seconds(self) -> float:
        """How long it has been."""
        return time.monotonic() - self._began

    def step(self) -> None:
        """Wait a moment.

        Raises:
            Stopped: SIGTERM came.
        """
        check_stop()
        # Not at once: what others are about to finish needs no line.
        if self.seconds > 2 and self.seconds - self._said >= self.EVERY:
            self._said = self.seconds
            say(f"{self._text} ({self.seconds:.0f} s)")
        time.sleep(self._pause)
        # Ever longer: on a shared disk each look costs, and so does one process's for all others.
        self._pause = min(1.2 * self._pause, self.LONGEST)
