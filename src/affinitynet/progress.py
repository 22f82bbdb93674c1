"""Messages and progress: status lines through `logging`, a bar on a terminal.

Every message is a record of the logger `affinitynet`. Until a program configures that logger, its
messages go to stderr, one plain line each, so that `affinitynet.run()` shows its progress in a
notebook. To take them over, give the logger a level or a handler of your own before the first
message:

    logging.getLogger("affinitynet").setLevel("WARNING")           # warnings only, no bar
    logging.getLogger("affinitynet").setLevel("INFO")              # to your root logger's handlers
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

# rich is imported where it draws: --help and --version don't wait for it.

PLAIN_LINE_EVERY = 15.0  # seconds; a log file stays readable

logger = logging.getLogger("affinitynet")


class _StderrHandler(logging.Handler):
    """Print records to stderr, whatever stderr is then: a bar or a test may have replaced it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record; warnings and errors say that they are one."""
        prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        if logger.isEnabledFor(logging.DEBUG):
            # Since logging was loaded, which is about when the program began.
            prefix = f"{record.relativeCreated / 1000:8.2f} s  {prefix}"
        with suppress(OSError):  # nobody reads stderr any more: the work goes on
            print(prefix + self.format(record), file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a status line to stderr (level INFO)."""
    _log(logging.INFO, text)


def warn(text: str) -> None:
    """Print a warning to stderr, as `warning: text` (level WARNING)."""
    _log(logging.WARNING, text)


def detail(text: str | Callable[[], str]) -> None:
    """Print what only `--verbose` shows: a time, a file, a version (level DEBUG).

    text: a function if making the text takes time; it is called only if the text is shown.
    """
    if _shows(logging.DEBUG):
        _log(logging.DEBUG, text() if callable(text) else text)


@contextmanager
def messages_at(level: int) -> Iterator[None]:
    """Print messages of at least this level to stderr meanwhile; the command line's setting."""
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers, logger.propagate = [_StderrHandler()], False
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.handlers, _, logger.propagate = before
        # Not by the attribute: setLevel also clears the logger's cache of enabled levels.
        logger.setLevel(before[1])


def make_console(*, stderr: bool = False) -> "Console":
    """Make a rich console for stdout or stderr that writes no styles where NO_COLOR is set."""
    from rich.console import Console

    # rich's own reading of NO_COLOR keeps bold and dim, which are escape codes as well.
    plain = bool(os.environ.get("NO_COLOR"))
    return Console(stderr=stderr, highlight=False, color_system=None if plain else "auto")


class Task:
    """A piece of work of known length."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        """Start counting at `done` of `total`."""
        self.name, self.total, self.done, self.note = name, total, done, ""
        # What an earlier run did says nothing about the speed of this one.
        self._first = done
        self._began = self._said = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        """Show a bar if stderr is a terminal and status lines are shown at all."""
        if sys.stderr is not None and sys.stderr.isatty() and _shows(logging.INFO):
            self._bar = _make_bar()
            self._bar.start()
            self._id = self._bar.add_task(self.name, total=self.total, completed=self.done, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the bar, or say how far the work has come."""
        if self._bar:
            self._bar.stop()
        # Only after a line of progress: short work needs no line at its end.
        elif self._said > self._began:
            self._say(f"{self.done}/{self.total} in {_clock(time.monotonic() - self._began)}")

    def advance(self, note: str = "") -> None:
        """Count one more; `note` is shown behind the bar."""
        self.done += 1
        self.note = note or self.note
        if self._bar:
            self._bar.update(self._id, completed=self.done, note=self.note)
            return
        now = time.monotonic()
        if now - self._said >= PLAIN_LINE_EVERY and self.done < self.total:
            self._said = now
            rate = (self.done - self._first) / (now - self._began)
            left = _clock((self.total - self.done) / rate)
            self._say(f"{self.done}/{self.total}, {left} left {self.note}")

    def _say(self, text: str) -> None:
        say(f"{self.name}: {text}".rstrip())


@contextmanager
def task(name: str, total: int, done: int = 0) -> Iterator[Task]:
    """Give a running `Task` of `total` items, `done` of them finished before."""
    with Task(name, total, done) as running:
        yield running


def _log(level: int, text: str) -> None:
    _prepare()
    logger.log(level, text)


def _shows(level: int) -> bool:
    _prepare()
    return logger.isEnabledFor(level)


def _prepare() -> None:
    """Print to stderr by default, until the program that imports us says otherwise."""
    # A level or a handler of the program's own stands.
    if not logger.handlers and logger.level == logging.NOTSET:
        logger.handlers, logger.propagate = [_StderrHandler()], False
        logger.setLevel(logging.INFO)


def _make_bar() -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=make_console(stderr=True),
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
