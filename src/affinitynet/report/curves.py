"""Learning curves of a run's trainings, drawn from `history.csv`."""

from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup, escape

from affinitynet.run_folder.history import read_histories
from affinitynet.run_folder.tables import Table

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 420, 200, 44, 10, 24
OTHER = ("step", "epoch", "learning_rate")  # columns that are no loss


class LearningCurve(NamedTuple):
    """One training: its name, an SVG of its losses, their names, and what they came to."""

    name: str
    svg: Markup
    losses: tuple[str, ...]
    words: str


def learning_curves(run_folder: Path) -> list[LearningCurve]:
    """Draw each training that has a history with at least two rows."""
    histories = read_histories(run_folder).items()
    drawn = (_draw(name, table) for name, table in histories)
    return [curve for curve in drawn if curve is not None]


def _draw(name: str, table: Table) -> LearningCurve | None:
    losses = tuple(column for column in table if column not in OTHER)
    steps = table.get("step", [])
    numbers = [v for loss in losses for v in table[loss] if v is not None]
    if len(steps) < 2 or not numbers:
        return None
    top = max(numbers) or 1.0

    def point(step: Any, value: Any) -> str:
        x = LEFT + (step - steps[0]) / max(1, steps[-1] - steps[0]) * (WIDTH - LEFT - 8)
        return f"{x:.1f} {TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM):.1f}"

    shapes = []
    for number, loss in enumerate(losses):
        points = [point(s, v) for s, v in zip(steps, table[loss], strict=True) if v is not None]
        shapes.append(f'<path class="loss l{number % 4}" d="M{"L".join(points)}"/>')
    foot = HEIGHT - BOTTOM
    shapes.append(f'<path class="frame" d="M{LEFT} {TOP}V{foot}H{WIDTH - 8}"/>')
    for y, said in ((TOP + 8, f"{top:.3g}"), (foot, "0")):
        shapes.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end">{said}</text>')
    shapes.append(
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">step {steps[-1]}</text>'
    )
    first, last = (table[losses[0]][place] for place in (0, -1))
    words = f"{losses[0]} from {first:.3g} to {last:.3g} in {steps[-1]} steps"
    head = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(f"{name}: {words}")}">'
    )
    return LearningCurve(name, Markup(head + "".join(shapes) + "</svg>"), losses, words)
