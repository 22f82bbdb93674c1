"""The run folder: whole files or none, one writer, stable fingerprints."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from affinitynet.errors import UserError
from affinitynet.run_folder.folder import (
    _HOST,
    _NAME,
    atomic_write,
    fingerprint,
    is_temporary,
    locked,
    read_json,
    remove_leftovers,
    write_json,
)
from affinitynet.run_folder.records import (
    SHARD_IMAGES,
    Plan,
    Record,
    StageFolder,
    shards_of,
)
from affinitynet.run_folder.replacing import forget, set_aside


def ended_process() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


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
    with pytest.raises(UserError, match=r"a\.txt: can't be written"), atomic_write(file):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert file.read_text() == "old"


def test_a_full_disk_is_found_behind_the_writers_own_error(tmp_path: Path) -> None:
    """As torch does: its archive's destructor fails while the system's error is on its way."""

    def write_as_torch(file: Path) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 640 vs 598")

    with (
        pytest.raises(UserError, match=r"a\.pt: can't be written \(No space left"),
        atomic_write(tmp_path / "a.pt") as temporary,
    ):
        write_as_torch(temporary)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_made_is_a_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="can't be written"),
        atomic_write(tmp_path / "file" / "a.txt"),
    ):
        pass


def test_names_may_be_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    write_json(tmp_path / ("x" * 250 + ".json"), 1)
    with pytest.raises(UserError, match="can't be written \\(File name too long"):
        write_json(tmp_path / ("x" * 251 + ".json"), 1)


def test_files_have_the_usual_rights_and_are_on_the_disk_before_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []
    file = tmp_path / "a.json"
    monkeypatch.setattr(os, "fsync", lambda handle: there.append(file.exists()))
    write_json(file, 1)
    assert there == [False, True]  # the content, then the folder that holds the name
    (tmp_path / "usual").touch()
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    dead, lives = f".{_HOST}-{ended_process()}-0123abcd", f".{_HOST}-{os.getppid()}-0123abcd"
    kept = ["recipe.yaml", "cams/.a.png", "cams/deep/b.png", f"other/{dead}-3.part.png", ".lock"]
    kept += [f"cams/{lives}-3.part.png", "cams/.0a1b2c0a1b2c-1-0123abcd-3.part.png"]
    kept += [".cams.discarded/stage.json"]  # its replacement is not complete
    gone = [f"{dead}-0.part.json", f"cams/deep/{dead}-31.part.npz"]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, ("cams", "walk"))
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(kept)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for what Linux calls a zombie")
def test_leftovers_of_a_process_nobody_asked_for_are_removed(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    file = tmp_path / f".{_HOST}-{killed.pid}-0123abcd-0.part.png"
    file.touch()
    remove_leftovers(tmp_path, ())
    assert file.exists()
    killed.kill()
    os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and keeps its number
    remove_leftovers(tmp_path, ())
    assert not file.exists()
    killed.communicate()


def test_no_two_processes_of_one_number_write_one_file(tmp_path: Path) -> None:
    """As the first process of each container, where the containers have one host name."""
    code = (
        "import os, sys; os.getpid = lambda: 1\n"
        "from pathlib import Path; from affinitynet.run_folder.folder import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as temporary:\n"
        "    temporary.touch(); print(temporary.name)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    names = {subprocess.check_output(command, text=True) for _ in range(2)}
    assert len(names) == 2
    assert all(is_temporary(name) for name in names)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_process_writes_no_file_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)

    def name() -> str:
        with atomic_write(tmp_path / "a.png") as temporary:
            temporary.touch()
        return temporary.name

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if child == 0:
        (tmp_path / "child").write_text(name())
        os._exit(0)
    os.waitpid(child, 0)
    assert name() != (tmp_path / "child").read_text()


@pytest.mark.parametrize(
    ("name", "hours", "stays"),
    [
        ("{host}-{dead}-0123abcd", 0, False),
        ("{host}-{self}-0123abcd", 0, False),  # of one that had this process's number before
        # Of another container or clone, which may work on it; of before a restart, if nobody does.
        ("{name}0a1b2c-{dead}-0123abcd", 23, True),
        ("{name}0a1b2c-{dead}-0123abcd", 25, False),
        ("{name}-{dead}", 23, True),  # as named before
        ("{name}-{dead}", 25, False),
        ("0a1b2c0a1b2c-{dead}-0123abcd", 9999, True),
    ],
)
def test_whose_a_leftover_may_be_decides_whether_it_is_deleted(
    tmp_path: Path, name: str, hours: int, stays: bool
) -> None:
    given = name.format(host=_HOST, name=_NAME, dead=ended_process(), self=os.getpid())
    file = tmp_path / f".{given}-0.part.png"
    file.touch()
    os.utime(file, (time.time() - 3600 * hours,) * 2)
    assert is_temporary(file.name)
    remove_leftovers(tmp_path, ())
    assert file.exists() == stays


def test_what_this_process_writes_stays(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.png") as temporary:
        temporary.touch()
        remove_leftovers(tmp_path, ())
        assert temporary.exists()


def test_a_namespace_of_process_numbers_keeps_its_files(tmp_path: Path) -> None:
    """A container's process has no number here, and lives."""
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("makes no namespaces")
    code = (
        "import os, sys; os.getpid = lambda: int(sys.argv[2])\n"
        "from pathlib import Path; from affinitynet.run_folder.folder import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('whole'); print(flush=True); input()"
    )
    command = [*apart, sys.executable, "-c", code, str(tmp_path / "a.png"), str(ended_process())]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        remove_leftovers(tmp_path, ())
        writer.communicate("\n")
    assert (tmp_path / "a.png").read_text() == "whole"


