"""What is noted and judged of files that come from elsewhere, beside each file's own mistakes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from affinitynet.data import Sample, read_labels
from affinitynet.data.emptiness import empty_masks, say_empty
from affinitynet.data.labels import ignore_index
from affinitynet.errors import UserError
from affinitynet.stages.context import Context
from affinitynet.stages.images import Shown, blaming, for_each


class Note(NamedTuple):
    """What is noted of an image's file.

    ignored: classes in it that the data set lacks; turned: EXIF turns the image, and the file would
    fit it unturned as well.
    """

    ignored: tuple[str, ...] = ()
    turned: bool = False


class Notes:
    """What is noted of the files while they come in, and said once all are there.

    Files of an earlier call, or of another process, are looked at again: what is said has to be of
    all of them, whoever brought them in.
    """

    def __init__(self, look: Callable[[Sample], Note]) -> None:
        """Know of no file yet; `look` finds out what is to be noted of an image's."""
        self._look = look
        self._found: dict[str, Note] = {}

    def add(self, sample: Sample, note: Note) -> None:
        """Note something of an image's file."""
        self._found[sample.id] = note

    def complete(self, stage: str, samples: Iterable[Sample], workers: int) -> None:
        """Look at the files that others brought in.

        Raises:
            UserError: one can't be read any more.
            Stopped: SIGTERM came.
        """
        if missing := [sample for sample in samples if sample.id not in self._found]:
            for_each(
                stage,
                missing,
                load=self._look,
                compute=lambda sample, note: note,
                finish=self.add,
                workers=workers,
            )

    def say(self, folder: Path) -> list[str]:
        """Say in a sentence each what was noted of the files in `folder`."""
        ignored = Counter(name for note in self._found.values() for name in note.ignored)
        said = [
            f"{count} maps of {name}, a class that the data set lacks, were left out"
            for name, count in sorted(ignored.items())
        ]
        if turned := [name for name, note in self._found.items() if note.turned]:
            said.append(
                f"{len(turned)} images are turned by EXIF ({min(turned)} first): make "
                f"sure that the files in {folder} fit the upright images"
            )
        return said


def check_classes(
    stage: str,
    setting: str,
    samples: Sequence[Sample],
    files: Mapping[str, Path],
    numbered: int,
) -> None:
    """Refuse label maps none of which shows a class, as black and white ones.

    Mostly the first one shows that they do. numbered: how many classes the files' numbers tell.

    Raises:
        UserError: what they hold instead.
    """
    neutral = ignore_index(numbered)
    tagged = [sample for sample in samples if sample.tags]
    found: set[int] = set()
    for sample in tagged:
        with blaming(stage, sample):
            labels = read_labels(files[sample.id])
        found |= set(np.unique(labels).tolist())
        if found - {0, neutral}:
            return
    if tagged:
        raise UserError(
            f"{setting}: the files of all {len(tagged)} tagged images hold "
            f"{' and '.join(map(str, sorted(found)))} only, which say background (0) or neutral "
            f"({neutral}) and no class; write the class's number, 1 for the first class"
        )


def judge_labels(
    context: Context, setting: str, samples: Sequence[Sample], shown: Shown
) -> dict[str, Any]:
    """Count the tagged images whose files hold nothing of their tags, and say it."""
    empty = empty_masks(samples, shown, context.manifest.classes)
    advice = "look whether their numbers mean the classes that you think (cams.classes)"
    return {"empty": empty, "judgements": say_empty(empty, f"files of {setting}", advice)}


def say_missing(setting: str, samples: Sequence[Sample], every: Sequence[Sample]) -> list[str]:
    """Say how many images of val have no file, which they may lack."""
    there = {sample.id for sample in samples}
    missing = [sample.id for sample in every if sample.id not in there]
    if not missing:
        return []
    return [
        f"{len(missing)} of {len(every)} images have no file for {setting} and are left out of "
        f"its figures, {missing[0]} first"
    ]
