"""`affinitynet correct`: masks that people drew in other programs, as a run's corrections."""

from pathlib import Path
from typing import Literal, get_args

from affinitynet.command_line.parser import argument, choice, switch

# Written out, as the readers take a while to import.
Format = Literal["auto", "png", "coco", "cvat", "labelstudio", "labelme"]
Rest = Literal["background", "keep"]

CORRECT = (
    argument("run", "run folder"),
    argument("source", "folder of PNGs or of LabelMe's files, or a file (PNG, JSON, XML)"),
    choice("--format", "what wrote it", get_args(Format)),
    choice("--rest", "pixels outside of all regions; keep: not corrected", get_args(Rest)),
    switch("--replace", "overwrite corrections that are there already"),
)


def correct(run: Path, source: Path, format: Format, rest: Rest, replace: bool) -> None:
    """Bring in masks drawn in other programs, as corrections.

    They win over the run's own masks in the training of the segmenter, the final masks, exports and
    the report. Nothing is written unless everything can be read.
    """
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    from affinitynet.data.drawn import import_corrections
    from affinitynet.run_folder.folder import RECIPE
    from affinitynet.run_folder.recipe import Recipe
    from affinitynet.run_folder.rounds import rounds_of

    ids = import_corrections(run, source, format=format, rest=rest, replace=replace)
    print(f"{len(ids)} image{'s' * (len(ids) != 1)} corrected in {run}")
    # Of masks alone, without a recipe, and of networks of another run nothing is trained here.
    recipe = Recipe.load(run / RECIPE, out=run) if (run / RECIPE).is_file() else None
    if recipe is not None and recipe.networks.run is None:
        first = rounds_of(recipe)[0].stage("train_segmenter")
        print(f"to train with them: affinitynet run {run / RECIPE} --redo {first}")
