"""Mutated inputs for every reader: each is read, or refused in words. Anything else is a finding.

    python benchmarks/fuzz.py --seed 0 --count 100000            # every reader; hours
    python benchmarks/fuzz.py --only coco masks --count 500

A finding is an exception that is no UserError, a warning, or more than five seconds of a processor
for one input of a few kilobytes. Memory is limited, so that an input that asks for gigabytes is
one, too.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz_inputs import READERS, Input
from mutations import mutate_in

from affinitynet.errors import UserError

SLOW = 5.0  # seconds of a processor; a small GIF may well hold 100 million pixels
HANGS = 60  # seconds
MEMORY = 3 << 30  # bytes beyond what the process has at its start


@dataclass
class Findings:
    """What a reader did: how many inputs it read and refused, and what it fell over."""

    reader: str
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0

    def __str__(self) -> str:
        """Say it in a line, and one for each fault."""
        count = self.read + self.refused + sum(self.faults.values())
        lines = [
            f"{self.reader}: {count} inputs, {self.read} read, {self.refused} refused, "
            f"{len(self.faults)} faults, slowest {self.slowest:.2f} s, {self.seconds:.0f} s"
        ]
        return "\n".join([*lines, *(f"    {n} x {what}" for what, n in self.faults.items())])


class HangError(Exception):
    """An input took longer than any should."""


def fuzz(name: str, count: int, seed: int, keep: Path | None = None) -> Findings:
    """Give a reader `count` mutated inputs; the first input of each fault is kept in a folder."""
    found = Findings(name)
    began = time.monotonic()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        given = READERS[name](Path(folder))
        originals = {file: file.read_bytes() for file in given.files}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # What Pillow says of odd metadata is no fault: the image is read all the same.
            warnings.filterwarnings("ignore", module="PIL")
            given.read()  # an input that nothing changed is sound
            for number in range(count):
                rng = random.Random(f"{seed} {name} {number}")
                file = rng.choice(given.files)
                changed = mutate_in(given.kind(file), originals[file], rng)
                file.write_bytes(changed)
                if fault := _try(given, found):
                    known = fault in found.faults
                    found.faults[fault] = found.faults.get(fault, 0) + 1
                    if keep is not None and not known:
                        keep.mkdir(parents=True, exist_ok=True)
                        (keep / f"{name}-{number}-{file.name}").write_bytes(changed)
                file.write_bytes(originals[file])
    found.seconds = time.monotonic() - began
    return found


def _try(given: Input, found: Findings) -> str:
    """Read a changed input; return "" if all is well, else what happened and where."""
    began = time.process_time()
    try:
        with _alarm():
            given.read()
        found.read += 1
    except UserError as error:
        if not str(error).isprintable():
            return f"message of several lines: {str(error)[:80]!r}"
        found.refused += 1
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]!r} at {_place(error)}"
    taken = time.process_time() - began
    found.slowest = max(found.slowest, taken)
    if taken > SLOW:
        return f"slow: {taken:.0f} s"
    return ""


def _place(error: BaseException) -> str:
    own = [f for f in traceback.extract_tb(error.__traceback__) if "affinitynet" in f.filename]
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "no place of ours"


class _alarm:  # noqa: N801
    """Stop what hangs, where the system can."""

    def __enter__(self) -> None:
        if hasattr(signal, "SIGALRM"):
            signal.signal(signal.SIGALRM, self._ring)
            signal.alarm(HANGS)

    def __exit__(self, *_: object) -> None:
        if hasattr(signal, "SIGALRM"):
            signal.alarm(0)

    @staticmethod
    def _ring(*_: object) -> None:
        raise HangError(f"more than {HANGS} s")


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000, help="inputs for each reader")
    parser.add_argument("--only", nargs="*", choices=sorted(READERS), default=list(READERS))
    parser.add_argument("--keep", type=Path, help="folder for the first input of each fault")
    given = parser.parse_args(words)
    import torch  # before memory is limited, as its libraries take gigabytes of addresses

    torch.set_num_threads(1)
    _limit_memory()
    faults = 0
    for name in given.only:
        found = fuzz(name, given.count, given.seed, given.keep)
        faults += len(found.faults)
        print(found, flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
