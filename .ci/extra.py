"""Print the requirements of one extra of pyproject.toml, a line each.

    python .ci/extra.py docs > requirements.txt

So that what needs the extra alone, as the site of the documents does, need not install PyTorch.
"""

import sys
import tomllib
from pathlib import Path


def main(name: str) -> None:
    """Read the extra, and print a line for each of its requirements."""
    file = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
    print(*project["optional-dependencies"][name], sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
