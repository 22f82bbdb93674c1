"""Tune: choosing the walk's settings from what a run keeps, by masks or by measures."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import affinitynet as an
from affinitynet.cli import main
from affinitynet.data import Manifest, Sample, read_labels, write_labels
from affinitynet.data.cams import save_cams
from affinitynet.data.grids import half_disc, save_affinity
from affinitynet.errors import UserError
from affinitynet.run_folder.choices import BY_TRUTH, read_choices, truth_chose
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.settings import WalkSettings
from affinitynet.tuning.choose import Validation, changes, choose, curves, validate
from affinitynet.tuning.curve import draw_curve
from affinitynet.tuning.decide import decide, load_case
from affinitynet.tuning.measures import MEASURES
from affinitynet.tuning.settings import TUNABLE, value_of, values_to_try, with_value

SIDE = 32


def disc(radius: float) -> np.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return np.hypot(y, x) < radius


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Ten images of a bright disc, whose map is a hill on it; the affinities are all alike."""
    folder, samples = tmp_path / "run", []
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    hill = np.clip(1 - np.hypot(y, x) / 14, 0, 1).astype(np.float32)[None]
    for number in range(10):
        sample = Sample(f"i{number}", tmp_path / f"i{number}.png", (0,))
        pixels = np.where(disc(9)[..., None], 200, 50) + rng.integers(0, 9, (SIDE, SIDE, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(sample.image)
        save_cams(folder / "cams" / f"{sample.id}.npz", [0], hill)
        affinity = np.full((half_disc(5), 4, 4), 0.5)
        save_affinity(folder / "affinities" / f"{sample.id}.npz", affinity)
        samples.append(sample)
    manifest = Manifest(tmp_path, ("cat",), {"train": tuple(samples)})
    recipe = Recipe.model_validate(
        {"out": folder, "workers": 1, "walk": {"steps": 4, "refine": False}}
    )
    manifest.write(folder)
    (folder / "recipe.yaml").write_text(recipe.dump(), encoding="utf-8")
    return folder


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    for number in range(8):
        write_labels(tmp_path / "masks" / f"i{number}.png", disc(9).astype(np.uint8), [0] * 768)
    return tmp_path / "masks"


def test_masks_choose_and_the_figures_will_say_so(run: Path, masks: Path) -> None:
    found = an.tune_run(run, masks, apply=True)
    assert (found["by"], found["images"]) == ("truth", 8)
    assert found["chosen"]
    assert found["gain"] > 0
    # All images are alike, so that those left out gain as much.
    validation = found["validation"]
    assert validation["chosen"] - validation["now"] == pytest.approx(found["gain"], abs=0.02)
    written = Recipe.load(run / "recipe.yaml")
    for name, value in found["chosen"].items():
        assert value_of(written.walk, name.removeprefix("walk.")) == value
    assert set(truth_chose(written)) == set(found["chosen"])
    assert json.loads((run / "tune" / "tune.json").read_text())["chosen"] == found["chosen"]
    # A setting that someone changes again is no longer what truth chose.
    name = next(iter(found["chosen"]))
    other = Recipe.load(run / "recipe.yaml", **{name: 3})
    assert name not in truth_chose(other)


def test_what_masks_left_out_do_not_confirm_is_not_chosen(
    run: Path, masks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = an.tune_run(run, masks)["chosen"]
    before = (run / "recipe.yaml").read_bytes()
    worse = Validation(now=0.7, chosen=0.7, now_spread=0.1, chosen_spread=0.1, folds=5)
    monkeypatch.setattr("affinitynet.tuning.tune.validate", lambda *_: worse)
    found = an.tune_run(run, masks, apply=True)
    assert (found["chosen"], found["gain"], found["unproven"]) == ({}, 0, wanted)
    assert (run / "recipe.yaml").read_bytes() == before
    main(["tune", str(run), "--masks", str(masks)])
    said = capsys.readouterr().out
    assert f"nothing is chosen: {next(iter(wanted))} = " in said
    assert "next:" not in said


def test_without_masks_nothing_says_truth(run: Path) -> None:
    before = (run / "recipe.yaml").read_bytes()
    found = an.tune_run(run, images=6, measure="agreement with the CAM")
    assert (run / "recipe.yaml").read_bytes() == before
    assert found["validation"] is None
    assert found["chosen"]
    assert found["gain"] > 0
    an.tune_run(run, images=6, measure="agreement with the CAM", apply=True)
    assert not any(choice.reason.startswith(BY_TRUTH) for choice in read_choices(run).values())
    assert truth_chose(Recipe.load(run / "recipe.yaml")) == ()


def test_each_setting_has_its_curve(run: Path) -> None:
    found = an.tune_run(run, images=5)
    assert (found["chosen"], found["gain"]) == ({}, 0)  # no measure was asked to choose
    for tunable in TUNABLE:
        svg = ElementTree.parse(run / "tune" / f"{tunable.name}.svg").getroot()
        dots = [shape.get("class") for shape in svg.iter() if shape.tag.endswith("circle")]
        values = found["curves"][tunable.name]["values"]
        assert len(dots) == len(values)
        assert dots[values.index(found["now"][f"walk.{tunable.name}"])] == "now"
        assert dots.count("now") == 1


def turn(file: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    with Image.open(file) as image:
        image.load()
        image.save(file, exif=exif)


def link(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / "run" / "tune").symlink_to(home / "elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda masks: [f.unlink() for f in list(masks.iterdir())[4:]], "holds masks .* of 4"),
        (
            lambda masks: write_labels(masks / "i0.png", np.full((SIDE, SIDE), 7), [0] * 768),
            "label 7 is above the 1 classes",
        ),
        (
            lambda masks: write_labels(masks / "i0.png", np.ones((8, 8), np.uint8), [0] * 768),
            r"is \(8, 8\), its image \(32, 32\)",
        ),
        (
            lambda masks: [
                write_labels(f, np.where(read_labels(f) == 1, 255, 0), [0] * 768)
                for f in list(masks.iterdir())
            ],
            "the masks hold 0 and 255 only",
        ),
        (lambda masks: turn(masks / "i0.png"), "EXIF orientation turns it"),
        (lambda masks: link(masks.parent), "through a symbolic link"),
    ],
)
def test_masks_that_do_not_fit(run: Path, masks: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    change(masks)
    with pytest.raises(UserError, match=message):
        an.tune_run(run, masks)
    assert not (run / "tune").exists() or not list((run / "tune").iterdir())


def test_mistakes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no measure 'x': choose from agreement"):
        an.tune_run(run, measure="x")
    with pytest.raises(UserError, match="no such folder of masks"):
        an.tune_run(run, tmp_path / "none")
    for file in (run / "affinities").iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"holds no affinities .* --redo propagate"):
        an.tune_run(run)


def toy_score(walk: WalkSettings) -> np.ndarray:
    """Ten images that like alpha 32 best; two of them say nothing but noise of beta."""
    alpha = 1 - abs(np.log2(walk.alpha) - 5) / 10
    return np.full(10, alpha) + np.linspace(-1, 1, 10) * (walk.beta == 4) * 0.1


def test_only_what_is_clearly_better_is_chosen() -> None:
    walk = WalkSettings()
    chosen = choose(walk, toy_score)
    assert changes(walk, chosen) == {"walk.alpha": 32.0}
    found = validate(walk, toy_score, 10)
    assert (found.folds, found.chosen) == (5, pytest.approx(1))
    assert found.now == pytest.approx(0.9)
    # Half the images left out: those that stay decide, and they like another beta.
    half = np.linspace(-1, 1, 10) > 0
    assert changes(walk, choose(walk, toy_score, half))["walk.beta"] == 4


def test_a_constant_background_and_another_walk_are_decided_too(run: Path) -> None:
    """Both change the masks, and each is what `propagate` would do with the setting."""
    recipe = Recipe.load(run / "recipe.yaml")
    manifest = Manifest.of_run(run)
    case = load_case(recipe, manifest, manifest.samples[0])
    usual = decide(case, recipe.walk).mask
    low = with_value(with_value(recipe.walk, "background", "constant"), "background_score", 0.05)
    assert (decide(case, low).mask > 0).sum() > (usual > 0).sum()
    ended = decide(case, with_value(recipe.walk, "method", "restart"))
    assert (ended.walk != decide(case, recipe.walk).walk).any()


def test_settings_by_name() -> None:
    walk = with_value(WalkSettings(), "crf.bilateral_srgb", 5.0)
    assert walk.crf.bilateral_srgb == 5.0
    assert WalkSettings.model_validate(walk.model_dump()) == walk
    own = with_value(walk, "alpha", 10.0)
    alpha = next(tunable for tunable in TUNABLE if tunable.name == "alpha")
    assert values_to_try(own, alpha) == sorted({*alpha.values, 10.0})
    assert [curve.name for curve in curves(own, toy_score)] == [t.name for t in TUNABLE]


def test_measures_know_a_good_mask_from_a_bad_one(run: Path) -> None:
    recipe = Recipe.load(run / "recipe.yaml")
    manifest = Manifest.of_run(run)
    case = load_case(recipe, manifest, manifest.samples[0])
    good = decide(case, recipe.walk)
    mask = disc(9).astype(np.int64)
    good = good._replace(walk=mask, refined=mask, mask=mask)
    none = np.zeros_like(mask)
    lost = good._replace(refined=none, mask=none)
    shifted = np.roll(mask, 12, 1)
    off = good._replace(refined=shifted, mask=shifted)
    for name, measure in MEASURES.items():
        values = [measure(case, decision, recipe.walk) for decision in (good, off, lost)]
        assert 0 <= min(values) <= max(values) <= 1, name
        assert values[0] > values[2], name
        if name not in ("area as the CAM's", "tags shown"):  # which see no place
            assert values[0] > values[1], name


def test_a_flat_curve_looks_flat() -> None:
    (curve, *_) = curves(WalkSettings(), lambda walk: np.full(4, 0.5))
    svg = ElementTree.fromstring(draw_curve(curve, "by a < b"))
    heights = {shape.get("cy") for shape in svg.iter() if shape.tag.endswith("circle")}
    assert len(heights) == 1
