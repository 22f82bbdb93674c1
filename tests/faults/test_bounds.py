"""Small files and small words that would take all time or memory, and encodings of XML."""

import json
import time

import pytest

from affinitynet.data import load_truth, read_dataset
from affinitynet.data.coco_masks import decode_segmentation, fill_polygon
from affinitynet.data.voc_xml import read_objects
from affinitynet.errors import UserError
from affinitynet.run_folder.flags import read_yaml
from affinitynet.run_folder.recipe import Recipe


def laughs(depth: int, width: int) -> str:
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text", [laughs(9, 9), laughs(30, 2), "a: &a [*a]", "[" * 5000, f"a: [{'x,' * 20_000}]"]
)
def test_yaml_that_stands_for_more_than_a_recipe_is_refused(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"r\.yaml: not valid YAML"):
        Recipe.load(tmp_path / "r.yaml")
    assert time.monotonic() - began < 20


def test_anchors_of_a_recipe_are_read(tmp_path):
    (tmp_path / "r.yaml").write_text("confident: {crf: &c {iterations: 3}}\nwalk: {crf: *c}\n")
    recipe = Recipe.load(tmp_path / "r.yaml")
    assert (recipe.confident.crf.iterations, recipe.walk.crf.iterations) == (3, 3)


@pytest.mark.parametrize(
    "text",
    ["2001-99-99", "!!bool maybe", "!!timestamp x", "!!int x", "!!binary x", "{[a]: 1}", "\x00"],
)
def test_whatever_yaml_raises_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        read_yaml(text)


@pytest.mark.parametrize(
    "setting",
    [{"workers": 100_000}, {"walk.steps": 10**12}, {"walk.steps": 1e12}, {"workers": 257}],
)
def test_settings_have_an_end(tmp_path, setting):
    (tmp_path / "r.yaml").write_text("")
    with pytest.raises(UserError, match="should be less than or equal to"):
        Recipe.load(tmp_path / "r.yaml", **setting)


@pytest.mark.parametrize("counts", ["o" * 2_000_000, "P" * 14, "\u20ac", "0" + "o" * 20 + "0"])
def test_run_lengths_have_an_end(counts):
    began = time.monotonic()
    with pytest.raises(UserError, match=r"no counts of pixels|does not fit"):
        decode_segmentation({"size": [30, 40], "counts": counts}, 30, 40)
    assert time.monotonic() - began < 5


def test_polygons_of_many_corners_take_little_memory():
    import numpy as np

    angle = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    corners = np.stack([50 + 40 * np.cos(angle), 50 + 40 * np.sin(angle)], axis=1).ravel()
    assert abs(fill_polygon(corners, 1000, 100).sum() - np.pi * 1600) < 100


HUGE = 10**30


@pytest.mark.parametrize(
    ("image", "item"),
    [
        ({"height": HUGE}, {}),
        ({"height": 10**7, "width": 10**7}, {}),
        ({"height": True}, {}),
        ({}, {"segmentation": [[HUGE, 0, 1, 1, 2, 2]]}),
        ({}, {"segmentation": [[1e308, 0, -1e308, 1, 2, 2]]}),
        ({}, {"segmentation": [[float("nan"), 0, 1, 1]]}),
        ({}, {"segmentation": {"size": [30, 40], "counts": [HUGE]}}),
        ({}, {"segmentation": [[int("9" * 400), 0, 1, 1]]}),
    ],
)
def test_numbers_without_bound_are_refused(coco, image, item):
    root = coco([(1, "1.jpg"), (2, "2.jpg")], [(1, 1, 5)])
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"][0] |= image
    content["annotations"][0] |= item
    file.write_text(json.dumps(content))
    manifest = read_dataset(root)
    with pytest.raises(UserError, match=r"instances_train2017\.json: .*correct it"):
        load_truth(manifest, manifest.samples[0])


@pytest.mark.parametrize("ids", [(HUGE, 1), ("x", 2), (None, [1]), (-1, 10**400)])
def test_ids_of_any_size_order_equal_instances(coco, ids):
    root = coco([(1, "1.jpg"), (2, "2.jpg")], [(1, 1, 5), (1, 2, 20)])
    file = root / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    for item, number in zip(content["annotations"], ids, strict=True):
        item["id"] = number
    file.write_text(json.dumps(content))
    manifest = read_dataset(root)
    assert sorted(set(load_truth(manifest, manifest.samples[0]).ravel())) == [0, 1, 2]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"images": ' + "9" * 5000 + "}", "\ufeff{"])
def test_json_that_goes_too_deep_is_refused(coco, text):
    root = coco([(1, "1.jpg")], [])
    (root / "annotations" / "instances_train2017.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="is not valid JSON"):
        read_dataset(root)


XML = "<annotation><object><name>{}</name></object></annotation>"


@pytest.mark.parametrize("encoding", ["GB2312", "Shift_JIS", "GB18030", "EUC-KR", "windows-1252"])
def test_annotations_in_other_encodings_are_read(tmp_path, encoding):
    name = {"EUC-KR": "\uace0\uc591\uc774", "windows-1252": "caf\u00e9"}.get(encoding, "\u732b")
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n' + XML.format(name)
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert read_objects(tmp_path / "a.xml") == (name,)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_annotations_in_unicode_are_read(tmp_path, encoding):
    declared = "UTF-16" if encoding == "utf-16" else "UTF-8"
    text = f'<?xml version="1.0" encoding="{declared}"?>' + XML.format("\u732b")
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert read_objects(tmp_path / "a.xml") == ("\u732b",)


@pytest.mark.parametrize("encoding", ["klingon", "hex", "zlib", "GB2312"])
def test_encodings_that_do_not_fit_are_the_users_mistake(tmp_path, encoding):
    text = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + b"<a>\xff\xff\xff</a>"
    (tmp_path / "a.xml").write_bytes(text)
    with pytest.raises(UserError, match=r"a\.xml: is not valid XML .* save it as UTF-8"):
        read_objects(tmp_path / "a.xml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "GB2312"])
def test_entities_are_refused_in_every_encoding(tmp_path, encoding):
    head = f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY x "y">]>'
    (tmp_path / "a.xml").write_bytes((head + XML.format("&x;")).encode(encoding))
    with pytest.raises(UserError, match="declares XML entities"):
        read_objects(tmp_path / "a.xml")
