"""Print the lower bounds of pyproject.toml as pip's constraints, `name==version` each.

    python .ci/lowest.py > lowest.txt
    pip install --constraint lowest.txt --editable ".[dev]"

So the versions that are tested as the lowest are those that the package promises.
"""

import re
import tomllib
from pathlib import Path

# The linters and what builds the wheel say nothing of the package: any version will do.
TOOLS = ("ruff", "mypy", "build", "twine")


def main() -> None:
    """Read the dependencies with those of all extras, and print a line each."""
    file = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    groups = (project["dependencies"], *project["optional-dependencies"].values())
    for requirement in (requirement for group in groups for requirement in group):
        bound = re.match(r"([\w.-]+)>=([\w.]+)", requirement)
        if bound and bound[1] not in TOOLS:
            print(f"{bound[1]}=={bound[2]}")


if __name__ == "__main__":
    main()
