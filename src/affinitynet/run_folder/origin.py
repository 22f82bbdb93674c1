"""What a run was made from and on: `run.json` in its folder, to make it again elsewhere."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from affinitynet.errors import UserError
from affinitynet.run_folder.folder import read_json, write_json
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.versions import versions

ORIGIN = "run.json"


def write_origin(recipe: Recipe, data: str, processes: int) -> None:
    """Write down recipe, seed, versions, hardware and git revision of a run that has work to do.

    data: fingerprint of the data set. processes: how many work on it, as this one knows.
    """
    write_json(
        recipe.out / ORIGIN,
        {
            "recipe": recipe.model_dump(mode="json"),
            "seed": recipe.seed,
            "data": data,
            "processes": processes,
            "versions": versions(),
            "hardware": hardware(),
            "git": revision(Path(__file__).parent),
        },
    )


def read_origin(root: Path) -> dict[str, Any]:
    """Return what `write_origin` wrote, {} of a run that an earlier version made.

    Raises:
        UserError: the file is damaged.
    """
    file = root / ORIGIN
    if not file.is_file():
        return {}
    found = read_json(file)
    if not isinstance(found, dict):
        raise UserError(f"{file}: not what a run writes; delete it")
    return found


def hardware() -> dict[str, Any]:
    """Return what a result's last bits may depend on: system, processor and its threads."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
    }


def revision(folder: Path) -> str | None:
    """Return the git commit of a folder, with `+changes` if files differ from it; None without."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()

    try:
        # Ignored where it lies in somebody else's repository, as an environment in a project does.
        if not git("ls-files", "--", str(folder / "__init__.py"), str(folder)):
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def differences(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Say in words in which versions and hardware two runs differ."""
    said = []
    for section in ("versions", "hardware"):
        before, after = was.get(section) or {}, now.get(section) or {}
        said += [
            f"{key} was {before.get(key)}, is {after.get(key)}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key)
        ]
    for key in ("git", "processes"):
        if was.get(key) != now.get(key):
            said.append(f"{key} was {was.get(key)}, is {now.get(key)}")
    return said


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
