"""`affinitynet init`: a recipe for a data set."""

from pathlib import Path
from typing import Literal, get_args

from affinitynet.command_line.parser import argument, choice

Layout = Literal["auto", "voc", "table", "folder", "coco", "labelstudio", "cvat", "mvtec"]
Tags = Literal["auto", "table", "annotations", "masks"]

INIT = (
    argument("data", "folder of the data set, or the file that lists its tags"),
    argument("--out", "new file (default: recipe.yaml)", default=Path("recipe.yaml")),
    choice("--format", "its layout", get_args(Layout)),
    choice("--tags", "where tags come from, if there are several sources", get_args(Tags)),
)


def init(data: Path, out: Path, format: Layout, tags: Tags) -> None:
    """Write a commented recipe that is made for a data set.

    It is own_images with every choice made from the data, and the reason beside it. Edit it, and
    give it to affinitynet run.
    """
    from affinitynet.data.new_recipe import write_recipe

    print(write_recipe(data, out, format=format, tags=tags))
