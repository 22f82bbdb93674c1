"""The package as others install it: what it imports, what it promises, what it carries."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
import yaml

import affinitynet

ROOT = Path(__file__).parents[1]
PACKAGE = Path(affinitynet.__file__).parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
POSIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios", "triton")
OF_EXTRAS = (
    "google.protobuf",
    "matplotlib",
    "pydensecrf",
    "starlette",
    "uvicorn",
    "onnx",
    "onnxscript",
    "ray",
    "tifffile",
    "imagecodecs",
)
PARTS = ("llvmlite", "markupsafe", "triton")  # of numba, of jinja2, and of torch where it has one

RAY = ("affinitynet.engine.ray", "affinitynet.engine.ray_worker")
TRITON = ("affinitynet.ops._crf_triton", "affinitynet.ops._walk_triton")
NOT_IMPORTED = {"affinitynet.__main__", *RAY, *TRITON}

# None in sys.modules makes an import fail, as it does where the module does not exist.
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None
import affinitynet
for module in pkgutil.walk_packages(affinitynet.__path__, "affinitynet."):
    # The program itself, the engine that is imported where `--engine ray` asks for it, and kernels
    # of Triton, which are imported where it is.
    if module.name == "affinitynet.__main__" or module.name.startswith("affinitynet.engine.ray"):
        continue
    if module.name in ("affinitynet.ops._crf_triton", "affinitynet.ops._walk_triton"):
        continue
    importlib.import_module(module.name)
print(*(name for name in sys.modules if name.startswith("affinitynet.")))
"""


def test_every_module_imports_on_windows_and_without_extras() -> None:
    command = [sys.executable, "-c", IMPORT_ALL, *POSIX_ONLY, *OF_EXTRAS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == modules()


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def modules() -> set[str]:
    """The dotted names of all files and folders in the package, but the program itself."""
    files = {file.parent if file.name == "__init__.py" else file for file in sources()}
    places = {file.relative_to(PACKAGE.parent).with_suffix("") for file in files - {PACKAGE}}
    return {".".join(place.parts) for place in places} - NOT_IMPORTED


def test_what_is_imported_is_a_dependency() -> None:
    """What a dependency happens to bring is no promise, but for what is a part of it."""
    extras = (EXTRAS[name] for name in ("caffe", "view", "onnx", "ray", "tiff", "storage"))
    promised = (*PROJECT["dependencies"], *chain(*extras))
    declared = {name_of(requirement) for requirement in promised}
    known = packages_distributions()
    for module in imported() - sys.stdlib_module_names - {"affinitynet", *PARTS}:
        # An extra that is not installed here has the name of its module.
        names = {name.lower().replace("_", "-") for name in known.get(module, [module])}
        assert names & declared, f"{module} is in no dependency"


def imported() -> set[str]:
    """The outermost names of all packages that the source imports, anywhere in a file."""
    found = set()
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower()


@pytest.mark.parametrize("requirement", [*PROJECT["dependencies"], *EXTRAS["caffe"]])
def test_a_dependency_has_a_lower_bound_and_a_tested_version(requirement: str) -> None:
    assert re.match(r"[\w-]+>=\d", requirement)
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().replace("_", "-")
    assert re.search(rf"^{name_of(requirement)}==\d", pinned, re.MULTILINE)


def test_every_file_beside_the_code_is_package_data() -> None:
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["affinitynet"]
    carried = {file for pattern in patterns for file in PACKAGE.glob(pattern)}
    files = {file for file in PACKAGE.rglob("*") if file.is_file()}
    code = {file for file in files if file.suffix == ".py" or "__pycache__" in file.parts}
    assert carried == files - code
    kinds = {file.suffix for file in carried}
    assert {".yaml", ".html", ".css"} <= kinds


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert affinitynet.__version__ == PROJECT["version"] == citation["version"]


def test_extras_that_messages_and_documents_name_exist() -> None:
    texts = [*sources(), *ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
    named = set()
    for file in texts:
        text = file.read_text(encoding="utf-8")
        for extras in re.findall(r"""(?:affinitynet|["' ]\.)\[([\w, -]+)\]""", text):
            named |= {extra.strip() for extra in extras.split(",")}
    assert {"benchmark", "caffe"} <= named <= set(EXTRAS)
