"""The examples of docs/formats.md are read as they stand there."""

import re
from pathlib import Path

import pytest

from affinitynet.data import read_dataset

TEXT = (Path(__file__).parents[3] / "docs" / "formats.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```\w+ file=(\S+)\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize(("name", "content"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_an_example_is_read(pictures, tags, name, content):
    root = pictures("images/1.jpg", "images/2.jpg", "images/3.jpg")
    (root / name).write_text(content, encoding="utf-8")
    found = {
        key: set(names)
        for split in tags(read_dataset(root)).values()
        for key, names in split.items()
    }
    one, two = ({"weld"}, {"crack"}) if name == "metadata.jsonl" else ({"weld", "crack"}, {"weld"})
    assert found == {"1": one, "2": two, "3": set()}
    assert len(content.splitlines()) <= 6


def test_every_format_has_its_line():
    from affinitynet.data.read import FORMATS

    assert all(f"| `{name}` |" in TEXT for name in FORMATS)
    assert len(EXAMPLES) == 9


@pytest.mark.parametrize("heading", ["Class folders", "MVTec AD"])
def test_an_example_of_folders_is_read(pictures, heading):
    block = re.search(rf"## {heading}\n\n```\n(.*?)```", TEXT, re.DOTALL)
    assert block is not None
    root = pictures(*(line.split()[0] for line in block[1].splitlines()))
    manifest = read_dataset(root, background=["good"])
    assert manifest.layout == {"Class folders": "folder", "MVTec AD": "mvtec"}[heading]
    assert "good" not in manifest.classes
    assert len(manifest.classes) == 2
