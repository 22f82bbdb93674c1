"""Files of images in tars: the same bytes by the same paths, and nothing lost on the way there."""

import io
import json
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import affinitynet as an
from affinitynet.cli import main
from affinitynet.data import Manifest, load_image
from affinitynet.data.contents import CONTENTS, changed_images, record_images
from affinitynet.engine.place import ALONE
from affinitynet.engine.shards import Claims
from affinitynet.errors import UserError
from affinitynet.export.folders import export_run
from affinitynet.pipeline import Run
from affinitynet.run_folder import records, store
from affinitynet.run_folder.compare import compare_runs
from affinitynet.run_folder.folder import file_name
from affinitynet.run_folder.urls import is_url, read_url, url_of, write_url

NAMES = ["a/1.png", "a/2.b.png", "__c__/Ä%2E.png", f"{'long/' * 30}3.png", "4.png"]


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A stage's folder with a file for four of five images."""
    folder = tmp_path / "run" / "masks"
    for name in NAMES[:4]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def read(file: Path) -> bytes:
    with store.open_file(file) as stream:
        return stream.read()


def loose(folder: Path) -> list[str]:
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*.png") if f.is_file())


def webdataset(tar: Path) -> Iterator[dict[str, Any]]:
    """Read a tar as WebDataset documents it: what a name has before its first dot is the key."""
    sample: dict[str, Any] = {}
    with tarfile.open(tar) as archive:
        for entry in archive:
            if not entry.isreg() or re.match(r"__[^/]*__($|/)", entry.name):
                continue
            found = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", entry.name)
            assert found
            if found[1] != sample.get("__key__"):
                if sample:
                    yield sample
                sample = {"__key__": found[1]}
            stream = archive.extractfile(entry)
            assert stream
            assert found[2] not in sample
            sample[found[2]] = stream.read()
    if sample:
        yield sample


def test_what_is_packed_is_read_by_its_own_path(masks: Path) -> None:
    before = {name: file_name(masks / name) for name in NAMES}
    store.pack(masks, 3, NAMES)
    store.remove_empty(masks)
    assert [file.relative_to(masks).as_posix() for file in masks.rglob("*")] == [
        "shards",
        "shards/000003.tar",
    ]
    for name in NAMES[:4]:
        assert store.is_there(masks / name)
        assert read(masks / name) == name.encode() * 100
        assert store.look(masks / name)[0] == len(name.encode()) * 100
    assert {name: store.content_name(masks / name) for name in NAMES} == before
    assert sorted(store.members(masks)) == sorted(NAMES[:4])
    assert not store.is_there(masks / NAMES[4])
    assert store.look(masks / NAMES[4]) == [-1, -1]
    with pytest.raises(FileNotFoundError):
        read(masks / NAMES[4])
    store.copy_to(masks / NAMES[1], masks / "copy.png")
    assert (masks / "copy.png").read_bytes() == read(masks / NAMES[1])


