"""Cells of labels.csv that are several labels, or none, in another notation."""

import pytest

from affinitynet.data import check_dataset, read_dataset
from affinitynet.errors import UserError


@pytest.mark.parametrize(
    "cell",
    ["a/b|c;d", '"x,y"', '"x, y"', "\"['a', 'b'\"", "{a}", "a\tb", '"x, y and c"'],
)
def test_what_may_be_several_labels_or_one_is_refused(table, cell):
    with pytest.raises(
        UserError, match=r"line 2: .*(looks like several; separate labels by ';'|is no name)"
    ):
        read_dataset(table(f"image,labels\n1.png,{cell}\n2.png,a\n3.png,b\n"))


@pytest.mark.parametrize("name", ["a|b", "tench, Tinca tinca", "[x]"])
def test_a_class_list_makes_any_name_a_name(table, name):
    text = f'image,labels\n1.png,"{name}"\n2.png,a\n3.png,\n'
    assert name in read_dataset(table(text, classes=f"a\n{name}\n")).classes


@pytest.mark.parametrize("cell", ["nan", "None", "NULL", "N/A", "''"])
def test_words_for_nothing_are_refused(table, cell):
    with pytest.raises(UserError, match=r"line 2: .*says that there is none; leave the cell empty"):
        read_dataset(table(f"image,labels\n1.png,{cell}\n2.png,a\n3.png,b\n"))


@pytest.mark.parametrize(
    "label", ["haze primary", "haze/primary", "haze & primary", "haze and primary"]
)
def test_labels_made_of_labels_are_named(table, label):
    manifest = read_dataset(table(f"image,labels\n1.png,{label}\n2.png,haze\n3.png,primary\n"))
    assert any("write haze;primary" in warning for warning in check_dataset(manifest).warnings)


@pytest.mark.parametrize(
    ("words", "splits"),
    [
        (("train", "Train", "TRAIN"), ["train"]),
        (("train", "valid", "Test"), ["test", "train", "val"]),
        (("Fold A", "fold a", "b"), ["Fold A", "b"]),
    ],
)
def test_splits_that_differ_in_spelling_are_one_and_named(table, words, splits):
    rows = "".join(f"{n}.png,c,{word}\n" for n, word in enumerate(words, 1))
    manifest = read_dataset(table(f"image,labels,split\n{rows}"))
    assert sorted(manifest.splits) == splits
    assert any("read as the split" in note for note in manifest.notes)


@pytest.mark.parametrize("labels", ["good", "ok;good"])
def test_labels_may_say_background(table, labels):
    root = table(f"image,labels\n1.png,{labels}\n2.png,crack\n3.png,\n")
    manifest = read_dataset(root, background=["good", "ok"])
    assert manifest.classes == ("crack",)
    assert [s.tags for s in manifest.samples] == [(), (0,), ()]


@pytest.mark.parametrize("count", [255, 260, 299])
def test_more_tags_than_an_image_can_have_are_refused(table, count):
    names = [f"c{n:03d}" for n in range(300)]
    text = f"image,labels\n1.png,{';'.join(names[:count])}\n2.png,c000\n3.png,\n"
    with pytest.raises(
        UserError, match=rf"1\.png: has {count} tags, and the work on an image takes 254"
    ):
        read_dataset(table(text, classes="\n".join(names)))


def test_as_many_tags_as_an_image_can_have_are_read(table):
    names = [f"c{n:03d}" for n in range(300)]
    text = f"image,labels\n1.png,{';'.join(names[:254])}\n2.png,\n3.png,\n"
    assert len(read_dataset(table(text, classes="\n".join(names))).samples[0].tags) == 254


def test_one_class_in_every_image_is_a_problem(table):
    report = check_dataset(read_dataset(table("image,labels\n1.png,a\n2.png,a\n3.png,a\n")))
    assert "only class is 'a'" in report.problems[0].message


@pytest.mark.parametrize("line", [",,,", ";;", " , ", '"",""', "|", '""'])
def test_a_first_line_of_separators_alone_is_refused(table, line):
    with pytest.raises(UserError, match=r"it must begin with the columns|is empty"):
        read_dataset(table(f"{line}\nimage,labels\n1.png,a\n2.png,b\n"))


@pytest.mark.parametrize(
    "text",
    [
        "image,labels,\n1.png,a,\n2.png,a,b\n3.png,,\n",
        "image,labels,,\n1.png,a,,\n2.png,a,,b\n3.png,,,\n",
        "image,labels,,split\n1.png,a,,train\n2.png,a,b,train\n3.png,,,val\n",
        "labels,image,\na,1.png,\na,2.png,b\n,3.png,\n",
        "image,a,c,\n1.png,1,0,\n2.png,1,0,b\n3.png,0,1,\n",
    ],
)
def test_a_label_in_a_column_without_a_name_is_not_lost(table, text):
    with pytest.raises(UserError, match=r"line 3: 'b' stands in a column without a name; separate"):
        read_dataset(table(text))


