"""Each promise of docs/reliability.md names the test that holds it, and that test is there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TEXT = (TESTS.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and "`test_" in line.replace("tests/", "")
]
NAMED = re.compile(r"`(?:tests/)?([\w/]*?)(test_\w+)(\.py)?(?:::(test_\w+))?`")


def functions(file: Path) -> set[str]:
    return set(re.findall(r"^def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE))


def test_rows_are_found() -> None:
    assert len(ROWS) > 25


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_the_test_that_holds_a_promise_is_there(row: list[str]) -> None:
    named = NAMED.findall(row[-1])
    assert named
    for folder, name, suffix, function in named:
        if suffix:
            files = [file for file in TESTS.rglob(f"{name}.py") if folder in file.as_posix()]
            assert files, name
            assert not function or any(function in functions(file) for file in files), function
        else:
            assert any(name in functions(file) for file in TESTS.rglob("test_*.py")), name


def test_every_promise_names_a_test() -> None:
    begun = TEXT.split("## What survives")[1].split("## Mutated inputs")[0]
    rows = [line for line in begun.splitlines() if line.startswith("| ")]
    without = [row for row in rows if not row.startswith("| what") and "`test" not in row]
    assert [row for row in without if not row.startswith("| file |")] == []
