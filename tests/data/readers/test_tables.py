"""Tables as spreadsheets, pandas and people write them."""

import csv
import io
import json

import pytest

from affinitynet.data import read_dataset
from affinitynet.errors import UserError

ROWS = [("a.png", "weld;crack"), ("b.png", "weld"), ("c.png", "")]
TRAIN = {"train": {"a": ("crack", "weld"), "b": ("weld",), "c": ()}}


@pytest.fixture
def photos(pictures):
    return pictures("images/a.png", "images/b.png", "images/c.png")


def text(rows=ROWS, head=("image", "labels"), **options) -> str:
    """CSV as Python's writer writes it."""
    file = io.StringIO(newline="")
    csv.writer(file, **options).writerows([head, *rows])
    return file.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_delimiters_and_encodings(photos, tags, delimiter, encoding):
    rows = [("a.png", "weld;Bär"), ("b.png", "weld"), ("c.png", "")]
    content = text(rows, delimiter=delimiter).encode(encoding)
    (photos / "tags.csv").write_bytes(content)
    manifest = read_dataset(photos)
    assert tags(manifest) == {"train": {"a": ("Bär", "weld"), "b": ("weld",), "c": ()}}
    assert manifest.layout == "table"
    said = {"utf-16": "UTF-16-LE", "utf-16-le": "UTF-16-LE", "cp1252": "CP1252"}.get(encoding, "")
    assert said in manifest.found
    assert ("read as" in manifest.found) == bool(said)


def test_excels_text_in_unicode_and_its_first_line(photos, tags):
    (photos / "tags.txt").write_bytes(text(delimiter="\t").encode("utf-16"))
    assert tags(read_dataset(photos / "tags.txt")) == TRAIN
    (photos / "tags.txt").unlink()
    (photos / "tags.csv").write_text("sep=;\n" + text(delimiter=";"))
    assert tags(read_dataset(photos)) == TRAIN
    (photos / "tags.csv").write_text("sep=;\nimage;labels\nnone.png;weld\n")
    with pytest.raises(UserError, match=r"tags\.csv, line 3: there is no image none\.png"):
        read_dataset(photos)


@pytest.mark.parametrize("image", ["image", "file", "filename", "file_name", "path", "File Name"])
@pytest.mark.parametrize("label", ["labels", "label", "tags", "classes", "Tags"])
def test_names_of_columns(photos, tags, image, label):
    (photos / "list.csv").write_text(text(head=(image, label)))
    manifest = read_dataset(photos)
    assert tags(manifest) == TRAIN
    assert f"columns {image} and {label}" in manifest.found


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("file,path,tags", "the columns file and path may both be the image; rename .* to image"),
        ("image,tags,classes", "the columns tags and classes may both be the labels"),
        ("file,file,tags", "has the column file twice"),
    ],
)
def test_two_columns_for_one_thing_are_refused(photos, head, message):
    (photos / "labels.csv").write_text(f"{head}\na.png,weld,x\n")
    with pytest.raises(UserError, match=rf"labels\.csv: .*{message}"):
        read_dataset(photos)


@pytest.mark.parametrize(
    "cell",
    ["weld;crack", "weld|crack", "weld, crack", "['weld', 'crack']", '["crack","weld"]',
     "('weld', 'crack')", "{'weld', 'crack'}", '{"choices": ["weld", "crack"]}'],
)  # fmt: skip
def test_several_labels_in_a_cell(photos, tags, cell):
    empty = "[]" if cell[0] in "[({" else ""
    one = "['weld']" if cell[0] in "[({" else "weld"
    (photos / "t.csv").write_text(text([("a.png", cell), ("b.png", one), ("c.png", empty)]))
    assert tags(read_dataset(photos)) == TRAIN


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (("weld|crack", "crack, weld"), r"both '\|' \(line 2\) and ',' \(line 3\) may separate"),
        (("tench, Tinca tinca", "weld"), r"line 2: the label .*looks like several"),
        (("weld;a|b", "weld"), r"line 2: the label 'a\|b' looks like several"),
        (("['weld', 'crack'", "weld"), r"line 2: .*looks like several"),
    ],
)
def test_cells_that_may_be_read_in_two_ways_are_refused(photos, cells, message):
    (photos / "t.csv").write_text(text(zip(("a.png", "b.png"), cells, strict=True)))
    with pytest.raises(UserError, match=rf"t\.csv.*{message}"):
        read_dataset(photos, format="table")


def test_names_of_a_class_list_keep_their_commas(photos):
    (photos / "classes.txt").write_text("weld\ntench, Tinca tinca\n")
    rows = [("a.png", "tench, Tinca tinca"), ("b.png", "weld"), ("c.png", "weld,weld")]
    (photos / "t.csv").write_text(text(rows))
    assert [s.tags for s in read_dataset(photos).samples] == [(1,), (0,), (0,)]


