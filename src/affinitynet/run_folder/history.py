"""What a training's losses were on the way: `history.csv` beside its weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from affinitynet.run_folder.artifacts import AFFINITY, CLASSIFIER, EARLIER, SEGMENTER
from affinitynet.run_folder.tables import Table, read_table, table_of, write_table

HISTORY = "history.csv"
ROWS = 200  # about as many as a curve can show
TRAININGS = (CLASSIFIER, AFFINITY, *(each.segmenter for each in EARLIER), SEGMENTER)


class History:
    """The curve of one training; a row is the mean over the steps since the row before.

    Columns: step (how many were done), epoch (from 1), each loss by its name, learning_rate.
    """

    def __init__(self, folder: Path, epochs: int, steps: int) -> None:
        """Go on behind the first `epochs` epochs of a training of so many steps in all."""
        self._file, self._every = folder / HISTORY, max(1, steps // ROWS)
        known = read_table(self._file) if epochs else {}
        # A process that ended between the curve and the checkpoint left rows of an epoch to come.
        rows = (dict(zip(known, cells, strict=True)) for cells in zip(*known.values(), strict=True))
        self._rows: list[dict[str, Any]] = [row for row in rows if row.get("epoch", 0) <= epochs]
        self._open: list[Mapping[str, float]] = []

    def add(self, step: int, epoch: int, losses: Mapping[str, float], rate: float) -> None:
        """Take in the losses of the step with this number, from 0, in this epoch, from 0."""
        self._open.append(losses)
        if len(self._open) == self._every:
            self._close(step, epoch, rate)

    def begun(self, epochs: int) -> dict[str, list[Any]]:
        """Return what the file doesn't hold of an epoch that was begun behind so many."""
        rows = [row for row in self._rows if row["epoch"] > epochs]
        return {"rows": rows, "open": [dict(part) for part in self._open]}

    def go_on(self, begun: Mapping[str, list[Any]]) -> None:
        """Go on in the middle of an epoch, with what `begun` returned."""
        self._rows += begun.get("rows", [])
        self._open = list(begun.get("open", []))

    def end_epoch(self, step: int, epoch: int, rate: float) -> None:
        """Write the curve up to the end of an epoch, whose last step and number are given."""
        if self._open:
            self._close(step, epoch, rate)
        write_table(self._file, table_of(self._rows))

    def _close(self, step: int, epoch: int, rate: float) -> None:
        count = len(self._open)
        means = {name: sum(part[name] for part in self._open) / count for name in self._open[0]}
        rounded = {name: float(f"{value:.5g}") for name, value in means.items()}
        row = {"step": step + 1, "epoch": epoch + 1, **rounded}
        self._rows.append(row | {"learning_rate": float(f"{rate:.5g}")})
        self._open = []


def read_histories(root: Path) -> dict[str, Table]:
    """Return the curves of a run's trainings by their folder's name; those there are."""
    found = {a.folder: read_table(root / a.folder / HISTORY) for a in TRAININGS}
    return {name: table for name, table in found.items() if table}
