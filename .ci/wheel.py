"""Build the wheel, install it beside no source tree, and use it as a user would.

    python .ci/wheel.py

The wheel alone goes into a temporary folder, which comes before the environment's own packages in
the search path: the dependencies are the environment's, the package is the wheel's. Needs the
extra `dev`. Takes about a minute, most of it a run of the tests' tiny recipe.
"""

import ast
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "affinitynet"
WHERE = "import affinitynet; print(affinitynet.__file__)"
MAKE_TOY = (
    "from pathlib import Path; from affinitynet.data.toy import make_toy; "
    "make_toy(Path('toy'), train=9, val=3, size=64)"
)


def main() -> None:
    """Build, look into the wheel, install it, run its commands; an error ends it."""
    with tempfile.TemporaryDirectory(prefix="affinitynet-", ignore_cleanup_errors=True) as folder:
        place = Path(folder).resolve()  # macOS's temporary folder is a link
        wheel = build(place / "dist")
        check_content(wheel)
        site, work = place / "site", place / "work"
        work.mkdir()
        python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel))
        use(site, work)
    print(f"wheel: {wheel.name} is complete and works without the source tree")


def build(folder: Path) -> Path:
    """Make the sdist, and the wheel from it, which shows that the sdist is complete."""
    python("-m", "build", "--outdir", str(folder), str(ROOT))
    files = sorted(folder.iterdir())
    python("-m", "twine", "check", "--strict", *map(str, files))
    (wheel,) = (file for file in files if file.suffix == ".whl")
    return wheel


def check_content(wheel: Path) -> None:
    """Refuse a wheel that lacks a file of the package, or holds one from elsewhere."""
    here = {
        f"affinitynet/{file.relative_to(PACKAGE).as_posix()}"
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if ".dist-info/" not in name}
    if here != there:
        sys.exit(f"{wheel.name}: lacks {sorted(here - there)}, and has {sorted(there - here)}")


def use(site: Path, work: Path) -> None:
    """Run the commands of the README on a toy data set, in a folder without the source tree."""
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONIOENCODING": "utf-8"}
    (work / "tiny.yaml").write_text(tiny_recipe(), encoding="utf-8")
    found = Path(python("-c", WHERE, env=environment, cwd=work).strip())
    if not found.is_relative_to(site):
        sys.exit(f"the package was imported from {found}, not from the wheel")
    python("-c", MAKE_TOY, env=environment, cwd=work)
    name = "affinitynet.exe" if os.name == "nt" else "affinitynet"
    (script,) = (file for file in site.glob(f"*/{name}") if file.is_file())
    call([str(script), "--help"], env=environment, cwd=work)
    for line in (
        "settings",
        "check toy",
        "run tiny.yaml --data toy --out run",
        "status run",
        "report run",
        "export run --out voc",
        "predict run toy/images --out masks",
    ):
        said = python("-m", "affinitynet", *line.split(), env=environment, cwd=work)
        print(f"wheel: affinitynet {line}: {len(said.splitlines())} lines", flush=True)
    masks = len(list((work / "masks").glob("*.png")))
    if masks != 12:
        sys.exit(f"predict wrote {masks} masks of 12 images")


def tiny_recipe() -> str:
    """Return the tests' quick recipe, read without importing the tests."""
    tree = ast.parse((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "TINY":
            return str(ast.literal_eval(node.value))
    sys.exit("tests/conftest.py: has no recipe TINY")


def python(*arguments: str, **options: object) -> str:
    """Run Python with arguments, and return what it printed."""
    return call([sys.executable, *arguments], **options)


def call(command: list[str], **options: object) -> str:
    """Run a command, and return what it printed; where it fails, show that and stop."""
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", errors="replace", **options
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
