"""Images kept aside: a share of each combination of tags, groups whole, the same every time."""

from collections import Counter
from pathlib import Path

import pytest

from affinitynet.data import Sample
from affinitynet.data.holdout import hold_out, read_groups
from affinitynet.errors import UserError


def samples(*counts: int) -> list[Sample]:
    """`counts[c]` images of class c, mixed."""
    tags = [c for c, count in enumerate(counts) for _ in range(count)]
    tags = [tags[(7 * i) % len(tags)] for i in range(len(tags))]
    return [Sample(f"{i}", Path(f"/d/{i}.png"), (c,)) for i, c in enumerate(tags)]


@pytest.mark.parametrize("seed", range(5))
def test_each_stratum_gives_its_share(seed: int) -> None:
    every = samples(50, 30, 21)
    rest, held = hold_out(every, 0.1, seed, {})
    counts = Counter(sample.tags[0] for sample in held)
    assert counts[0] in (4, 5, 6)
    assert counts[1] in (2, 3, 4)
    assert counts[2] in (1, 2, 3)
    assert sorted(rest + held, key=lambda s: int(s.id)) == every
    assert not {s.id for s in rest} & {s.id for s in held}


def test_the_seed_alone_decides() -> None:
    every = samples(50, 30, 21)
    assert hold_out(every, 0.2, 4, {}) == hold_out(every, 0.2, 4, {})
    assert hold_out(every, 0.2, 4, {}) != hold_out(every, 0.2, 5, {})


def test_groups_stay_whole() -> None:
    every = samples(60, 41)
    groups = {sample.image: f"plant {int(sample.id) // 4}" for sample in every}
    rest, held = hold_out(every, 0.3, 1, groups)
    assert 20 <= len(held) <= 31
    assert not {groups[s.image] for s in rest} & {groups[s.image] for s in held}


def test_groups_of_samples_stay_whole() -> None:
    every = [sample.replace(group=f"{int(sample.id) // 4}") for sample in samples(60, 41)]
    rest, held = hold_out(every, 0.3, 1, {})
    assert 20 <= len(held) <= 31
    assert not {s.group for s in rest} & {s.group for s in held}


def test_groups_come_from_their_file(tmp_path: Path) -> None:
    assert read_groups(tmp_path) == {}
    file = tmp_path / "groups.csv"
    file.write_text("image,group\na.png,8\n", encoding="utf-8")
    assert read_groups(tmp_path)[tmp_path / "a.png"] == "8"
    file.write_text("picture,group\na.png,8\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"groups\.csv: must begin with the columns image,group"):
        read_groups(tmp_path)
