"""Progress with an ETA: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PLAIN_LINE_EVERY = 15.0  # seconds; a log file stays readable

console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Write one line for the person who waits, on standard error."""
    print(text, file=sys.stderr, flush=True)


class Task:
    """A piece of work of known length."""

    def __init__(self, name: str, total: int, done: int = 0) -> None:
        """Start counting at `done` of `total`."""
        self.name, self.total, self.done, self.note = name, total, done, ""
        self._first, self._began, self._said = done, time.monotonic(), time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        """Show the bar, if someone is looking."""
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._bar.start()
            self._id = self._bar.add_task(self.name, total=self.total, completed=self.done, note="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away, or say how it ended."""
        if self._bar:
            self._bar.stop()
        elif self._said > self._began:
            self._say(f"{self.done}/{self.total} in {_clock(time.monotonic() - self._began)}")

    def advance(self, note: str = "") -> None:
        """Count one more; `note` stands behind the bar."""
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


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
