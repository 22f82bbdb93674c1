"""The figures of a run as a table for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from affinitynet.report.figures import Figure, read_figure, read_figures


def print_figures(classes: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print figures as `stages.evaluate` makes them: the table, then each class's IoU.

    classes: names, background first, as in a row's ``iou``.
    """
    figures = [read_figure(row) for row in rows]
    console = Console()
    console.print(make_table(figures))
    measured = [figure for figure in figures if figure.measures_classes]
    if measured:
        console.print()
        console.print(_class_table(classes, measured))


def figures_table(run_folder: Path) -> Table:
    """Make the table of a run's ``evaluation/figures.json``; print it with rich.

    Raises:
        UserError: the file is not JSON.
    """
    return make_table(read_figures(Path(run_folder)).figures)


def make_table(figures: Sequence[Figure]) -> Table:
    """Make a table of figures, one row each, scores in percent.

    "truth" beside a threshold says that ground truth chose it, which makes the figure an upper
    bound. Fits 80 columns while stage and split names stay below 15 letters. Without figures the
    table has no rows, and its caption says so.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for name in ("stage", "split"):
        table.add_column(name, overflow="fold")
    table.add_column("images", justify="right")
    for name in ("tags", "CRF", "TTA"):
        table.add_column(name)
    table.add_column("threshold")
    for name in ("mIoU", "prec.", "cover"):
        table.add_column(name, justify="right")
    for figure in figures:
        table.add_row(
            # Text, because names may hold brackets, which rich would read as markup.
            Text(figure.stage.replace("_", " ")),
            Text(figure.split),
            "" if figure.images is None else str(figure.images),
            yes_no(figure.tags_given),
            yes_no(figure.crf),
            "" if figure.tta in (None, "unknown") else yes_no(figure.tta != "none"),
            _threshold(figure),
            percent(figure.miou),
            percent(figure.precision),
            percent(figure.coverage),
        )
    if not figures:
        table.caption = "No figures yet: nothing was evaluated against ground truth."
    elif any(figure.ground_truth_chose for figure in figures):
        table.caption = "truth: ground truth chose the setting, so the figure is an upper bound"
    return table


def _class_table(classes: Sequence[str], figures: Sequence[Figure]) -> Table:
    """IoU in percent: a row a class, a column a figure."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("IoU", overflow="fold")
    for figure in figures:
        title = f"{figure.stage.replace('_', ' ')}\n{figure.split}\n{_threshold(figure)}"
        table.add_column(Text(title.rstrip()), justify="right")
    for number, name in enumerate(classes):
        values = (f.iou[number] if number < len(f.iou) else None for f in figures)
        table.add_row(Text(name), *(percent(value) for value in values))
    return table


def _threshold(figure: Figure) -> str:
    value = "" if figure.threshold is None else f"{figure.threshold:.2f}"
    return f"{value} truth".strip() if figure.ground_truth_chose else value


def percent(value: float | None) -> str:
    """Show 0.4812 as 48.1, and nothing for None."""
    return "" if value is None else f"{100 * value:.1f}"


def yes_no(value: bool | None) -> str:
    """Show a flag in words, and nothing for None."""
    return "" if value is None else ("yes" if value else "no")
