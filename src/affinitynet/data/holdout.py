"""Which images are kept aside to judge how well the tags were learned."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from affinitynet.data.sample import Sample
from affinitynet.data.text import read_text
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import fingerprint

GROUPS = "groups.csv"  # columns image,group, beside labels.csv


def read_groups(root: Path) -> dict[Path, str]:
    """Return the group of each image that `groups.csv` gives one.

    Images of a group (one plant, one patient, one video) look so alike that one of them in the
    training gives the others away. Paths are absolute. A table's column `group` is in the samples.

    Raises:
        UserError: a groups.csv without the columns image and group.
    """
    file = root / GROUPS
    if not file.is_file():
        return {}
    rows = list(csv.DictReader(io.StringIO(read_text(file), newline="")))
    if rows and not {"image", "group"} <= rows[0].keys():
        raise UserError(f"{file}: must begin with the columns image,group; add that line")
    named = {row["image"].strip(): (row["group"] or "").strip() for row in rows}
    folders = (root, root / "images")
    return {folder / image: group for image, group in named.items() if group for folder in folders}


def name_groups(root: Path, samples: Sequence[Sample]) -> str:
    """Fingerprint which of the samples show the same thing, "none" where no group is given.

    Raises:
        UserError: as `read_groups`.
    """
    given = read_groups(root)
    groups = {sample.id: given.get(sample.image) or sample.group for sample in samples}
    named = {sample_id: group for sample_id, group in groups.items() if group}
    return fingerprint(named) if named else "none"


def judges(train: Sequence[Sample], val: Sequence[Sample]) -> tuple[Sample, ...]:
    """Return the samples of val that can judge what was learned from train; () without tags.

    An image of both splits is learned from, so it can judge nothing.
    """
    known = {sample.id for sample in train}
    others = tuple(sample for sample in val if sample.id not in known)
    return others if any(sample.tags for sample in others) else ()


def hold_out(
    samples: Sequence[Sample], share: float, seed: int, groups: Mapping[Path, str]
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split samples into those to learn from and a share to judge by, both in their order.

    Units (images, or whole groups) are sorted by their tags, by chance where these are equal, and
    taken at even distances: each combination of tags gives its share, as far as that is a whole
    number, and rare combinations together give theirs. The share is never exceeded by more than
    one image.
    """
    generator = np.random.default_rng([seed, 1])
    units: dict[tuple[bool, str], list[Sample]] = {}
    for sample in samples:
        group = groups.get(sample.image) or sample.group
        # The flag keeps a group apart from an image whose id is the group's name.
        units.setdefault((bool(group), group or sample.id), []).append(sample)
    keyed = [
        (sorted({tag for sample in unit for tag in sample.tags}), float(generator.random()), unit)
        for unit in units.values()
    ]
    held: set[str] = set()
    # A random start: at even distances no place in the order is then more likely than another.
    debt = float(generator.random())
    # Without the samples themselves, which have no order.
    for _, _, unit in sorted(keyed, key=lambda item: item[:2]):
        debt += share * len(unit)
        if debt >= len(unit):
            debt -= len(unit)
            held |= {sample.id for sample in unit}
    return (
        tuple(sample for sample in samples if sample.id not in held),
        tuple(sample for sample in samples if sample.id in held),
    )
