"""The documents as a site: what it lists is there, and what there is, it lists."""

import importlib
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

import affinitynet as an
from affinitynet import ops
from affinitynet.cli import COMMANDS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def pages(nav: Any) -> list[str]:
    """The files of a navigation, however deep."""
    if isinstance(nav, str):
        return [nav]
    return [
        page for part in (nav.values() if isinstance(nav, dict) else nav) for page in pages(part)
    ]


def test_the_site_has_every_document() -> None:
    assert sorted(pages(SITE["nav"])) == sorted(file.name for file in DOCS.glob("*.md"))


def test_the_site_loads_nothing_from_elsewhere() -> None:
    assert SITE["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css", "repo_url"} & SITE.keys()


def test_the_page_of_settings_is_as_its_script_writes_it() -> None:
    made = runpy.run_path(str(ROOT / ".ci" / "settings_page.py"))["page"]()
    said = "python .ci/settings_page.py"
    assert (DOCS / "settings.md").read_text(encoding="utf-8") == made, said


def described() -> list[str]:
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


def test_what_is_described_exists() -> None:
    for name in described():
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_all_that_is_public_is_described() -> None:
    names = {name.rpartition(".")[2] for name in described()}
    results = {"AffinityLoss", "PairTargets"}  # what functions return
    assert set(an.__all__) - {"ops", "UserError"} <= names
    assert set(ops.__all__) - results <= names


def test_each_command_is_a_function() -> None:
    text = (DOCS / "python.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)[^|]*` \| (.*) \|$", text, re.MULTILINE))
    assert rows.keys() == COMMANDS.keys()
    for command, said in rows.items():
        found = re.findall(r"\ban\.(\w+)", said)
        assert found, command
        assert set(found) <= set(an.__all__), command


@pytest.mark.parametrize("name", an.__all__)
def test_no_name_is_that_of_a_package(name: str) -> None:
    """Importing the package would replace what has its name."""
    if name != "ops":
        assert not (Path(an.__file__).parent / name).is_dir()
        assert callable(getattr(an, name))
