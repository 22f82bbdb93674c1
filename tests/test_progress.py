"""Messages are records of one logger; who shows them is the caller's choice."""

import logging
from collections.abc import Iterator

import pytest

from affinitynet import progress
from affinitynet.progress import detail, messages_at, say, task, warn

LOGGER = logging.getLogger("affinitynet")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The logger as a program finds it."""
    before = LOGGER.handlers, LOGGER.level, LOGGER.propagate
    LOGGER.handlers, LOGGER.propagate = [], True
    LOGGER.setLevel(logging.NOTSET)
    yield
    LOGGER.handlers, _, LOGGER.propagate = before
    LOGGER.setLevel(before[1])


def all_levels() -> None:
    say("status")
    warn("trap")
    detail("version")


def test_a_library_shows_status_lines_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    all_levels()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "status\nwarning: trap\n")


def test_a_program_that_sets_a_level_has_the_records(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    LOGGER.setLevel("WARNING")
    all_levels()
    assert capsys.readouterr().err == ""
    assert caplog.record_tuples == [("affinitynet", logging.WARNING, "trap")]


def test_a_program_with_a_handler_has_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    LOGGER.setLevel("DEBUG")
    all_levels()
    assert capsys.readouterr().err == ""
    assert [record.getMessage() for record in records] == ["status", "trap", "version"]


def test_levels_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with messages_at(logging.WARNING):
        all_levels()
    assert capsys.readouterr().err == "warning: trap\n"
    with messages_at(logging.DEBUG):
        all_levels()
    lines = [line.split(" s  ") for line in capsys.readouterr().err.splitlines()]
    assert [text for _, text in lines] == ["status", "warning: trap", "version"]
    assert all(float(seconds) >= 0 for seconds, _ in lines)
    assert (LOGGER.handlers, LOGGER.level, LOGGER.propagate) == ([], logging.NOTSET, True)


def test_a_detail_is_made_only_if_it_is_shown() -> None:
    with messages_at(logging.INFO):
        detail(lambda: pytest.fail("made for nobody"))


def test_a_short_task_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with messages_at(logging.INFO), task("cams", 2) as running:
        running.advance()
        running.advance()
    assert capsys.readouterr().err == ""


def test_plain_lines_of_a_task(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    for level in (logging.INFO, logging.WARNING):
        with messages_at(level), task("cams", 4) as running:
            for _ in range(4):
                running.advance()
        said = capsys.readouterr().err.splitlines()
        assert bool(said) == (level == logging.INFO)
        assert all(line.startswith("cams: ") for line in said)
