"""Imports point down the floors of docs/architecture.md; what only looks loads no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import affinitynet
from affinitynet.run_folder.artifacts import FOLDERS

PACKAGE = Path(affinitynet.__file__).parent
# From the ground up. Modules of one floor don't import one another, but for those of a folder.
ORDER: tuple[tuple[str, ...], ...] = (
    ("progress", "errors", "_threads", "channels", "memory"),
    ("run_folder",),
    ("engine",),
    ("ops", "folded"),
    ("hardware", "loading", "checkpoint", "walking", "accelerator", "dilated"),
    ("training",),
    ("data",),
    ("models",),
    ("report", "export"),
    ("tuning",),
    ("stages",),
    ("preflight", "view"),
    ("helping",),
    ("pipeline", "predicting"),
    ("applying", "evaluating", "reproducing"),
    ("command_line",),
    ("cli",),
)
FLOORS = {name: number for number, floor in enumerate(ORDER) for name in floor}
FILES = sorted(PACKAGE.rglob("*.py"))


def modules(file: Path, *, at_import: bool = False) -> Iterator[str]:
    """The modules that a file imports; `at_import` leaves out those imported in functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    lazy = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) or _is_typing(n)]
    later = {id(inner) for outer in lazy for inner in ast.walk(outer)} if at_import else set()
    for node in ast.walk(tree):
        if id(node) in later:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "affinitynet":
            yield from (f"affinitynet.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def names(file: Path) -> set[str]:
    """What of the package a file imports: `data` for `from affinitynet.data.labels import ...`."""
    ours = (name.split(".") for name in modules(file) if name.startswith("affinitynet."))
    return {parts[1] for parts in ours}


def test_imports_point_down() -> None:
    wrong = set()
    for file in FILES:
        name = file.relative_to(PACKAGE).as_posix()
        own = name.split("/")[0].removesuffix(".py")
        if own in ("__init__", "__main__"):  # the package's doors, which import by name
            continue
        for other in names(file) - {own}:
            if other in FLOORS and FLOORS[other] >= FLOORS[own] > 0:
                wrong.add((name, other))
    assert wrong == set()


def test_no_stage_imports_another() -> None:
    shared = {"context", "images", "judge_walk", "counting", "regions", "starting", "import_notes"}
    shared |= {"works"}
    stages = {file.stem for file in (PACKAGE / "stages").glob("*.py")} - {"__init__"} - shared
    for file in (PACKAGE / "stages").glob("*.py"):
        found = {name.split(".")[2] for name in modules(file) if ".stages." in name}
        assert found & stages - {file.stem} == set(), file.name


def test_only_the_stage_graph_knows_where_artifacts_lie() -> None:
    """Nobody else joins the name of a stage's folder to a path."""
    data_sets = {"table.py", "toy.py"}  # whose `masks/` is ground truth
    wrong = {
        (file.name, node.right.value)
        for file in FILES
        if file.name not in data_sets
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Div)
        and isinstance(node.right, ast.Constant)
        and node.right.value in FOLDERS
    }
    assert wrong == set()


def test_no_torch_at_import_where_none_is_needed() -> None:
    heavy = {"torch", "torchvision", "timm", "numba", "accelerate"}
    light = (
        "run_folder",
        "data",
        "report",
        "export",
        "view",
        "cli.py",
        "pipeline.py",
        "predicting.py",
        "applying.py",
        "reproducing.py",
        "evaluating.py",
        "preflight.py",
        "engine/place.py",
        "engine/shards.py",
        "engine/leading.py",
        "helping.py",
    )
    for file in FILES:
        name = file.relative_to(PACKAGE).as_posix()
        if name.startswith(light) and name != "data/transforms.py":
            found = {module.split(".")[0] for module in modules(file, at_import=True)}
            assert not found & heavy, name


@pytest.mark.parametrize("module", ["", ".cli", ".pipeline", ".report", ".export", ".data"])
def test_importing_loads_no_torch(module: str) -> None:
    code = (
        f"import sys, affinitynet{module}\n"
        "print(sorted({'torch', 'timm', 'numba'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
