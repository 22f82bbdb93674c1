"""`affinitynet init`: a recipe that runs as it is, with the data's choices and their reasons."""

import io
import json
import re
from itertools import pairwise

import numpy as np
import pytest
import yaml
from PIL import Image

from affinitynet.cli import main
from affinitynet.data import read_dataset
from affinitynet.data.facts import facts_of
from affinitynet.data.new_recipe import write_recipe
from affinitynet.errors import UserError
from affinitynet.pipeline import Run
from affinitynet.preflight import check_place, check_roles
from affinitynet.run_folder.choices import choose
from affinitynet.run_folder.recipe import Recipe


@pytest.fixture
def photos(tmp_path):
    """Twelve images of 80 x 60 with a table: weld, no, and good, which says background."""
    root = tmp_path / "my photos!"
    generator = np.random.default_rng(0)
    lines = ["image,labels,split"]
    for n in range(12):
        path = root / "images" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(path)
        lines.append(f"{n}.png,{('weld', 'no', 'good')[n % 3]},{'test' if n > 8 else 'train'}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def test_every_choice_is_made_and_has_its_reason(photos, tmp_path):
    file = write_recipe(photos, tmp_path / "new" / "recipe.yaml")
    recipe = Recipe.load(file)
    assert (recipe.name, recipe.data) == ("my_photos", photos)
    dataset = recipe.dataset
    assert (dataset.format, dataset.classes) == ("table", ("no", "weld"))
    assert (dataset.background, dataset.train, dataset.val) == (("good",), "train", "test")
    manifest = read_dataset(photos, background=("good",))
    base = Recipe.load("own_images", data=photos)
    chosen = choose(base, facts_of(base, manifest))
    assert recipe.choose == ()
    for name, choice in chosen.items():
        section, _, key = name.rpartition(".")
        owner = getattr(recipe, section) if section else recipe
        assert getattr(owner, key) == choice.value, name
        assert choice.reason in re.sub(r"\n *# ", " ", file.read_text())
    same = {"name", "out", "choose", "dataset", *(n.split(".")[0] for n in chosen)}
    assert recipe.model_dump(exclude=same) == base.model_dump(exclude=same)
    assert recipe.classifier.norm == base.classifier.norm == "trained"
    text = file.read_text()
    assert "images of train with each: 3, 3" in text
    assert "layout table" in text
    # Every setting has its comment, on its line or on the one above.
    lines = text.splitlines()
    for above, line in pairwise(lines):
        if ":" in line and not line.lstrip().startswith("#") and not line.endswith(":"):
            assert "# " in line or above.lstrip().startswith("# "), line


def test_the_recipe_runs_as_it_is(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["init", str(photos)])
    assert capsys.readouterr().out == "recipe.yaml\n"
    seen = []
    monkeypatch.setattr("affinitynet.pipeline.run", lambda recipe, **_: seen.append(recipe))
    monkeypatch.setattr("affinitynet.pipeline.Run.open", lambda out: exit_quietly())
    with pytest.raises(SystemExit):
        main(["run", "recipe.yaml"])
    (recipe,) = seen
    assert recipe == Recipe.load("recipe.yaml")
    settings = recipe.dataset
    assert read_dataset(
        recipe.data,
        format=settings.format,
        classes=settings.classes,
        background=settings.background,
    ).classes == ("no", "weld")


def exit_quietly():
    raise SystemExit(0)


def test_no_file_is_written_over(photos, tmp_path, capsys):
    file = tmp_path / "recipe.yaml"
    file.write_text("mine")
    with pytest.raises(SystemExit) as caught:
        main(["init", str(photos), "--out", str(file)])
    assert caught.value.code == 2
    assert f"{file}: is there already; name another file by --out" in capsys.readouterr().err
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["null", "a: b", "# c", "é 'x' \"y\"", "[z]", "1e5"])
def test_any_name_of_a_class_survives(photos, tmp_path, name):
    table = photos / "labels.csv"
    (photos / "classes.txt").write_text(f"weld\n{name}\n", encoding="utf-8")
    quoted = name.replace('"', '""')
    text = table.read_text().replace(",no,", f',"{quoted}",').replace(",good,", ",,")
    table.write_text(text, encoding="utf-8")
    file = write_recipe(photos, tmp_path / "r.yaml")
    assert Recipe.load(file).dataset.classes == ("weld", name)


def test_mvtec_and_class_folders(tmp_path):
    for n, name in enumerate(("train/good/0", "train/good/1", "test/good/2", "test/crack/3")):
        path = tmp_path / "set" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 60), (n, 0, 0)).save(path)
    recipe = Recipe.load(write_recipe(tmp_path / "set", tmp_path / "r.yaml"))
    assert (recipe.dataset.format, recipe.dataset.classes) == ("mvtec", ("crack",))
    (tmp_path / "set" / "test" / "crack").rename(tmp_path / "set" / "train" / "crack")
    recipe = Recipe.load(write_recipe(tmp_path / "set", tmp_path / "s.yaml"))
    assert recipe.dataset.format == "folder"
    assert (recipe.dataset.background, recipe.dataset.val) == (("good",), "test")


def test_a_set_without_a_tag_in_train(photos, tmp_path):
    table = photos / "labels.csv"
    text = table.read_text().replace("weld,train", ",train").replace("no,train", ",train")
    table.write_text(text.replace("good,train", ",train"))
    recipe = Recipe.load(write_recipe(photos, tmp_path / "r.yaml"))
    assert (recipe.dataset.train, recipe.dataset.val) == ("test", None)


def test_check_says_ready_or_what_to_fix(photos, capsys):
    main(["check", str(photos)])
    said = capsys.readouterr().out
    assert said.startswith("layout: table (labels.csv: columns image and labels, commas between")
    assert said.endswith("\nready\n")
    main(["check", str(photos), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["ready"], found["to_fix"], found["layout"]) == (True, [], "table")
    (photos / "images" / "0.png").write_bytes(b"")
    table = photos / "labels.csv"
    table.write_text(table.read_text().replace(",train", ",first"))
    with pytest.raises(SystemExit):
        main(["check", str(photos)])
    said = capsys.readouterr().out
    assert "2 problems to fix:\n  1. 0: " in said
    assert "  2. there is no split train, which recipes train on; name another by" in said
    table.write_text("image,labels\nnone.png,weld\n")
    with pytest.raises(SystemExit) as caught:
        main(["check", str(photos), "--json"])
    assert caught.value.code == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] is False
    assert "line 2: there is no image none.png" in found["to_fix"][0]


def test_the_recipe_is_plain_yaml(photos, tmp_path):
    text = write_recipe(photos, tmp_path / "r.yaml").read_text()
    assert list(yaml.safe_load(io.StringIO(text)))[:2] == ["name", "data"]
    assert max(map(len, text.splitlines())) < 400
    with pytest.raises(UserError, match="no such data set folder"):
        write_recipe(tmp_path / "none", tmp_path / "s.yaml")


def test_the_file_of_the_tags_stands_for_its_folder(photos, tmp_path):
    """A recipe whose data is a file passes what a run checks before it begins."""
    table = photos / "labels.csv"
    file = write_recipe(table.rename(photos / "tags.tsv"), tmp_path / "r.yaml")
    recipe = Recipe.load(file, out=photos / "run")
    assert (recipe.data, recipe.name) == (photos / "tags.tsv", "tags")
    run = Run.create(recipe)
    check_place(run.recipe, run.manifest)
    check_roles(run.recipe, run.manifest)
    assert run.manifest.root == photos
    assert len(run.manifest.split("train")) == 9
