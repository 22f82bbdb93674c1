"""The figures of a run as a table for the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from affinitynet.progress import make_console
from affinitynet.report.figures import Figure, read_figure

CONDITIONS = ("tags", "CRF", "TTA", "threshold")
TRUTH_CHOSE = "truth: ground truth chose the setting, so the figure is an upper bound"


def print_figures(classes: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Print figures as `stages.evaluate` makes them: the table, then each class's IoU.

    classes: names, background first, as in a row's ``iou``.
    """
    figures = [read_figure(row) for row in rows]
    console = make_console()
    console.print(make_table(figures))
    measured = [figure for figure in figures if figure.measures_classes]
    if measured:
        console.print()
        console.print(_class_table(classes, measured))


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
    for name in CONDITIONS:
        table.add_column(name)
    for name in ("mIoU", "prec.", "cover"):
        table.add_column(name, justify="right")
    for figure in figures:
        table.add_row(
            # Text, because names may hold brackets, which rich would read as markup.
            Text(figure.stage.replace("_", " ")),
            Text(figure.split),
            "" if figure.images is None else str(figure.images),
            *_conditions(figure),
            percent(figure.miou),
            percent(figure.precision),
            percent(figure.coverage),
        )
    if not figures:
        table.caption = "No figures yet: nothing was evaluated against ground truth."
    elif any(figure.ground_truth_chose for figure in figures):
        table.caption = TRUTH_CHOSE
    return table


def _class_table(classes: Sequence[str], figures: Sequence[Figure]) -> Table:
    """IoU in percent: a column a figure, with its conditions above, a row a class."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("IoU", overflow="fold")
    for figure in figures:
        title = f"{figure.stage.replace('_', ' ')}\n{figure.split}"
        table.add_column(Text(title), justify="right")
    # From a row a figure to a row a condition.
    by_condition = zip(*map(_conditions, figures), strict=True)
    for name, values in zip(CONDITIONS, by_condition, strict=True):
        table.add_row(name, *values, style="dim")
    for number, name in enumerate(classes):
        scores = (f.iou[number] if number < len(f.iou) else None for f in figures)
        table.add_row(Text(name), *(percent(score) for score in scores))
    return table


def _conditions(figure: Figure) -> tuple[str, ...]:
    """Say under which conditions a figure was measured, in the order of `CONDITIONS`."""
    return (
        yes_no(figure.tags_given),
        yes_no(figure.crf),
        "" if figure.tta in (None, "unknown") else yes_no(figure.tta != "none"),
        _threshold(figure),
    )


def _threshold(figure: Figure) -> str:
    value = "" if figure.threshold is None else f"{figure.threshold:.2f}"
    return f"{value} truth".strip() if figure.ground_truth_chose else value


def percent(value: float | None) -> str:
    """Show 0.4812 as 48.1, and nothing for None."""
    return "" if value is None else f"{100 * value:.1f}"


def yes_no(value: bool | None) -> str:
    """Show a flag in words, and nothing for None."""
    return "" if value is None else ("yes" if value else "no")
