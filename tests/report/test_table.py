"""The terminal's table says each figure with its conditions."""

import subprocess
import sys

from rich.console import Console

from affinitynet.report import print_figures
from affinitynet.report.figures import read_figures
from affinitynet.report.table import make_table


def table_of(run):
    return make_table(read_figures(run).figures)


def printed(table, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_rows_with_their_conditions(builder):
    builder.everything()
    lines = printed(table_of(builder.run))
    said = [" ".join(line.split()) for line in lines]
    assert said[:5] == [
        "stage split images tags CRF TTA threshold mIoU prec. cover",
        "cam train 8 yes no yes 0.21 truth 50.0",
        "confident train 8 yes no no 91.0 47.0",
        "pseudo train 8 yes yes no 62.5",
        "segmenter val 8 no no no 55.0",
    ]
    caption = "truth: ground truth chose the setting, so the figure is an upper bound"
    assert " ".join(said[5:]) == caption


def test_real_names_fit_eighty_columns(builder):
    row = {"stage": "segmenter", "split": "train_precise", "images": 10582, "tags_given": True}
    row |= {"crf": True, "tta": "flip", "threshold": 0.25, "ground_truth_chose": "threshold"}
    row |= {"miou": 1.0, "precision": 1.0, "coverage": 1.0}
    builder.write("evaluation/figures.json", {"figures": [row]})
    assert len(printed(table_of(builder.run))) == 3


def test_no_figures_yet(builder):
    assert "No figures yet" in " ".join(printed(table_of(builder.run)))


def test_names_in_brackets_are_no_markup(builder):
    builder.write("evaluation/figures.json", {"figures": [{"stage": "a", "split": "[red]x[/]"}]})
    assert "[red]x[/]" in printed(table_of(builder.run))[1]


def test_classes_follow_the_figures(capsys):
    row = {"stage": "pseudo", "split": "val", "miou": 0.5, "iou": [0.75, 0.25, None]}
    unmeasured = {"stage": "confident", "iou": [None, None, None]}
    print_figures(("background", "cat", "dog [b]"), [row, unmeasured])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["background", "75.0"] in lines
    assert ["cat", "25.0"] in lines
    assert ["dog", "[b]"] in lines


def test_classes_stand_under_the_figures_conditions(capsys):
    """Each column of the class table says as much of its figure as the row of the table above."""
    chosen = {"threshold": 0.21, "ground_truth_chose": "background threshold", "tta": "flip"}
    cam = {"stage": "cam", "split": "train", "tags_given": True, "crf": False, "iou": [0.5]}
    unseen = {"stage": "segmenter", "split": "val", "tags_given": False, "crf": True}
    print_figures(("background",), [cam | chosen, unseen | {"tta": "none", "iou": [0.6]}])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[-7:] == [
        ["cam", "segmenter"],
        ["IoU", "train", "val"],
        ["tags", "yes", "no"],
        ["CRF", "no", "yes"],
        ["TTA", "yes", "no"],
        ["threshold", "0.21", "truth"],
        ["background", "50.0", "60.0"],
    ]


def test_no_torch_is_imported():
    code = "import sys, affinitynet.report, affinitynet.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
