"""The run folder: whole files or none, one writer, stable fingerprints."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from affinitynet.errors import UserError
from affinitynet.run_folder import (
    StageFolder,
    StageRecord,
    atomic_write,
    fingerprint,
    locked,
    read_json,
    write_json,
)


def fail_halfway(file: Path) -> None:
    file.write_text("half")
    raise RuntimeError


def test_atomic_write_replaces_only_on_success(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.txt"
    with atomic_write(file) as temporary:
        temporary.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(file) as temporary:
        fail_halfway(temporary)
    assert file.read_text() == "old"
    assert [p.name for p in file.parent.iterdir()] == ["a.txt"]


def test_a_full_disk_is_a_users_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(UserError, match=r"a\.txt: cannot be written"), atomic_write(file):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert file.read_text() == "old"


def test_fingerprints_depend_on_content_not_on_key_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2d"  # pinned: folders outlive versions


def test_stage_folder_goes_from_nothing_to_plan_to_record(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path / "cams")
    assert folder.plan() is None
    assert folder.record() is None
    folder.start("abc", {"cams.flip": True})
    assert folder.plan() == {"fingerprint": "abc", "settings": {"cams.flip": True}}
    record = StageRecord("compute_cams", "abc", {"cams.flip": True}, counts={"done": 3})
    folder.finish(record)
    assert folder.record() == record


def test_damaged_json_is_a_users_error(tmp_path: Path) -> None:
    file = tmp_path / "stage.json"
    write_json(file, [1])
    file.write_text("{")
    with pytest.raises(UserError, match=r"stage\.json: not valid JSON"):
        read_json(file)


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from affinitynet.run_folder import locked\n"
        "with locked(Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with locked(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "another run is working here" in second.stderr
    assert subprocess.run(command, check=False).returncode == 0