def test_the_layout_is_webdatasets(masks: Path) -> None:
    store.pack(masks, 0, NAMES)
    samples = list(webdataset(masks / "shards/000000.tar"))
    assert [sample["png"] for sample in samples] == [name.encode() * 100 for name in NAMES[:4]]
    assert [s["__key__"] for s in samples][:2] == ["a/1", "a/2%2Eb"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it closes no file
def test_webdataset_reads_it(masks: Path) -> None:
    wds = pytest.importorskip("webdataset")
    store.pack(masks, 0, NAMES)
    found = wds.WebDataset(str(masks / "shards/000000.tar"), shardshuffle=False, handler=None)
    expected = [(s["__key__"], s["png"]) for s in webdataset(masks / "shards/000000.tar")]
    assert [(sample["__key__"], sample["png"]) for sample in found] == expected


def test_a_file_that_was_made_again_counts_and_replaces_the_member(masks: Path) -> None:
    store.pack(masks, 0, NAMES)
    (masks / NAMES[0]).write_bytes(b"new")
    assert read(masks / NAMES[0]) == b"new"
    store.pack(masks, 0, NAMES)
    assert loose(masks) == []
    assert read(masks / NAMES[0]) == b"new"
    assert read(masks / NAMES[1]) == NAMES[1].encode() * 100


@pytest.mark.parametrize("count", range(6))
def test_a_kill_at_any_step_loses_nothing(
    masks: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the tar has its name, and before each file is deleted; then begun again."""
    left = count

    def stop(really: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **others: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return really(*arguments, **others)

        return step

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stop(Path.replace))
        patched.setattr(Path, "unlink", stop(Path.unlink))
        if count < 6:
            with pytest.raises(KeyboardInterrupt):
                store.pack(masks, 0, NAMES)
    assert [read(masks / name) for name in NAMES[:4]] == [n.encode() * 100 for n in NAMES[:4]]
    store.pack(masks, 0, NAMES)
    assert loose(masks) == []
    once = (masks / "shards/000000.tar").read_bytes()
    for name in NAMES[:4]:
        (masks / name).parent.mkdir(parents=True, exist_ok=True)
        (masks / name).write_bytes(name.encode() * 100)
    (masks / "shards/000000.tar").unlink()
    store.pack(masks, 0, NAMES)
    assert (masks / "shards/000000.tar").read_bytes() == once


def test_links_in_a_tar_and_names_that_lead_out_are_no_files(masks: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (masks / "shards").mkdir()
    with tarfile.open(masks / "shards/000000.tar", "w") as archive:
        link = tarfile.TarInfo("5.png")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.png")
        archive.addfile(link)
        out = tarfile.TarInfo("../../out.png")
        out.size = 3
        archive.addfile(out, io.BytesIO(b"out"))
    assert not store.is_there(masks / "5.png")
    before = sorted(tmp_path.rglob("*"))
    store.pack(masks, 0, NAMES)
    assert set(tmp_path.rglob("*.png")) <= set(before)


def test_no_tar_is_written_through_a_link(masks: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (masks / "shards").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        store.pack(masks, 0, NAMES)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert loose(masks) == sorted(NAMES[:4])


def test_a_damaged_tar_holds_nothing(masks: Path) -> None:
    (masks / "shards").mkdir()
    (masks / "shards/000000.tar").write_bytes(b"no tar" * 1000)
    assert not store.is_there(masks / "4.png")
    assert store.is_there(masks / "a/1.png")
    store.pack(masks, 0, NAMES)
    assert read(masks / "a/1.png") == b"a/1.png" * 100


def test_a_folder_that_was_made_anew_is_looked_at_again(masks: Path) -> None:
    store.pack(masks, 0, NAMES)
    assert store.is_there(masks / NAMES[0])
    masks.rename(masks.with_name(".masks.discarded"))
    assert not store.is_there(masks / NAMES[0])
    masks.mkdir()
    (masks / "4.png").write_bytes(b"4")
    store.pack(masks, 0, NAMES)
    assert [store.is_there(masks / name) for name in NAMES] == [False] * 4 + [True]


def pack_elsewhere(folder: Path) -> None:
    """Pack as another process does: this one is told nothing."""
    twin = folder.parent / "twin" / folder.name
    shutil.copytree(folder, twin)
    store.pack(twin, 0, NAMES)
    (folder / "shards").mkdir(exist_ok=True)
    (twin / "shards/000000.tar").replace(folder / "shards/000000.tar")
    for name in loose(folder):
        (folder / name).unlink()


def test_what_another_process_packed_a_moment_ago_is_read(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SETTLED", 1000.0)
    (masks / "shards").mkdir()
    assert not store.is_there(masks / NAMES[4])
    pack_elsewhere(masks)
    assert read(masks / NAMES[0]) == NAMES[0].encode() * 100


def test_a_shard_that_another_process_packed_a_moment_ago_is_not_made_again(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SETTLED", 1000.0)
    recorded: list[int] = []
    (masks / "shards").mkdir()
    assert not store.is_there(masks / NAMES[4])
    with Claims(
        masks.parent,
        masks.name,
        [range(4)],
        place=ALONE,
        is_there=lambda number: store.is_there(masks / NAMES[number]),
        is_recorded=lambda shard: True,
        record=recorded.append,
    ) as claims:
        pack_elsewhere(masks)
        assert list(claims.take()) == []
    assert recorded == []
    assert not claims.open


def test_looking_at_many_files_lists_a_folder_once(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SETTLED", 1000.0)
    store.pack(masks, 0, NAMES)
    listed, really = [], os.scandir

    def scan(folder: Path) -> Any:
        listed.append(folder)
        return really(folder)

    monkeypatch.setattr(os, "scandir", scan)
    for number in range(64):
        assert not store.is_there(masks / f"{number}.png")
        (masks / "shards" / f"{number:06d}.json").touch()  # the folder changes meanwhile
    assert len(listed) == 1


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server on this machine that speaks as S3 does; skipped where it isn't installed."""
    pytest.importorskip("s3fs")
    servers = pytest.importorskip("moto.server")
    server = servers.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("FSSPEC_S3_ENDPOINT_URL", f"http://{host}:{port}"),
        ("FSSPEC_S3_KEY", "key"),
        ("FSSPEC_S3_SECRET", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    from fsspec.config import conf, set_conf_env

    before = dict(conf)
    set_conf_env(conf)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().makedirs("bucket", exist_ok=True)  # one for all servers of a process
    yield f"s3://bucket/{tmp_path.name}"
    conf.clear()
    conf.update(before)
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place behind a URL of each kind, with nothing in it."""
    pytest.importorskip("fsspec")
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    if request.param == "file":
        return f"file://{tmp_path / 'store'}"
    return f"memory://{tmp_path.name}"


@pytest.fixture
def recipe_of(
    toy: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., an.Recipe]:
    """Make a recipe whose pseudo masks are the toy's ground truth: no network in it."""
    monkeypatch.setattr(records, "SHARD_IMAGES", 4)
    truth = {s.id: s.mask for s in an.data.read_dataset(toy).samples}
    for name, mask in truth.items():
        target = tmp_path / "drawn" / f"{name}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(mask.read_bytes())

    def make(name: str, kind: str) -> an.Recipe:
        settings = {"store": kind, "pseudo.source": f"files:{tmp_path / 'drawn'}"}
        return an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / name, **settings)

    return make


def test_a_stage_leaves_tars_that_are_read_as_its_files(
    recipe_of: Callable[..., an.Recipe], tmp_path: Path
) -> None:
    an.run(recipe_of("files", "files"), until="propagate")
    tars = an.run(recipe_of("tars", "tar"), until="propagate")
    pseudo = tmp_path / "tars" / "pseudo"
    assert len(loose(tmp_path / "files" / "pseudo")) == 9
    assert loose(pseudo) == []
    assert sorted(file.name for file in pseudo.rglob("*.tar")) == [
        f"{number:06d}.tar" for number in range(3)
    ]
    stage = next(stage for stage in tars.stages if stage.name == "propagate")
    (compared,) = compare_runs(tmp_path / "files", tmp_path / "tars", [stage])
    assert (compared.files, compared.differ) == (9, ())
    for verify in (False, True):
        state = next(s for s in tars.status(verify=verify) if s.name == "propagate")
        assert state.finished
    assert (pseudo / CONTENTS).is_file()
    # The setting changes no file, so the run goes on with either.
    an.run(recipe_of("tars", "files"), until="propagate")
    for out in ("files", "tars"):
        export_run(tmp_path / out, tmp_path / f"{out}-png", format="png", stage="pseudo")
    images = sorted((tmp_path / "files-png").rglob("*.png"))
    assert len(images) == 9
    for image in images:
        other = tmp_path / "tars-png" / image.relative_to(tmp_path / "files-png")
        assert other.read_bytes() == image.read_bytes()


def test_a_change_in_a_tar_is_noticed(recipe_of: Callable[..., an.Recipe], tmp_path: Path) -> None:
    an.run(recipe_of("tars", "tar"), until="propagate")
    tar = tmp_path / "tars" / "pseudo" / "shards" / "000001.tar"
    content = bytearray(tar.read_bytes())
    start = content.index(b"IDAT")
    content[start + 6] ^= 1
    tar.write_bytes(content)
    with pytest.raises(UserError, match="changed since propagate made them"):
        an.run(recipe_of("tars", "tar"), until="propagate")
    with pytest.raises(UserError, match="can't be decoded"):
        list(map(load_image, (tar.parents[1] / name for name in store.members(tar.parents[1]))))


def test_a_run_that_was_stopped_while_it_packed_goes_on(
    recipe_of: Callable[..., an.Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an.run(recipe_of("whole", "tar"), until="propagate")
    really, seen = store.pack, 0

    def stop(folder: Path, number: int, names: list[str], url: str) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            with monkeypatch.context() as patched:
                patched.setattr(Path, "unlink", lambda path, **_: _interrupt())
                really(folder, number, names, url)
        really(folder, number, names, url)

    with monkeypatch.context() as patched:
        patched.setattr("affinitynet.stages.images.pack", stop)
        with pytest.raises(KeyboardInterrupt):
            an.run(recipe_of("stopped", "tar"), until="propagate")
    assert loose(tmp_path / "stopped" / "pseudo")
    assert (tmp_path / "stopped/pseudo/shards/000001.tar").is_file()
    run = an.run(recipe_of("stopped", "tar"), until="propagate")
    assert loose(tmp_path / "stopped" / "pseudo") == []
    stage = next(stage for stage in run.stages if stage.name == "propagate")
    (compared,) = compare_runs(tmp_path / "whole", tmp_path / "stopped", [stage])
    assert (compared.files, compared.differ) == (9, ())


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_urls_and_paths_are_told_apart() -> None:
    for text in ("s3://bucket/a/1.jpg", "file:///a/1.jpg", "memory://a/1.jpg", "gs://b/x.png"):
        assert is_url(text)
        assert url_of(Path(text)) == text
        assert url_of(Path(text).parent / "2.jpg") == f"{text.rpartition('/')[0]}/2.jpg"
    for path in ("/a/s3://b", "C:/a/1.jpg", "a/b.jpg", "/s3:/a", "s3"):
        assert not is_url(path)
        assert url_of(Path(path)) is None


def test_tars_behind_a_url(masks: Path, url: str) -> None:
    store.pack(masks, 0, NAMES, url)
    assert [file.name for file in (masks / "shards").iterdir()] == ["000000.remote"]
    assert loose(masks) == []
    for name in NAMES[:4]:
        assert store.is_there(masks / name)
        assert read(masks / name) == name.encode() * 100
    assert sorted(store.members(masks)) == sorted(NAMES[:4])
    first = json.loads((masks / "shards/000000.remote").read_text())["url"]
    assert re.fullmatch(rf"{url}/masks/000000-[0-9a-f]{{16}}\.tar", first)
    # One file made again: a tar of another name, and the one before stays as it was.
    (masks / NAMES[0]).write_bytes(b"new")
    old = read_url(first)
    store.pack(masks, 0, NAMES, url)
    assert read(masks / NAMES[0]) == b"new"
    assert read(masks / NAMES[1]) == NAMES[1].encode() * 100
    assert read_url(first) == old
    # Another store from now on: what is made again brings the rest of its shard along.
    (masks / NAMES[0]).write_bytes(b"here")
    store.pack(masks, 0, NAMES)
    assert [file.name for file in (masks / "shards").iterdir()] == ["000000.tar"]
    assert read(masks / NAMES[0]) == b"here"
    assert read(masks / NAMES[1]) == NAMES[1].encode() * 100


def test_nothing_is_deleted_when_the_store_does_not_answer(
    masks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = pytest.importorskip("fsspec.implementations.memory")

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("connection lost")

    with monkeypatch.context() as patched:
        patched.setattr(memory.MemoryFileSystem, "put_file", fail)
        with pytest.raises(UserError, match=r"memory://.*does not answer .*\(connection lost\)"):
            store.pack(masks, 0, NAMES, "memory://gone")
    assert loose(masks) == sorted(NAMES[:4])
    store.pack(masks, 0, NAMES, "memory://gone")
    memory.MemoryFileSystem.store.clear()
    (masks / NAMES[0]).write_bytes(b"new")
    # The others of its shard can't be read, so no tar without them takes the place.
    with pytest.raises(UserError, match="can't be written"):
        store.pack(masks, 0, NAMES, "memory://gone")
    assert (masks / NAMES[0]).read_bytes() == b"new"


def test_images_behind_a_url(
    url: str, tmp_path: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = an.data.read_dataset(toy).samples
    rows = ["image,labels"]
    for number, sample in enumerate(samples):
        write_url(f"{url}/images/{number}/a{sample.image.suffix}", sample.image)
        rows.append(f"images/{number}/a{sample.image.suffix},{'x;y' if number % 2 else 'x'}")
    data = tmp_path / "lists"
    data.mkdir()
    (data / "labels.csv").write_text("\n".join(rows))
    manifest = an.data.read_dataset(data, images=url)
    assert [s.id for s in manifest.samples] == [f"{n}/a" for n in range(len(samples))]
    assert Manifest.from_lines(manifest.to_lines()) == manifest
    for own, sample in zip(manifest.samples, samples, strict=True):
        np.testing.assert_array_equal(load_image(own.image), load_image(sample.image))
    main(["check", str(data), "--images", url, "--json"])
    assert json.loads(capsys.readouterr().out)["images"] == len(samples)
    recipe = an.Recipe.load(
        "own_images", data=data, out=tmp_path / "run", **{"dataset.images": url}
    )
    run = Run.create(recipe)
    assert run.manifest == manifest
    record_images(recipe, manifest)
    stage = run.stages[0]
    assert changed_images(recipe, manifest, stage, finished=True) == []
    write_url(url_of(manifest.samples[0].image), samples[1].image)
    assert changed_images(recipe, manifest, stage, finished=True) == ["0/a"]
    with pytest.raises(UserError, match="there is no such image"):
        load_image(Path(f"{url}/images/none.png"))


def test_only_a_table_names_images_behind_a_url(tmp_path: Path, toy: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.images = 'photos': a URL is written as s3:"):
        an.data.read_dataset(tmp_path, images="photos")
    with pytest.raises(UserError, match=r"dataset\.images: .* only a table"):
        an.data.read_dataset(toy, images="memory://own", format="folder")
    (tmp_path / "labels.csv").write_text("image,labels\n1,x\n../2.jpg,\n")
    with pytest.raises(UserError, match="does not end as an image's file"):
        an.data.read_dataset(tmp_path, images="memory://own")
    (tmp_path / "labels.csv").write_text("image,labels\n../2.jpg,x\n3.jpg,\n")
    with pytest.raises(UserError, match="not a plain relative path"):
        an.data.read_dataset(tmp_path, images="memory://own")
    for key, value in (("dataset.images", "photos"), ("store", "zip")):
        with pytest.raises(UserError, match=key):
            an.Recipe.load("own_images", data=tmp_path, **{key: value})


def test_a_url_without_fsspec_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UserError, match=r"pip install 'affinitynet\[storage\]'"):
        load_image(Path("s3://bucket/1.jpg"))


@pytest.mark.slow
def test_all_stages_make_the_same_in_either_store(
    toy: Path, tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "SHARD_IMAGES", 4)
    for kind in ("files", "tar"):
        recipe = an.Recipe.load(tiny_recipe, data=toy, out=tmp_path / kind, store=kind)
        run = an.run(recipe, anyway=True)
    for compared in compare_runs(tmp_path / "files", tmp_path / "tar", run.stages):
        assert compared.differ == (), compared.stage
    assert loose(tmp_path / "tar" / "masks") == []
