"""The report is one self-contained, well-formed, accessible HTML file, however far the run got."""

import base64
import hashlib
import io
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import write_labels
from affinitynet.errors import UserError
from affinitynet.report import write_report
from affinitynet.report.html import duration
from affinitynet.run_folder.tables import write_table

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Elements, their attributes and the visible text; fails on tags that don't close in order."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def having(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.elements if attributes.get("class") == name]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_images_are_inside_and_described(builder):
    builder.everything()
    page = Page(write_report(builder.run, samples=3))
    images = page.all("img")
    # 3 strips of 6 panels, and 2 of the segmenter's with 3.
    assert len(images) == 3 * 6 + 2 * 3
    for image in images:
        assert image["alt"]
        head, _, data = (image["src"] or "").partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
            assert picture.size == (int(image["width"] or 0), int(image["height"] or 0))
    assert images[1]["alt"] == "CAM of train_00: cat"


def test_nothing_comes_from_elsewhere(builder):
    builder.everything()
    path = write_report(builder.run)
    page, source = Page(path), path.read_text(encoding="utf-8")
    assert len(page.all("script")) == 1
    assert not {"link", "iframe", "object", "embed", "base"} & {e for e, _ in page.elements}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert not {"href", "srcset", "action"} & attributes.keys()
    assert "http:" not in source
    assert "https:" not in source
    assert "url(" not in source
    assert "@import" not in source
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")
    script = source.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in (policy["content"] or "")
    assert page.all("script") == [{}]


def test_tables_and_page_are_accessible(builder):
    builder.everything()
    page = Page(write_report(builder.run))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == len(page.all("title")) == 1
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    references = [a["aria-labelledby"] for _, a in page.elements if "aria-labelledby" in a]
    assert references
    assert set(references) <= set(ids)


def test_says_what_ran_and_how_good_it_is(builder):
    builder.everything()
    text = Page(write_report(builder.run)).text
    for words in (
        "pets & co",
        "pets : 8 images in train, 3 images in val",
        "cat, dog <b>, fish",
        "Seed 7",
        "Machine 2 cores",
        "torch 2.6",
        "train classifier done 4.0 s \u2013",
        "compute cams done 4.0 s 2.0",
        "mine_confident 2 images <odd>",
        "pseudo train 8 yes yes none \u2013 62.5",
        "segmenter val 8 no no none \u2013 55.0",
        "91.0 47.0",
    ):
        assert words in text


def test_shows_what_the_stages_say_of_themselves(builder):
    builder.everything()
    tags = [
        {"class": "cat", "images": 40, "positives": 9, "ap": 0.8, "chance": 0.25},
        {"class": "dog <b>", "images": 40, "positives": 9, "ap": 0.2, "chance": 0.25},
    ]
    tags = [tags[0] | {"verdict": "learned"}, tags[1] | {"verdict": "not learned"}]
    builder.record("classifier", "train_classifier", figures={"tags": tags})
    seeds = [
        {"class": "cat", "images": 30, "empty": 2, "failed": ""},
        {"class": "dog <b>", "images": 20, "empty": 1, "failed": "not learned"},
    ]
    said = {"judgements": ["dog <b> is neutral"], "warnings": ["dog <b> is neutral", "an odd one"]}
    builder.record("confident", "mine_confident", figures={"seeds": seeds, **said})
    page = Page(write_report(builder.run))
    assert "cat 30 80.0 25.0 2 learned dog <b> 20 20.0 25.0 1 not learned" in page.text
    assert page.text.count("dog <b> is neutral") == 1
    first, second = page.text.split("What to look at first")[1].split("Warnings")
    assert "mine_confident dog <b> is neutral" in first
    assert "an odd one" in second


def test_a_run_that_says_nothing_of_itself_has_no_empty_sections(builder):
    builder.everything()
    text = Page(write_report(builder.run)).text
    assert "What to look at first" not in text
    assert "How well each class was learned" not in text


def test_marks_the_rows_whose_setting_ground_truth_chose(builder):
    builder.everything()
    page = Page(write_report(builder.run))
    assert len(page.having("chosen")) == 1
    assert "0.21 ◆ truth chose the background threshold" in page.text
    sheet = {"classes": ["background"], "figures": [{"stage": "cam", "miou": 0.4}]}
    builder.write("evaluation/figures.json", sheet)
    page = Page(write_report(builder.run))
    assert not page.having("chosen")
    assert "truth chose" not in page.text


def test_class_table_leaves_absent_values_empty(builder):
    builder.everything()
    page = Page(write_report(builder.run))
    # Of four classes one is absent in each of three figures; the mean row has a value for each.
    shaded = [a for a in page.all("td") if (a.get("style") or "").startswith("--v")]
    assert len(shaded) == 3 * 3 + 3


def test_names_are_text_and_never_markup(builder):
    builder.everything()
    page = Page(write_report(builder.run))
    assert not page.all("odd")
    assert "dog <b>" in page.text


def test_manifest_alone_makes_a_report(builder):
    builder.manifest(truth=False)
    page = Page(write_report(builder.run, samples=2))
    assert len(page.all("img")) == 2
    empty = page.having("empty")
    assert len(empty) == 2 * 5
    for words in ("not made", "none given", "No figures", "to do", "no ground truth"):
        assert words in page.text