def test_a_column_for_each_class(photos, tags):
    """As pandas' get_dummies writes it, with other columns beside."""
    (photos / "t.csv").write_text(
        "file,weld,crack,width,site\na.png,1,1,640,north\nb.png,1,0,640,south\nc.png,0,0,1,north\n"
    )
    manifest = read_dataset(photos)
    assert tags(manifest) == {"train": {"a": ("weld", "crack"), "b": ("weld",), "c": ()}}
    assert any("not read: width, site" in note for note in manifest.notes)
    assert "a column of 0 and 1 for each class" in manifest.found


def test_roboflows_classes_csv(pictures, tags):
    """Roboflow's "Multi Label Classification CSV": a space after each comma, a folder a split."""
    root = pictures("train/a.jpg", "train/b.jpg", "valid/c.jpg")
    (root / "README.roboflow.txt").write_text("exported\n")
    (root / "train" / "_classes.csv").write_text("filename, crack, weld\na.jpg, 0, 1\nb.jpg, 1, 1")
    (root / "valid" / "_classes.csv").write_text("filename, crack, weld\nc.jpg, 0, 0\n")
    manifest = read_dataset(root)
    assert manifest.classes == ("crack", "weld")
    assert tags(manifest) == {
        "train": {"train/a": ("weld",), "train/b": ("crack", "weld")},
        "val": {"valid/c": ()},
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a.jpg, 0, 1\nb.jpg, 1, 2\n", "line 3: the column weld holds '2', which is neither 0"),
        ("a.jpg, 0, 1\nb.jpg, 1\n", "line 3: the column weld holds '', which is neither 0"),
        ("a.jpg, 0, 1\na.jpg, 1, 0\n", "lists a.jpg twice, in lines 2 and 3"),
        ("a.jpg, 0, 1\nnone.jpg, 1, 0\n", "line 3: there is no image none.jpg"),
    ],
)
def test_mistakes_in_a_column_for_each_class(pictures, lines, message):
    root = pictures("train/a.jpg", "train/b.jpg")
    (root / "train" / "_classes.csv").write_text(f"filename, crack, weld\n{lines}c.jpg, 1, 1\n")
    with pytest.raises(UserError, match=rf"_classes\.csv.*{message}"):
        read_dataset(root)


def test_a_row_for_each_image_and_tag(photos, tags):
    rows = [
        ("a.png", "weld", "x"),
        ("b.png", "weld", ""),
        ("a.png", "crack", "x"),
        ("c.png", "", ""),
    ]
    (photos / "t.csv").write_text(text(rows, head=("image", "tag", "group")))
    manifest = read_dataset(photos)
    assert tags(manifest) == TRAIN
    assert "a row for each image and label" in manifest.found
    assert [s.group for s in manifest.samples] == ["x", "", ""]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.png,weld,train\na.png,crack,val\n", "lines 2 and 3 give a.png another split"),
        ("a.png,weld;dent,\na.png,crack,\n", "lists a.png twice, in lines 2 and 3; unite them"),
        ("a.png,weld,\na.png,,\n", "lists a.png twice, in lines 2 and 3; unite them"),
    ],
)
def test_rows_of_one_image_that_contradict(photos, rows, message):
    (photos / "t.csv").write_text(f"image,labels,split\n{rows}b.png,weld,\n")
    with pytest.raises(UserError, match=rf"t\.csv.* {message}"):
        read_dataset(photos)


@pytest.mark.parametrize(
    "names",
    [("jpegs\\a.png", "jpegs\\deep\\b.png"), ("./jpegs/a.png", "deep\\b.png"), ("a.png", "b.png"),
     ("a", "deep/b")],
)  # fmt: skip
def test_images_in_another_folder_and_backslashes(pictures, tags, names):
    root = pictures("jpegs/a.png", "jpegs/deep/b.png", "thumbs/c.png")
    (root / "t.csv").write_text(text(zip(names, ("weld", ""), strict=True)))
    assert tags(read_dataset(root)) == {"train": {"jpegs/a": ("weld",), "jpegs/deep/b": ()}}


def test_a_name_that_two_images_have_is_refused(pictures):
    root = pictures("one/a.png", "two/a.png")
    (root / "t.csv").write_text("image,labels\na.png,weld\n")
    with pytest.raises(UserError, match=r"line 2: a\.png may be one/a\.png and two/a\.png; write"):
        read_dataset(root)


@pytest.mark.parametrize("name", ["C:\\photos\\a.png", "..\\a.png", "\\\\server\\a.png"])
def test_names_that_lead_out_of_the_folder_are_refused(photos, name):
    (photos / "t.csv").write_text(f"image,labels\n{name},weld\n")
    with pytest.raises(UserError, match=r"t\.csv, line 2: the image .* is not a plain relative"):
        read_dataset(photos)


