"""Exports of annotation programs, written as those programs write them."""

import json

import pytest

from affinitynet.data import read_dataset
from affinitynet.errors import UserError


def task(number, image, *answers, **more):
    """A task of Label Studio's JSON export; an answer is the choices of one annotation."""
    return {
        "id": number,
        "annotations": [
            {
                "id": 10 * number + n,
                "completed_by": 1,
                "result": [
                    {
                        "value": {"choices": list(choices)},
                        "id": "kx2",
                        "from_name": "choice",
                        "to_name": "image",
                        "type": "choices",
                        "origin": "manual",
                    }
                ]
                if choices
                else [],
                "was_cancelled": False,
                "ground_truth": False,
                "lead_time": 3.2,
            }
            for n, choices in enumerate(answers)
        ],
        "file_upload": "a1b2c3d4-1.png",
        "drafts": [],
        "predictions": [],
        "data": {"image": image},
        "meta": {},
        "created_at": "2024-05-01T10:00:00.000000Z",
        "project": 1,
        **more,
    }


TASKS = [
    task(1, "/data/upload/1/a1b2c3d4-1.png", ("weld", "crack")),
    task(2, "/data/local-files/?d=photos%2F2.png", ()),
    task(3, "s3://bucket/photos/3.png", ("weld",), ("crack",)),
    task(4, "4.png"),
]


@pytest.fixture
def photos(pictures):
    return pictures(*(f"images/{n}.png" for n in (1, 2, 3, 4)))


def test_label_studios_json(photos, tags):
    (photos / "project-1-at-2024-05-01-10-00-abcd1234.json").write_text(json.dumps(TASKS))
    manifest = read_dataset(photos)
    assert manifest.layout == "labelstudio"
    assert tags(manifest) == {"train": {"1": ("crack", "weld"), "2": (), "3": ("crack", "weld")}}
    assert "choices of choice" in manifest.found
    assert any("1 tasks have no annotation yet and are left out" in n for n in manifest.notes)
    assert any("1 images have annotations that differ" in note for note in manifest.notes)


def least(number, image, choice=None):
    """A task of Label Studio's JSON-MIN export."""
    return {
        "image": image,
        "id": number,
        **({} if choice is None else {"choice": choice}),
        "annotator": 1,
        "annotation_id": number,
        "created_at": "2024-05-01T10:00:00.000000Z",
        "updated_at": "2024-05-01T10:00:00.000000Z",
        "lead_time": 2.5,
    }


def test_label_studios_json_min(photos, tags):
    content = [
        least(1, "/data/upload/1/a1b2c3d4-1.png", {"choices": ["weld", "crack"]}),
        least(2, "/data/upload/1/a1b2c3d4-2.png"),
        least(3, "http://host/photos/3.png", "weld"),
    ]
    (photos / "min.json").write_text(json.dumps(content))
    manifest = read_dataset(photos)
    # A skipped task has no choice either: of its image nothing was said.
    assert tags(manifest) == {"train": {"1": ("crack", "weld"), "3": ("weld",)}}
    assert any("1 tasks have no annotation yet and are left out" in note for note in manifest.notes)
    content[1] |= {"choice": []}
    (photos / "min.json").write_text(json.dumps(content))
    assert tags(read_dataset(photos))["train"]["2"] == ()