def test_unreadable_pieces_leave_labelled_cells(builder):
    manifest = builder.everything()
    first = manifest.samples[0].id
    (builder.run / "cams" / f"{first}.npz").write_bytes(b"PK\x03\x04 cut off")
    (builder.run / "walk" / f"{first}.png").write_bytes(b"\x89PNG cut off")
    manifest.samples[0].image.unlink()
    page = Page(write_report(builder.run, samples=1))
    assert page.text.count("not readable") == 2
    assert "image not found" in page.text
    # Masks are still drawn, on an even ground.
    assert any(i["alt"] == "Pseudo mask of train_00: cat" for i in page.all("img"))


def test_partial_stage_is_told_from_its_files(builder):
    manifest = builder.everything()
    (builder.run / "pseudo" / "stage.json").unlink()
    (builder.run / "pseudo" / f"{manifest.samples[0].id}.png").unlink()
    shutil.rmtree(builder.run / "segmenter")
    text = Page(write_report(builder.run)).text
    assert "propagate partial 7 of 8" in text
    assert "train segmenter to do" in text


def test_a_changed_setting_makes_its_stage_and_those_behind_it_stale(builder):
    builder.everything()
    builder.write("recipe.yaml", {"name": "pets & co", "seed": 7, "walk": {"beta": 3}})
    text = Page(write_report(builder.run)).text
    assert "propagate stale (walk.beta was 8.0, is 3.0)" in text
    assert "train segmenter stale (an earlier stage changed)" in text
    assert "mine confident done" in text


def test_same_run_same_report(builder):
    builder.everything()
    first = write_report(builder.run).read_bytes()
    assert write_report(builder.run).read_bytes() == first
    assert [p.name for p in (builder.run / "report").iterdir()] == ["index.html"]


def test_mistakes_are_named(builder, tmp_path):
    with pytest.raises(UserError, match=r"no run folder.*manifest\.jsonl"):
        write_report(tmp_path)
    builder.manifest()
    with pytest.raises(UserError, match="samples = -1"):
        write_report(builder.run, samples=-1)
    (builder.run / "evaluation").mkdir()
    (builder.run / "evaluation" / "figures.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"figures\.json: not valid JSON"):
        write_report(builder.run)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (4.24, "4.2 s"),
        (59.97, "1 min 0 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 0 min"),
        (4320, "1 h 12 min"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_all_images_can_be_sorted_and_filtered(builder):
    manifest = builder.everything()
    path = write_report(builder.run)
    page = Page(path)
    rows = [a["data-tags"] for a in page.all("tr") if "data-tags" in a]
    # Of the masks that slide off the truth, the last image's is the worst.
    assert rows[0] == manifest.classes[7 % 3]
    assert len(rows) == 8
    assert len(page.all("input")) == len(page.all("select")) == 1
    buttons = [a for a in page.all("button") if a["type"] == "button"]
    assert len(buttons) == 3  # image, tags, IoU
    assert "hidden" in page.having("filter")[0]  # until the script is there to use it


def test_leads_with_the_least_trusted(builder):
    builder.everything()
    table = {"image": ["train_03", "train_01"], "trust": [0, 0.25], "cams_walk": [0, 0.25]}
    write_table(builder.run / "trust.csv", table)
    page = Page(write_report(builder.run))
    first = page.text.split("What to look at first")[1].split("Figures")[0]
    assert "trust 0 for 1 of 2 masks" in first
    assert "trust least in train_03 (0.00), train_01 (0.25)" in first
    assert "cams to walk" in page.text


def test_names_a_stage_that_made_things_worse(builder):
    builder.everything()
    found = (("cam", 0.3), ("cam", 0.5), ("walk", 0.4), ("pseudo", 0.395))
    rows = [{"stage": name, "split": "train", "miou": miou} for name, miou in found]
    builder.write("evaluation/figures.json", {"classes": ["background"], "figures": rows})
    text = Page(write_report(builder.run)).text
    assert "walk is worse than cam on train: mIoU 40.0 after 50.0" in text
    assert "pseudo is worse" not in text


def test_lists_missed_objects(builder):
    manifest = builder.everything()
    name = manifest.split("train")[4].id
    write_labels(builder.run / "pseudo" / f"{name}.png", np.zeros((24, 36), int), [0] * 768)
    text = Page(write_report(builder.run)).text
    assert "pseudo miss 1 object of the ground truth" in text
    assert f"{name} dog <b>" in text.split("Missed objects")[1]


def test_shows_learning_curves_and_changed_settings(builder):
    builder.everything()
    table = {"step": [2, 4], "epoch": [1, 2], "loss": [2.0, 0.5], "dice": [1, 0.2]}
    write_table(builder.run / "segmenter" / "history.csv", table)
    page = Page(write_report(builder.run))
    assert [svg["aria-label"] for svg in page.all("svg")] == [
        "segmenter: loss from 2 to 0.5 in 4 steps"
    ]
    assert len([a for a in page.all("path") if (a["class"] or "").startswith("loss")]) == 2
    assert "seed 7 0" in page.text.split("Settings that differ")[1]
