"""What is noted and judged of files that come from elsewhere, beside each file's own mistakes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from affinitynet.data import Sample, read_labels
from affinitynet.data.emptiness import empty_masks, say_empty
from affinitynet.data.labels import ignore_index
from affinitynet.errors import UserError
from affinitynet.stages.context import Context
from affinitynet.stages.images import Shown, blaming


@dataclass
class Notes:
    """What is noted of the files while they come in, and said once all are there.

    ignored: classes in files that the data set lacks; turned: images that EXIF turns, whose files
    would fit unturned as well; shown: the labels of each mask.
    """

    shown: Shown
    ignored: list[str] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)

    def say(self, folder: Path) -> list[str]:
        """Say in a sentence each what was noted of the files in `folder`."""
        said = [
            f"{count} maps of {name}, a class that the data set lacks, were left out"
            for name, count in sorted(Counter(self.ignored).items())
        ]
        if self.turned:
            said.append(
                f"{len(self.turned)} images are turned by EXIF ({min(self.turned)} first): make "
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
