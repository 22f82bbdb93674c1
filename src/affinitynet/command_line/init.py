"""`affinitynet init`: a recipe for a data set; and what `check` shares with it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from affinitynet.command_line.parser import argument, choice
from affinitynet.errors import UserError

if TYPE_CHECKING:
    from affinitynet.data import Manifest

Layout = Literal["auto", "voc", "table", "folder", "coco", "labelstudio", "cvat", "mvtec"]
Tags = Literal["auto", "table", "annotations", "masks"]


def _page(word: str) -> int:
    """Read the value of --page.

    Raises:
        UserError: a number below 0.
        ValueError: no number.
    """
    if (page := int(word)) < 0:
        raise UserError(f"--page {word}: must be at least 0")
    return page


# By the name of its kind argparse says what is no number.
_page.__name__ = "int"
PAGE = argument("--page", "which page of TIFFs of several, from 0 (dataset.page)", _page)
IMAGES = argument("--images", "URL below which a table's images lie (dataset.images)", str)
INIT = (
    argument("data", "folder of the data set, or the file that lists its tags"),
    argument("--out", "new file (default: recipe.yaml)", default=Path("recipe.yaml")),
    choice("--format", "its layout", get_args(Layout)),
    choice("--tags", "where tags come from, if there are several sources", get_args(Tags)),
    PAGE,
)


def init(data: Path, out: Path, format: Layout, tags: Tags, page: int | None) -> None:
    """Write a commented recipe that is made for a data set.

    It is own_images with every choice made from the data, and the reason beside it. Edit it, and
    give it to affinitynet run.
    """
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    from affinitynet.data.new_recipe import write_recipe

    print(write_recipe(data, out, format=format, tags=tags, page=page))


def read_or_say(
    data: Path,
    format: Layout,
    tags: Tags,
    images: str | None,
    say: Callable[[dict[str, Any]], None] | None,
) -> "Manifest":
    """Read a data set; where that fails, `say` first what is to fix, as plain data.

    Raises:
        UserError: it can't be read.
    """
    from affinitynet.data import read_dataset

    try:
        return read_dataset(data, format=format, tags=tags, images=images)
    except UserError as error:
        if say is not None:
            say({"ready": False, "to_fix": [str(error)]})
        raise