def test_the_control_of_json_min_may_have_any_name(photos, tags):
    content = [least(1, "1.png") | {"defect": "weld"}, least(2, "2.png")]
    (photos / "min.json").write_text(json.dumps(content))
    manifest = read_dataset(photos)
    assert tags(manifest) == {"train": {"1": ("weld",)}}
    assert "choices of defect" in manifest.found
    content[0] |= {"title": "first"}
    (photos / "min.json").write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=r"defect and title may hold the choices; export .* as JSON"
    ):
        read_dataset(photos)
    content.append(least(3, "3.png") | {"defect": {"choices": ["weld", "crack"]}})
    (photos / "min.json").write_text(json.dumps(content))
    assert tags(read_dataset(photos))["train"]["3"] == ("crack", "weld")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choice": {"choices": "weld"}}, "entry 2: has choices that are no list"),
        ({"choice": 7}, "entry 2: has choices that are no list"),
        ({"image": None}, "entry 2: names no image"),
        ({"image": "9.png"}, "entry 2: there is no image 9.png"),
    ],
)
def test_mistakes_in_json_min(photos, change, message):
    content = [least(1, "1.png", "weld"), least(2, "2.png", "weld") | change]
    (photos / "min.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"min\.json.*{message}"):
        read_dataset(photos)


def test_label_studios_csv(pictures, tags):
    root = pictures("images/1.png", "images/2.png")
    (root / "ls.csv").write_text(
        "annotation_id,annotator,choice,created_at,id,image,lead_time,updated_at\n"
        '1,1,"{""choices"":[""weld"",""crack""]}",2024,1,1.png,2.5,2024\n'
        "2,1,weld,2024,2,2.png,2.5,2024\n"
    )
    assert tags(read_dataset(root)) == {"train": {"1": ("crack", "weld"), "2": ("weld",)}}


def changed(place, **values):
    """The tasks, with values of one result changed."""
    content = json.loads(json.dumps(TASKS))
    content[place]["annotations"][0]["result"][0] |= values
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(0, from_name="quality"), r"both quality \(entry 1\) and choice \(entry 3\) hold"),
        (changed(2, value={"choices": "weld"}), r"entry 3: has choices that are no list"),
        (changed(2, value=None), r"entry 3: has a result without a value"),
        ([*TASKS, 7], r"entry 5: is no task"),
        ([*TASKS, {"data": {"image": "1.png"}}], r"entry 5: has no data or no list of annotations"),
        ([TASKS[0], task(2, "", ("weld",))], r"entry 2: names no image"),
        ([TASKS[0], task(2, "9.png", ("weld",))], r"entry 2: there is no image 9\.png"),
        ([TASKS[0] | {"annotations": [{}]}], r"entry 1: has an annotation without a result"),
        ([TASKS[3]], r"lists no images"),
    ],
)
def test_mistakes_in_label_studios_json(photos, content, message):
    (photos / "ls.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"ls\.json.*{message}"):
        read_dataset(photos)


@pytest.mark.parametrize("kind", ["brushlabels", "rectanglelabels"])
def test_regions_of_label_studio_are_no_tags(photos, kind):
    content = [task(1, "1.png", ("weld",))]
    content[0]["annotations"][0]["result"][0]["type"] = kind
    (photos / "ls.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"entry 1: has results of the type {kind}, and no entry"):
        read_dataset(photos)
    (photos / "ls.json").write_text(json.dumps([*content, task(2, "2.png", ("crack",))]))
    assert any(f"are not read ({kind})" in note for note in read_dataset(photos).notes)


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>4</id>
      <name>parts</name>
      <labels>
        <label><name>weld</name><color>#ff0000</color><type>tag</type><attributes></attributes></label>
        <label><name>crack</name><color>#00ff00</color><type>tag</type><attributes></attributes></label>
      </labels>
    </task>
    <dumped>2024-05-01 10:00:00.000000+00:00</dumped>
  </meta>
  <image id="0" name="1.png" subset="default" task_id="4" width="8" height="6">
    <tag label="crack" source="manual">
    </tag>
    <tag label="weld" source="manual">
    </tag>
  </image>
  <image id="1" name="2.png" subset="default" task_id="4" width="8" height="6">
  </image>
  <image id="2" name="deep/3.png" subset="Validation" task_id="4" width="8" height="6">
    <tag label="crack" source="manual">
    </tag>
    <box label="weld" source="manual" occluded="0" xtl="1" ytl="1" xbr="3" ybr="3" z_order="0">
    </box>
  </image>
</annotations>
"""


def test_cvats_tags_of_images(pictures, tags):
    root = pictures("images/1.png", "images/2.png", "images/deep/3.png")
    (root / "annotations.xml").write_text(CVAT)
    manifest = read_dataset(root)
    assert (manifest.layout, manifest.classes) == ("cvat", ("weld", "crack"))
    assert tags(manifest) == {
        "train": {"1": ("weld", "crack"), "2": ()},
        "val": {"deep/3": ("crack",)},
    }
    assert any("1 images have shapes beside tags" in note for note in manifest.notes)
    assert any(
        "1 images have no tag and count as background only, 2.png" in n for n in manifest.notes
    )


def test_cvats_shapes_where_there_are_no_tags(pictures, tags):
    root = pictures("1.png", "2.png", "deep/3.png")
    text = CVAT.replace('<tag label="crack" source="manual">\n    </tag>', "")
    text = text.replace('<tag label="weld" source="manual">\n    </tag>', "")
    (root / "annotations.xml").write_text(text)
    manifest = read_dataset(root)
    assert tags(manifest) == {"train": {"1": (), "2": ()}, "val": {"deep/3": ("weld",)}}
    assert "labels of shapes (no image has a tag)" in manifest.found


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name="2.png"', 'name=""', r"entry 2: names no image"),
        ('name="2.png"', 'name="9.png"', r"entry 2: there is no image 9\.png"),
        ('<tag label="weld"', "<tag", r"entry 1 \(1\.png\): has a tag without a label"),
        ("</annotations>", "", r"is not valid XML"),
        ("<annotations>", '<!DOCTYPE a [<!ENTITY x "y">]><annotations>', r"declares XML entit"),
        ("image", "track", r"has tracks of a video"),
        ('label="weld"', 'label="rust"', r"entry 1 \(1\.png\): the tag 'rust' is not in the"),
    ],
)
def test_mistakes_in_cvats_xml(pictures, old, new, message):
    root = pictures("1.png", "2.png", "deep/3.png")
    (root / "annotations.xml").write_text(CVAT.replace(old, new))
    with pytest.raises(UserError, match=rf"annotations\.xml.*{message}"):
        read_dataset(root, classes=["weld", "crack"])
