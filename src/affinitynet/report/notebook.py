"""A run as a notebook shows it: its stages, its figures, and which masks to look at first."""

from collections.abc import Sequence
from html import escape

from affinitynet.data.trust import read_trust
from affinitynet.report.figures import read_figures
from affinitynet.report.table import percent
from affinitynet.run_folder.freshness import StageStatus
from affinitynet.run_folder.recipe import Recipe

LEAST_TRUSTED = 5  # images


def show_run(recipe: Recipe, states: Sequence[StageStatus]) -> str:
    """Return a piece of HTML that needs no style of its own.

    Raises:
        UserError: a record of the run is damaged.
    """
    parts = [f"<b>{escape(recipe.name)}</b> <code>{escape(str(recipe.out))}</code>"]
    trust = read_trust(recipe)
    if trust:
        rows = zip(trust["image"], trust["trust"], strict=True)
        cells = [(name, f"{value:.2f}") for name, value in list(rows)[:LEAST_TRUSTED]]
        parts.append(_table(("least trusted", "trust"), cells))
    sheet = read_figures(recipe.out)
    measured = [figure for figure in sheet.figures if figure.miou is not None]
    if measured:
        chose = [figure.ground_truth_chose or "" for figure in measured]
        cells3 = [
            (figure.stage, figure.split, percent(figure.miou), said and f"truth chose the {said}")
            for figure, said in zip(measured, chose, strict=True)
        ]
        parts.append(_table(("masks", "split", "mIoU", ""), cells3))
    stages = [(state.name, str(state)) for state in states]
    parts.append(_table(("stage", "state"), stages))
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)

    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f"<table><thead><tr>{line(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"
