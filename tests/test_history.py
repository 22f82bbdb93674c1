"""The curve of a training: rows, and going on behind a checkpoint."""

from pathlib import Path

from affinitynet.run_folder.history import HISTORY, ROWS, History, read_histories
from affinitynet.run_folder.tables import read_table, table_of, write_table


def train(folder: Path, first: int, last: int, steps: int = 2, total: int = 8) -> None:
    """Epochs first to last - 1, of `steps` steps each; the loss of a step is its number."""
    history = History(folder, first, total)
    for epoch in range(first, last):
        for step in range(epoch * steps, (epoch + 1) * steps):
            history.add(step, epoch, {"loss": step, "dice": 0.5}, 0.1)
        history.end_epoch(step, epoch, 0.1)


def test_a_row_a_step_while_they_are_few(tmp_path: Path) -> None:
    train(tmp_path, 0, 2)
    assert read_table(tmp_path / HISTORY) == {
        "step": [1, 2, 3, 4],
        "epoch": [1, 1, 2, 2],
        "loss": [0, 1, 2, 3],
        "dice": [0.5] * 4,
        "learning_rate": [0.1] * 4,
    }


def test_many_steps_become_means(tmp_path: Path) -> None:
    train(tmp_path, 0, 1, steps=5, total=2 * ROWS)
    table = read_table(tmp_path / HISTORY)
    assert table["step"] == [2, 4, 5]  # the last one ends with the epoch
    assert table["loss"] == [0.5, 2.5, 4]


def test_a_resumed_training_has_the_same_curve(tmp_path: Path) -> None:
    train(tmp_path / "whole", 0, 4)
    train(tmp_path / "cut", 0, 3)
    train(tmp_path / "cut", 2, 4)  # the checkpoint is of the second epoch
    whole, cut = ((tmp_path / name / HISTORY).read_bytes() for name in ("whole", "cut"))
    assert whole == cut


def test_histories_of_a_run(tmp_path: Path) -> None:
    train(tmp_path / "affinity", 0, 1)
    (tmp_path / "segmenter").mkdir()
    (tmp_path / "segmenter" / HISTORY).write_text("step,loss\n1\n")  # a cell is missing
    assert list(read_histories(tmp_path)) == ["affinity"]


def test_tables(tmp_path: Path) -> None:
    table = table_of([{"image": "1", "iou": 0.5}, {"image": "a,b", "n": 3}])
    assert table == {"image": ["1", "a,b"], "iou": [0.5, None], "n": [None, 3]}
    write_table(tmp_path / "t.csv", table)
    assert read_table(tmp_path / "t.csv", text=("image",)) == table
    assert read_table(tmp_path / "none.csv") == {}
