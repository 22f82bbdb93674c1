"""Imports point down the floors that docs/architecture.md draws."""

import ast
from collections.abc import Iterator
from pathlib import Path

import affinitynet

PACKAGE = Path(affinitynet.__file__).parent
FLOORS = {
    **dict.fromkeys(("run_folder", "progress", "errors", "_threads"), 0),
    **dict.fromkeys(("ops", "hardware"), 1),
    **dict.fromkeys(("models", "data", "training"), 2),
    **dict.fromkeys(("stages", "report", "export"), 3),
    **dict.fromkeys(("order", "preflight"), 4),
    "pipeline": 5,
    "cli": 6,
}
SIDEWAYS = {("data/transforms.py", "models"), ("models/segmenter.py", "data")}


def imported(file: Path) -> Iterator[str]:
    """What of the package a file imports: `data` for `from affinitynet.data.labels import ...`."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "affinitynet":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("affinitynet."):
            yield str(node.module).split(".")[1]


def test_imports_point_down() -> None:
    wrong, sideways = set(), set()
    for file in PACKAGE.rglob("*.py"):
        name = file.relative_to(PACKAGE).as_posix()
        own = name.split("/")[0].removesuffix(".py")
        if own not in FLOORS:  # the package's doors, which import by name
            assert own in ("__init__", "__main__")
            continue
        for other in set(imported(file)) - {own}:
            if FLOORS[other] > FLOORS[own]:
                wrong.add((name, other))
            elif FLOORS[other] == FLOORS[own] > 0:
                sideways.add((name, other))
    assert wrong == set()
    assert sideways == SIDEWAYS