@pytest.mark.parametrize("place", ["meta/tags.tsv", "tags.tsv"])
def test_the_path_of_a_table(photos, tags, place):
    file = photos / place
    file.parent.mkdir(exist_ok=True)
    file.write_text(text(delimiter="\t"))
    for given in (photos, file):
        manifest = read_dataset(given)
        assert (tags(manifest), manifest.root) == (TRAIN, photos)
    with pytest.raises(UserError, match="is of the format table, not cvat"):
        read_dataset(file, format="cvat")


def test_tables_named_after_splits(photos, tags):
    (photos / "train.csv").write_text("image,labels\na.png,weld\nb.png,\n")
    (photos / "valid.csv").write_text("image,labels\nc.png,weld\n")
    assert tags(read_dataset(photos)) == {
        "train": {"a": ("weld",), "b": ()},
        "val": {"c": ("weld",)},
    }
    (photos / "valid.csv").write_text("image,labels\na.png,weld\n")
    with pytest.raises(UserError, match=r"train\.csv, line 2, and .*valid\.csv, line 2: both"):
        read_dataset(photos)


def test_a_column_whose_cells_say_the_split(photos, tags):
    (photos / "t.csv").write_text("image,labels,subset\na.png,weld,Train\nb.png,,valid\n")
    manifest = read_dataset(photos)
    assert tags(manifest) == {"train": {"a": ("weld",)}, "val": {"b": ()}}
    assert "subset says the split" in manifest.found
    (photos / "t.csv").write_text("image,labels,fold,set\na.png,weld,train,val\nb.png,,val,val\n")
    with pytest.raises(UserError, match="the columns fold and set may both be the split"):
        read_dataset(photos, format="table")


def test_json_lines_and_lists(photos, tags):
    rows = [{"image": "a.png", "labels": ["weld", "crack"]}, {"image": "b.png", "labels": "weld"},
            {"image": "c.png", "labels": []}]  # fmt: skip
    (photos / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tags(read_dataset(photos)) == TRAIN
    (photos / "t.jsonl").unlink()
    (photos / "t.json").write_text(json.dumps(rows))
    assert tags(read_dataset(photos)) == TRAIN


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"image": "b.png", "labels": ["weld"', "line 2: is not valid JSON"),
        ('["b.png", "weld"]', "line 2: is no JSON object"),
        ('{"image": "b.png"}', 'line 2: has no cell for labels; write "labels": \\[\\]'),
        ('{"labels": ["weld"]}', "line 2: names no image"),
        ('{"image": "b.png", "labels": {"weld": 1}}', "line 2: .*looks like several"),
        ('{"image": "none.png", "labels": []}', "line 2: there is no image none.png"),
    ],
)
def test_mistakes_in_json_lines(photos, line, message):
    (photos / "t.jsonl").write_text('{"image": "a.png", "labels": ["weld"]}\n' + line + "\n")
    with pytest.raises(UserError, match=rf"t\.jsonl.*{message}"):
        read_dataset(photos, format="table")
    (photos / "labels.csv").write_text("image,labels\na.png,weld\n")
    assert len(read_dataset(photos).samples) == 1  # labels.csv comes first whatever is beside it


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("column", ["label", "labels", "tags"])
@pytest.mark.parametrize("data", ["", "data/"])
def test_hugging_faces_image_folder(pictures, tags, name, column, data):
    """`imagefolder`: a metadata file in each split's folder; file_name is relative to it."""
    files = ("train/0001.png", "train/sub/0002.png", "test/0003.png")
    root = pictures(*(f"{data}{file}" for file in files))
    content = {
        "train": [("0001.png", ["weld"]), ("sub/0002.png", [])],
        "test": [("0003.png", ["weld"])],
    }
    for split, rows in content.items():
        if name.endswith("csv"):
            lines = [f"file_name,{column}", *(f"{file},{''.join(labels)}" for file, labels in rows)]
        else:
            lines = [json.dumps({"file_name": file, column: labels}) for file, labels in rows]
        (root / data / split / name).write_text("\n".join(lines) + "\n")
    manifest = read_dataset(root)
    assert tags(manifest) == {
        "train": {f"{data}train/0001": ("weld",), f"{data}train/sub/0002": ()},
        "test": {f"{data}test/0003": ("weld",)},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,text\n1.png,a weld\n", "has no column of labels"),
        ("file_name,label\n2.png,weld\n", r"line 2: there is no image 2\.png"),
        ("file_name,label\n1.png,weld,crack\n", "line 2: has more cells than columns"),
    ],
)
def test_mistakes_in_metadata(pictures, content, message):
    root = pictures("train/1.png")
    (root / "train" / "metadata.csv").write_text(content)
    with pytest.raises(UserError, match=rf"metadata\.csv.*{message}"):
        read_dataset(root)


def test_a_table_without_a_header_is_refused(photos):
    (photos / "labels.csv").write_text("a.png,weld\nb.png,\n")
    with pytest.raises(UserError, match="first line names no columns, but an image; it must begin"):
        read_dataset(photos)