@pytest.mark.parametrize(
    "text",
    [
        ",image,labels\n0,1.png,a\n1,2.png,b\n2,3.png,\n",  # pandas' index
        ",,image,labels\nx,0,1.png,a\nx,1,2.png,b\ny,0,3.png,\n",
        "image,labels,,\n1.png,a,,\n2.png,b,,\n3.png,,,\n",
        "image,labels,\n1.png,a,train\n2.png,b,train\n3.png,,val\n",
    ],
)
def test_columns_without_a_name_that_lose_nothing_are_allowed(table, text):
    assert len(read_dataset(table(text)).samples) == 3


@pytest.mark.parametrize(
    ("rows", "place"),
    [
        ("1.png,cat,\n2.png,cat,dog\n3.png,dog,\n", "line 3: the split of 2.png is 'dog', and"),
        ("1.png,cat,train\n2.png,dog,val\n3.png,dog,cat\n", "line 4: the split of 3.png is"),
        ("1.png,cat\n2.png,cat,dog;bird\n3.png,dog\n", "line 3: .*'dog;bird', and 'dog' is"),
        ("1.png,0,\n2.png,1,0\n3.png,1,\n", "line 3: the split of 2.png is '0', and '0' is"),
    ],
)
def test_a_label_in_the_column_of_splits_is_refused(table, rows, place):
    with pytest.raises(UserError, match=rf"{place}.* a label; separate labels by ';'"):
        read_dataset(table(f"image,labels,split\n{rows}"))


@pytest.mark.parametrize(
    ("rows", "splits"),
    [
        ("1.png,train,train\n2.png,car,train\n3.png,car,val\n", ["train", "val"]),
        ("1.png,0,0\n2.png,1,1\n3.png,1,2\n", ["0", "1", "2"]),  # folds
    ],
)
def test_splits_that_are_named_as_classes_are_read(table, rows, splits):
    assert sorted(read_dataset(table(f"image,labels,split\n{rows}")).splits) == splits


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("bird", "1 images are in no split that is used, but in bird (1): correct"),
        ("valve", "1 images are in no split that is used, but in valve (1): correct"),
        ("test", ""),
        ("val_2", ""),
    ],
)
def test_images_in_no_split_that_is_used_are_counted(table, split, said):
    root = table(f"image,labels,split\n1.png,cat,\n2.png,dog,\n3.png,cat,{split}\n")
    warnings = check_dataset(read_dataset(root)).warnings
    assert [w.startswith(said) for w in warnings if "no split that is used" in w] == [True] * bool(
        said
    )


@pytest.mark.parametrize("format", ["auto", "table"])
@pytest.mark.parametrize("beside", ["", "tags.csv"])
def test_a_faulty_table_is_answered_by_its_own_line_alone(table, format, beside):
    root = table("image,labels\n1.png,a\n2.png,b\n3.png,a,b\n")
    if beside:
        (root / beside).write_text("image,labels\n1.png,a\n")
    with pytest.raises(UserError) as caught:
        read_dataset(root, format=format)
    assert str(caught.value) == (
        f"{root / 'labels.csv'}, line 4: has more cells than columns; separate labels by ';'"
    )


def test_labels_csv_is_read_whatever_is_beside_it(table):
    root = table("image,labels\n1.png,a\n2.png,b\n3.png,\n")
    for number in range(20):
        (root / f"{number}.csv").write_text("x,y\n1,2\n")
    assert len(read_dataset(root).samples) == 3


def test_a_format_that_is_not_there_is_named_as_given(table):
    root = table("image,labels\n1.png,a\n2.png,b\n3.png,\n")
    with pytest.raises(UserError, match=r"no tags of the format cvat; add them, or leave the for"):
        read_dataset(root, format="cvat")
    (root / "labels.csv").rename(root / "notes.txt")
    with pytest.raises(UserError, match=r"no tags of the format table; add them, or leave the for"):
        read_dataset(root, format="table")


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("1", "", ""), "dog holds nothing in 2 of 3 rows and is no class; if it is one, write"),
        (("0", "2", "2"), "dog holds '2' in 2 of 3 rows and is no class"),
        (("1", "-1", "-1"), "dog holds '-1' in 2 of 3 rows and is no class"),
        (("1", "", "x"), "dog holds nothing and 'x' in 2 of 3 rows and is no class"),
    ],
)
def test_a_class_that_may_be_lost_is_named_with_its_values(table, cells, said):
    rows = "".join(f"{n}.png,{n % 2},{cell}\n" for n, cell in enumerate(cells, 1))
    notes = read_dataset(table(f"image,cat,dog\n{rows}")).notes
    assert [note.startswith(f"labels.csv: {said}") for note in notes if "no class" in note] == [
        True
    ]


@pytest.mark.parametrize("cells", [("", "", ""), ("a", "b", "b"), ("640", "1.5", "")])
def test_columns_of_other_things_are_no_lost_classes(table, cells):
    rows = "".join(f"{n}.png,{n % 2},{cell}\n" for n, cell in enumerate(cells, 1))
    notes = read_dataset(table(f"image,cat,width\n{rows}")).notes
    assert any("columns that are not read: width" in note for note in notes)
    assert not any("no class" in note for note in notes)
