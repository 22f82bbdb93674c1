"""Which of several processes this one is, as launchers and schedulers say it."""

import pytest

from affinitynet.engine.place import (
    ALONE,
    Place,
    here,
    local_count,
    local_number,
    place_of,
    placed,
    read_place,
)
from affinitynet.errors import UserError

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
ARRAY = {
    "SLURM_ARRAY_TASK_ID": "5",
    "SLURM_ARRAY_TASK_COUNT": "4",
    "SLURM_ARRAY_TASK_MIN": "3",
}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, ALONE),
        ({"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, ALONE),
        (TORCHRUN, Place(1, 4, linked=True)),
        ({"RANK": "1", "WORLD_SIZE": "4"}, Place(1, 4)),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "3"}, Place(2, 3)),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, Place(0, 2)),
        (ARRAY, Place(2, 4)),
        ({"RANK": "0"}, ALONE),
        ({"RANK": "", "WORLD_SIZE": ""}, ALONE),
        ({"LOCAL_RANK": "3"}, ALONE),
        ({"SLURM_PROCID": "0"}, ALONE),
        # Numbers of tasks in an array are anything, as seeds are.
        ({"SLURM_ARRAY_TASK_ID": "7"}, ALONE),
        ({"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1"}, ALONE),
        # One task in each job of an array: the array counts.
        (ARRAY | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Place(2, 4)),
        # Started by torchrun in a job of SLURM: the launcher counts, it is nearer.
        (TORCHRUN | {"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, Place(1, 4, linked=True)),
    ],
)
def test_a_place_follows_from_the_environment(environment: dict[str, str], place: Place) -> None:
    assert place_of(environment) == place


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2"},
        {"RANK": "1"},
        {"RANK": "x"},
        {"RANK": "-1"},
        {"RANK": "1", "WORLD_SIZE": ""},
        {"RANK": "1", "WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "x"},
        {"RANK": "0", "WORLD_SIZE": "0"},
        {"RANK": "0", "WORLD_SIZE": "-2"},
        {"RANK": "1", "WORLD_SIZE": "9" * 5000},
        {"OMPI_COMM_WORLD_RANK": "1"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"PMI_RANK": "3", "PMI_SIZE": "2"},
        {"SLURM_PROCID": "1"},
        {"RANK": "2", "WORLD_SIZE": "2"},
        {"RANK": "x", "WORLD_SIZE": "2"},
        {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"},
    ],
)
def test_numbers_that_fit_no_process_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(UserError, match="not the number of a process below their count"):
        place_of(environment)


def test_a_given_shard_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with placed(read_place("2/3")):
        assert here() == Place(2, 3)
    assert here() == Place(1, 4, linked=True)


@pytest.mark.parametrize("text", ["", "1", "3/3", "-1/2", "1/2/3", "a/b"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="give it as i/N"):
        read_place(text)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9" * 5000])
def test_numbers_on_a_machine_that_are_none_are_left_aside(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("SLURM_LOCALID", "2")
    assert local_number() == 2
    assert local_count(4) == 4
