"""Counts over images that several processes take together: integers, so their sum is exact."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from affinitynet.data import Sample
from affinitynet.engine.place import here
from affinitynet.engine.shards import Claims
from affinitynet.errors import UserError
from affinitynet.run_folder.artifacts import EVALUATION
from affinitynet.run_folder.folder import atomic_write, remove_tree
from affinitynet.run_folder.records import StageFolder, shards_of
from affinitynet.stages.context import Context
from affinitynet.stages.images import rounds

COUNTS = "counts"  # in the folder of `evaluate`, while it is worked on
_ATTEMPTS, _PAUSE = 20, 0.1  # to delete it, seconds between

Numbers = tuple[NDArray[np.int64], ...]
Count = Callable[[Sequence[Sample]], Numbers]
CountTogether = Callable[[str, Sequence[Sample], Count], Numbers]  # () for one that only helps


def count_here(name: str, samples: Sequence[Sample], count: Count) -> Numbers:
    """Count in this process alone."""
    return count(samples)


def count_together(context: Context, name: str, samples: Sequence[Sample], count: Count) -> Numbers:
    """Count shards of images in several processes; return the sums, () where another leads.

    The counts of a shard are a file until the leading process has added them up. Alone, and for
    figures that replace those of a finished run, one process counts all.
    """
    folder = StageFolder(context.folder(EVALUATION), "evaluate")
    counts = folder.path / COUNTS
    if context.leads and (here().count == 1 or folder.record() is not None):
        return count(samples)
    if context.leads:
        counts.mkdir(parents=True, exist_ok=True)
    elif not counts.is_dir():  # the leading one counts alone, or has all
        return ()
    shards = shards_of([sample.id for sample in samples])
    starts = np.cumsum([0, *map(len, shards)]).tolist()
    plain = quote(name, safe="")  # a split may be named as a folder in a folder is
    files = [counts / f"{plain}-{number:06d}.npz" for number in range(len(shards))]
    with Claims(
        context.root,
        f"{EVALUATION.folder}-{plain}",
        [[number] for number in range(len(shards))],
        place=here(),
        # The folder goes when all is added up: who comes late must not count once more.
        is_there=lambda number: files[number].is_file() or not counts.is_dir(),
        is_recorded=lambda number: True,
        record=lambda number: None,
        is_current=context.is_current,
    ) as claims:
        for _ in rounds(claims, f"evaluate {name}", leads=context.leads, last=False):
            for number in claims.take():
                found = count(samples[starts[number] : starts[number + 1]])
                _write(files[number], found, needed=context.leads)
                claims.settle(number)
    return _sum([_read(file) for file in files]) if context.leads else ()


def let_lead(context: Context) -> None:
    """Have the leading process begin, which says by a folder that it wants help, or ends alone."""
    context.let_lead(context.folder(EVALUATION) / COUNTS)


def forget_counts(context: Context) -> None:
    """Delete the shards' counts, which are added up.

    Raises:
        UserError: they can't be deleted.
    """
    folder = context.folder(EVALUATION) / COUNTS
    # A process that helps may be writing a last file, which makes the folder not empty meanwhile.
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(UserError):
            return remove_tree(folder)
        time.sleep(_PAUSE)
    return remove_tree(folder)


def _write(file: Path, numbers: Numbers, *, needed: bool) -> None:
    try:
        with atomic_write(file, make_folder=False) as temporary:
            np.savez(temporary, *numbers)
    except UserError:
        if needed or file.parent.is_dir():
            raise


def _read(file: Path) -> Numbers:
    with np.load(file, allow_pickle=False) as arrays:
        return tuple(arrays[key] for key in arrays.files)


def _sum(counts: Sequence[Numbers]) -> Numbers:
    return tuple(np.sum(arrays, axis=0) for arrays in zip(*counts, strict=True))