def test_a_folder_waits_beside_its_replacement_until_that_is_complete(tmp_path: Path) -> None:
    folder, waits = tmp_path / "cams", tmp_path / ".cams.discarded"
    set_aside(folder)  # what is not there needs no moving
    for number in (1, 2):
        write_json(folder / "stage.json", number)
        set_aside(folder)
        assert not folder.exists()
        assert read_json(waits / "stage.json") == number
    write_json(folder / "plan.json", 3)  # half done, and to be done anew: the whole one stays
    set_aside(folder, whole=False)
    assert not folder.exists()
    assert read_json(waits / "stage.json") == 2
    forget(folder)
    assert list(tmp_path.iterdir()) == []
    forget(folder)


def test_fingerprints_depend_on_content_not_on_key_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint({"a": 1}) == "015abd7f5cc57a2d"  # pinned: folders outlive versions


def test_stage_folder_goes_from_nothing_to_plan_to_record(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path / "cams", "compute_cams")
    assert folder.plan() is None
    assert folder.record() is None
    plan = Plan(fingerprint="abc", settings={"cams.flip": True})
    folder.start(plan)
    assert folder.plan() == plan
    assert not folder.holds_results()
    record = Record(
        stage="compute_cams", fingerprint="abc", settings={"cams.flip": True}, counts={"done": 3}
    )
    folder.finish(record)
    assert folder.record() == record
    assert folder.holds_results()


@pytest.mark.parametrize("text", ["{}", "[1]", "7", '{"stage": "x"}', "{"])
def test_a_record_with_other_content_is_a_users_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "stage.json").write_text(text)
    with pytest.raises(UserError, match=r"stage\.json: .*--redo compute_cams"):
        StageFolder(tmp_path, "compute_cams").record()


@pytest.mark.parametrize("text", ["{}", "[1]", '{"fingerprint": "x", "settings": 3}', "{"])
def test_a_plan_with_other_content_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    assert StageFolder(tmp_path, "compute_cams").plan() is None


def test_what_a_newer_version_adds_to_a_record_is_left_aside(tmp_path: Path) -> None:
    folder = StageFolder(tmp_path, "x")
    write_json(tmp_path / "stage.json", {"stage": "x", "fingerprint": "y", "settings": {}, "z": 1})
    assert folder.record() == Record(stage="x", fingerprint="y", settings={})


def test_images_are_recorded_by_runs_of_consecutive_ones(tmp_path: Path) -> None:
    ids = [f"{number:03d}" for number in range(2 * SHARD_IMAGES + 1)]
    shards = shards_of(ids)
    assert [len(shard) for shard in shards] == [SHARD_IMAGES, SHARD_IMAGES, 1]
    assert [name for shard in shards for name in shard] == ids
    folder = StageFolder(tmp_path / "cams", "compute_cams")
    folder.finish_shard(1, shards[1])
    assert [folder.has_shard(n, shard) for n, shard in enumerate(shards)] == [False, True, False]
    assert not folder.has_shard(1, shards[0])  # of other images
    (tmp_path / "cams" / "shards" / "000001.json").write_text("{")
    assert not folder.has_shard(1, shards[1])


def test_a_lock_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    elsewhere.write_text("kept")
    (run / ".lock").symlink_to(elsewhere)
    with pytest.raises(UserError, match="symbolic link"), locked(run):
        pass
    assert elsewhere.read_text() == "kept"


def test_damaged_json_is_a_users_error(tmp_path: Path) -> None:
    file = tmp_path / "stage.json"
    write_json(file, [1])
    file.write_text("{")
    with pytest.raises(UserError, match=r"stage\.json: not valid JSON"):
        read_json(file)


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from affinitynet.run_folder.folder import locked\n"
        "with locked(Path(sys.argv[1])): pass"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with locked(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "another run is working here" in second.stderr
    assert subprocess.run(command, check=False).returncode == 0
