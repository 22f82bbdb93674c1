"""Masks drawn in other programs become corrections; each file is written as that program does."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import affinitynet as an
from affinitynet.cli import main
from affinitynet.data import Manifest, Sample, read_labels, voc_palette, write_labels
from affinitynet.data.corrections import correction_file
from affinitynet.data.drawn.label_studio import decode_brush
from affinitynet.errors import UserError

HEIGHT, WIDTH = 12, 20
CLASSES = ("ant", "bee")
BOX = np.zeros((HEIGHT, WIDTH), np.uint8)  # a bee, rows 3 to 7, columns 4 to 9
BOX[3:8, 4:10] = 2


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder of two images, `a/one` and `two`."""
    data, folder = tmp_path / "data", tmp_path / "run"
    samples = []
    for name in ("a/one", "two"):
        file = data / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(file)
        samples.append(Sample(name, file, (0,)))
    folder.mkdir()
    Manifest(data, CLASSES, {"train": tuple(samples)}).write(folder)
    return folder


def corrected(run: Path, sample_id: str) -> np.ndarray:
    return read_labels(correction_file(run, sample_id))


def put(tmp_path: Path, name: str, content: Any) -> Path:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return file


def coco(segmentation: Any = None, **image: Any) -> dict[str, Any]:
    polygon = [[4, 3, 10, 3, 10, 8, 4, 8]]
    entry = {"id": 7, "file_name": "two.png", "height": HEIGHT, "width": WIDTH} | image
    item = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": segmentation or polygon}
    return {
        "images": [entry, {"id": 8, "file_name": "one.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [item],
        "categories": [{"id": 3, "name": "bee"}],
    }


def cvat(shape: str, name: str = "two.png") -> str:
    return (
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>'
        f'<image id="0" name="{name}" width="{WIDTH}" height="{HEIGHT}">{shape}</image>'
        f'<image id="1" name="a/one.png" width="{WIDTH}" height="{HEIGHT}"></image></annotations>'
    )


def label_studio(kind: str, **value: Any) -> list[dict[str, Any]]:
    result = {
        "type": kind,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": {kind: ["bee"], **value},
    }
    annotation = {"id": 1, "was_cancelled": False, "result": [result]}
    image = "/data/upload/1/0a1b2c3d-two.png"
    waiting = {"id": 2, "data": {"image": "/data/upload/1/0a1b2c3d-one.png"}, "annotations": []}
    return [{"id": 1, "data": {"image": image}, "annotations": [annotation]}, waiting]


def labelme(*shapes: dict[str, Any]) -> dict[str, Any]:
    size = {"imagePath": "../data/two.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imageData": None, **size}


def png_text(mask: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def encode_brush(mask: np.ndarray) -> list[int]:
    """Encode as label-studio-converter's encode_rle does: runs for what repeats, else literals."""
    values = np.repeat(mask.astype(np.int64)[..., None] * 255, 4, axis=2).ravel()
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
        if stop - start > 4:
            bits += f"111{stop - start - 1:016b}{values[start]:08b}"
        else:
            bits += f"010{stop - start - 1:08b}"
            bits += "".join(f"{v:08b}" for v in values[start:stop])
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


RUNS = [3 + 4 * HEIGHT, 5, *([7, 5] * 5), HEIGHT - 8 + HEIGHT * (WIDTH - 10)]
SHAPES: dict[str, tuple[str, Any]] = {
    "coco polygons": ("c.json", coco()),
    "coco runs": ("c.json", coco({"counts": RUNS, "size": [HEIGHT, WIDTH]})),
    "cvat mask": (
        "a.xml",
        cvat('<mask label="bee" rle="0, 30" left="4" top="3" width="6" height="5" z_order="0"/>'),
    ),
    "cvat polygon": ("a.xml", cvat('<polygon label="bee" points="4,3;10,3;10,8;4,8"/>')),
    "cvat box": ("a.xml", cvat('<box label="bee" xtl="4" ytl="3" xbr="10" ybr="8"/>')),
    "label studio brush": (
        "p.json",
        label_studio("brushlabels", format="rle", rle=encode_brush(BOX > 0)),
    ),
    "label studio polygon": (
        "p.json",
        label_studio("polygonlabels", points=[[20, 25], [50, 25], [50, 200 / 3], [20, 200 / 3]]),
    ),
    "label studio rectangle": (
        "p.json",
        label_studio("rectanglelabels", x=20, y=25, width=30, height=125 / 3, rotation=0),
    ),
    "labelme polygon": (
        "m/two.json",
        labelme({"label": "bee", "points": [[4, 3], [10, 3], [10, 8], [4, 8]]}),
    ),
    "labelme rectangle": (
        "m/two.json",
        labelme({"label": "bee", "points": [[10, 8], [4, 3]], "shape_type": "rectangle"}),
    ),
    "labelme mask": (
        "m/two.json",
        labelme(
            {
                "label": "bee",
                "points": [[4, 3], [9, 7]],
                "shape_type": "mask",
                "mask": png_text(BOX[3:8, 4:10]),
            }
        ),
    ),
}


@pytest.mark.parametrize("form", SHAPES)
def test_each_form_paints_the_same_box(form: str, run: Path, tmp_path: Path) -> None:
    name, content = SHAPES[form]
    file = put(tmp_path, name, content)
    assert an.import_corrections(run, file) == ["two"]
    assert np.array_equal(corrected(run, "two"), BOX)
    assert not correction_file(run, "a/one").exists()
    an.import_corrections(run, file, rest="keep", replace=True)
    assert np.array_equal(corrected(run, "two"), np.where(BOX, BOX, 255))


def test_png_folders_are_taken_as_they_are(run: Path, tmp_path: Path) -> None:
    partial = np.full((HEIGHT, WIDTH), 255, np.uint8)
    partial[0] = 1
    for name, labels in (("one", partial), ("two", BOX)):
        write_labels(tmp_path / "masks" / f"{name}.png", labels, voc_palette())
    assert an.import_corrections(run, tmp_path / "masks") == ["a/one", "two"]
    assert np.array_equal(corrected(run, "a/one"), partial)
    assert np.array_equal(corrected(run, "two"), BOX)


def test_a_png_may_be_found_by_its_images_path_or_its_name(run: Path, tmp_path: Path) -> None:
    write_labels(tmp_path / "masks" / "copied" / "a" / "one.png", BOX, voc_palette())
    write_labels(tmp_path / "masks" / "copied" / "two.png", BOX, voc_palette())
    assert sorted(an.import_corrections(run, tmp_path / "masks")) == ["a/one", "two"]


def test_the_one_on_top_wins(run: Path, tmp_path: Path) -> None:
    below = '<box label="ant" xtl="0" ytl="0" xbr="20" ybr="12" z_order="1"/>'
    above = '<box label="bee" xtl="4" ytl="3" xbr="10" ybr="8" z_order="2"/>'
    hole = '<box label="Background" xtl="0" ytl="0" xbr="1" ybr="1" z_order="3"/>'
    an.import_corrections(run, put(tmp_path, "a.xml", cvat(above + hole + below)))
    expected = np.where(BOX, BOX, 1)
    expected[0, 0] = 0
    assert np.array_equal(corrected(run, "two"), expected)


def test_ellipses_and_circles_cover_their_area(run: Path, tmp_path: Path) -> None:
    rows, columns = np.indices((HEIGHT, WIDTH)) + 0.5
    disc = np.where((columns - 10) ** 2 + (rows - 6) ** 2 <= 16, 2, 0)
    circle = {"label": "bee", "points": [[10, 6], [14, 6]], "shape_type": "circle"}
    an.import_corrections(run, put(tmp_path, "two.json", labelme(circle)))
    assert np.array_equal(corrected(run, "two"), disc)
    oval = '<ellipse label="bee" cx="10" cy="6" rx="4" ry="4"/>'
    an.import_corrections(run, put(tmp_path, "a.xml", cvat(oval)), replace=True)
    assert np.array_equal(corrected(run, "two"), disc)


def test_brush_strokes_are_decoded_to_the_pixel() -> None:
    noise = np.random.default_rng(0).random((9, 7)) > 0.5
    assert np.array_equal(decode_brush(encode_brush(noise), (9, 7)), noise)


WRONG: dict[str, tuple[str, Any, str]] = {
    "class": ("a.xml", cvat('<box label="be" xtl="0" ytl="0" xbr="1" ybr="1"/>'), "'be'.*bee"),
    "image": ("a.xml", cvat('<box label="bee"/>', "six.png"), r"entry 1 \(six\.png\).*no image"),
    "no area": ("a.xml", cvat('<points label="bee" points="1,1"/>'), "entry 1 .*a points"),
    "runs": (
        "a.xml",
        cvat('<mask label="bee" rle="0,9" left="0" top="0" width="5" height="5"/>'),
        "entry 1 .*add up to 9",
    ),
    "outside": (
        "a.xml",
        cvat('<mask label="bee" rle="0,25" left="18" top="0" width="5" height="5"/>'),
        "entry 1 .*leaves the image",
    ),
    "size": ("c.json", coco(height=10), r"images\[0\]: is of 20 x 10.*two has 20 x 12"),
    "categories": (
        "c.json",
        coco() | {"categories": [{"id": 3, "name": "bee"}, {"id": 3, "name": "ant"}]},
        "the category 3 has two names, 'bee' and 'ant'",
    ),
    "segmentation": ("c.json", coco([[1, 2, 3]]), r"annotations\[0\]: has \[1, 2, 3\]"),
    "brush": ("p.json", label_studio("brushlabels", rle=[0, 0, 3]), "entry 1: has run lengths"),
    "corners": ("p.json", label_studio("polygonlabels", points=[[1, 2]]), "entry 1: has a polygon"),
    "text": (
        "two.json",
        labelme({"label": "bee", "points": [["x", 1], [1, 2], [3, 3]]}),
        r"shapes\[0\]: has a polygon with 'x'",
    ),
    "mask": (
        "two.json",
        labelme({"label": "bee", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": "?"}),
        r"shapes\[0\]: has a mask that is no PNG",
    ),
    "order": ("a.xml", cvat('<box label="bee" z_order="x"/>'), "entry 1 .*a z_order with 'x'"),
    "turn": (
        "a.xml",
        cvat('<ellipse label="bee" cx="1" cy="1" rx="1" ry="1" rotation="nan"/>'),
        "entry 1 .*a rotation with 'nan'",
    ),
    "gigabytes": (
        "a.xml",
        cvat('<mask label="bee" rle="9999999,1" left="0" top="0" width="5000000" height="2"/>'),
        "entry 1 .*leaves the image",
    ),
    "turned list": (
        "p.json",
        label_studio("rectanglelabels", x=1, y=1, width=1, height=1, rotation=[1]),
        r"entry 1: has a rotation with \[1\]",
    ),
    "no name": (
        "p.json",
        [label_studio("brushlabels", rle=encode_brush(BOX > 0))[0] | {"data": {"image": "\0"}}],
        "entry 1: ",
    ),
    "huge": (
        "two.json",
        labelme({"label": "bee", "points": [[10**400, 1], [1, 2], [3, 3]]}),
        r"shapes\[0\]: has a polygon with 1000",
    ),
    "one number": ("p.json", label_studio("polygonlabels", points=5), "entry 1: has a polygon"),
    "no corners": (
        "two.json",
        labelme({"label": "bee", "points": 5}),
        r"shapes\[0\]: has a polygon without corners",
    ),
    "kind": (
        "two.json",
        labelme({"label": "bee", "points": [[0, 0], [1, 1]], "shape_type": ["mask"]}),
        r"shapes\[0\]: is a \['mask'\]",
    ),
    "broken mask": (
        "two.json",
        labelme(
            {
                "label": "bee",
                "points": [[0, 0], [1, 1]],
                "shape_type": "mask",
                "mask": base64.b64encode(
                    base64.b64decode(png_text(BOX > 0)).replace(b"IHDR", b"IXDR")
                ).decode(),
            }
        ),
        r"shapes\[0\]: has a mask that is no PNG",
    ),
    "fractions": (
        "c.json",
        coco([[0.1, 0.1, 0.4, 0.1, 0.4, 0.4]]),
        r"images\[0\]: no shape covers a pixel of the image of 20 x 12; are the coordinates fract",
    ),
    "outside of it": (
        "a.xml",
        cvat('<polygon label="bee" points="90,90;95,90;95,95"/>'),
        r"entry 1 .*no shape covers a pixel",
    ),
    "other file": ("a.txt", "text", "is none of a folder, PNG, JSON and XML"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_named_and_nothing_written(mistake: str, run: Path, tmp_path: Path) -> None:
    name, content, said = WRONG[mistake]
    with pytest.raises(UserError, match=said):
        an.import_corrections(run, put(tmp_path, name, content))
    assert not (run / "corrections").exists()


def test_one_wrong_file_keeps_all_out(run: Path, tmp_path: Path) -> None:
    write_labels(tmp_path / "masks" / "a" / "one.png", BOX, voc_palette())
    write_labels(tmp_path / "masks" / "two.png", np.full_like(BOX, 9), voc_palette())
    with pytest.raises(UserError, match=r"two\.png: holds the label 9"):
        an.import_corrections(run, tmp_path / "masks")
    assert not (run / "corrections").exists()


def test_what_was_drawn_before_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    write_labels(tmp_path / "masks" / "two.png", BOX, voc_palette())
    an.import_corrections(run, tmp_path / "masks")
    write_labels(tmp_path / "masks" / "two.png", BOX // 2, voc_palette())
    with pytest.raises(UserError, match="holds a correction of this image already"):
        an.import_corrections(run, tmp_path / "masks")
    assert np.array_equal(corrected(run, "two"), BOX)


def test_the_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = put(tmp_path, "c.json", coco())
    main(["correct", str(run), str(file), "--rest", "keep"])
    assert capsys.readouterr().out.startswith("1 image corrected in ")
    with pytest.raises(SystemExit, match="2"):
        main(["correct", str(run), str(file)])
    assert "already; give --replace" in capsys.readouterr().err
