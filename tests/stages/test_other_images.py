"""A whole run on images of five channels of 16 bits, from the data set to new images."""

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import affinitynet as an
from affinitynet.cli import main
from affinitynet.data import read_labels
from affinitynet.errors import UserError
from affinitynet.pipeline import Run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tifffile") is None, reason="the extra tiff is not installed"
)


@pytest.fixture(scope="module")
def bands(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy set with five channels of 12 bits in 16: its colors, and two mixed from them."""
    import tifffile

    folder = Path(shutil.copytree(toy, tmp_path_factory.mktemp("bands") / "data"))
    for file in sorted((folder / "images").rglob("*.*")):
        colors = np.array(Image.open(file).convert("RGB")).astype(np.uint16) * 16
        mixed = np.concatenate([colors, colors[..., :2] // 2 + colors[..., 1:] // 2], 2)
        options = {"photometric": "minisblack", "planarconfig": "contig", "compression": "zlib"}
        tifffile.imwrite(file.with_suffix(".tif"), mixed, **options)  # type: ignore[arg-type]
        if file.suffix != ".tif":
            file.unlink()
    table = folder / "labels.csv"
    text = table.read_text()
    for suffix in (".png", ".jpg", ".jpeg"):
        text = text.replace(suffix, ".tif")
    table.write_text(text)
    return folder


def test_from_the_data_set_to_new_images(bands, tiny_text, tmp_path, monkeypatch):
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "run"
    # With tiles, which images of 64 pixels need none of the surroundings for.
    recipe.write_text(tiny_text + "relabel: {enabled: true, block: 48}\ntile: 32\n")
    run = an.run(an.Recipe.load(recipe, data=bands, out=out))
    assert {status.state for status in run.status()} == {"done"}
    for network in ("classifier", "affinity", "segmenter"):
        described = json.loads((out / network / "model.json").read_text())
        found = described["backbone"]["input"]
        assert found["channels"] == len(found["mean"]) == len(found["low"]) == 5
        assert found["high"] == pytest.approx([4080] * 5, rel=0.1)
    # Nothing is found anew: a run that goes on keeps what was found.
    monkeypatch.setattr("affinitynet.data.readings.find_reading", None)
    again = an.run(an.Recipe.load(recipe, data=bands, out=out))
    assert again.recipe.backbone.input == run.recipe.backbone.input
    # A single image is read as those of the training, wherever it comes from.
    sample = run.manifest.split("val")[0]
    an.predict_folder(out, sample.image, tmp_path / "masks", overlay=True)
    predicted = read_labels(tmp_path / "masks" / f"{Path(sample.id).name}.png")
    np.testing.assert_array_equal(predicted, read_labels(out / "predictions" / f"{sample.id}.png"))
    segmenter = an.Segmenter.load(out / "segmenter")
    np.testing.assert_array_equal(segmenter.predict(sample.image), predicted)
    an.predict_folder(out, sample.image, tmp_path / "coco", format="coco")
    assert list((tmp_path / "coco").rglob("*.png"))
    an.export_run(out, tmp_path / "export", format="voc")
    shown = next((tmp_path / "export" / "JPEGImages").rglob("*.jpg"))
    with Image.open(shown) as picture:
        assert picture.mode == "RGB"
    assert 'src="data:image' in an.write_report(out).read_text()


def test_a_page_that_was_changed_makes_stages_stale(bands, tiny_recipe, tmp_path):
    out = tmp_path / "run"
    an.run(an.Recipe.load(tiny_recipe, data=bands, out=out), until="train_classifier")
    with pytest.raises(UserError, match=r"stage train_classifier .*backbone\.input\."):
        an.run(an.Recipe.load(tiny_recipe, data=bands, out=out, **{"dataset.range": [0, 9000]}))
    assert Run.open(out).status()[0].state == "done"


def test_check_and_run_refuse_pages_until_one_is_chosen(bands, tiny_recipe, tmp_path, capsys):
    import tifffile

    data = Path(shutil.copytree(bands, tmp_path / "data"))
    for file in (data / "images").rglob("*.tif"):
        page = tifffile.imread(file)[..., :3]
        with tifffile.TiffWriter(file) as writer:
            for level in (1, 16):
                writer.write((page // level).astype(np.uint16), photometric="rgb", metadata=None)
    with pytest.raises(SystemExit):
        main(["check", str(data)])
    assert "has 2 pages" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"has 2 pages, .*dataset\.page, 0 to 1"):
        an.run(an.Recipe.load(tiny_recipe, data=data, out=tmp_path / "run"))
    main(["check", str(data), "--page", "1"])
    assert "page 1 of TIFFs of several" in capsys.readouterr().out
    chosen = an.Recipe.load(tiny_recipe, data=data, out=tmp_path / "run", **{"dataset.page": 1})
    run = an.run(chosen, until="train_classifier")
    found = run.recipe.backbone.input
    assert found is not None
    assert found.page == 1
    assert found.high == pytest.approx([255], rel=0.1)
