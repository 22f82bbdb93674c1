"""Nothing is written over that was not written here."""

import os

import pytest

from affinitynet.data.photographs import RECORD, claim_folder, find_photographs
from affinitynet.errors import UserError


@pytest.mark.parametrize("file", ["1.png", "notes.txt", ".hidden", "sub/2.png"])
def test_masks_are_not_written_among_other_files(tmp_path, file):
    (tmp_path / "out" / file).parent.mkdir(parents=True)
    (tmp_path / "out" / file).write_bytes(b"mine")
    with pytest.raises(UserError, match=r"holds files that predict did not make"):
        claim_folder(tmp_path / "out", tmp_path)
    assert (tmp_path / "out" / file).read_bytes() == b"mine"
    assert not (tmp_path / "out" / RECORD).exists()


def test_a_new_an_empty_and_its_own_folder_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("new", "deep/new", "empty", "new"):
        claim_folder(tmp_path / name, tmp_path)
        (tmp_path / name / "1.png").write_bytes(b"a mask")
        assert (tmp_path / name / RECORD).is_file()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "out").write_bytes(b"mine")
    with pytest.raises(UserError, match="is no folder"):
        claim_folder(tmp_path / "out", tmp_path)


@pytest.mark.parametrize("out", [".", "..", "new"])
def test_masks_that_would_hide_the_images_are_refused(pictures, monkeypatch, out):
    root = pictures("data/new/a.png")
    monkeypatch.chdir(root / "data")
    with pytest.raises(UserError, match="images below --out count as masks"):
        find_photographs(root / "data" / "new", root / "data" / out)


@pytest.mark.parametrize("link", [os.link, os.symlink, None])
def test_weights_are_not_converted_onto_themselves(tmp_path, link):
    from affinitynet.models.weights import convert_weights

    source = tmp_path / "w.safetensors"
    source.write_bytes(b"weights")
    target = source
    if link is not None:
        target = tmp_path / "other.safetensors"
        link(source, target)
    with pytest.raises(UserError, match="is there already; name a new file"):
        convert_weights(source, target)
    assert source.read_bytes() == b"weights"
