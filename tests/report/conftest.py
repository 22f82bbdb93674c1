"""A run folder with tiny images, as the stages would leave it."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from affinitynet.data import Manifest, Sample, voc_palette, write_labels
from affinitynet.data.cams import save_cams
from affinitynet.run_folder.freshness import Freshness
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import find_stage

CLASSES = ("cat", "dog <b>", "fish")
SIZE = (24, 36)


def square(label: int, left: int, width: int = 12) -> np.ndarray:
    """Labels (24, 36): a square of one class on background."""
    labels = np.zeros(SIZE, dtype=np.uint8)
    labels[6:18, left : left + width] = label
    return labels


def figure(stage: str, split: str, **values: object) -> dict:
    """One entry of figures.json, with every key."""
    entry = {
        "stage": stage,
        "split": split,
        "images": 8,
        "tags_given": True,
        "crf": False,
        "tta": "none",
        "threshold": None,
        "ground_truth_chose": None,
        "miou": 0.5,
        "iou": [0.9, 0.4, 0.2, None],
        "precision": None,
        "coverage": None,
        "imported": None,
    }
    return entry | values


class RunBuilder:
    """Writes pieces of a run folder; each method can be left out by a test."""

    def __init__(self, folder: Path) -> None:
        self.data, self.run = folder / "pets", folder / "runs" / "first"
        self.run.mkdir(parents=True)

    def manifest(self, train: int = 8, val: int = 3, *, truth: bool = True) -> Manifest:
        """Write images, ground truth, manifest and recipe: image i shows class i % 3."""
        rng = np.random.default_rng(0)
        splits = {}
        for split, count in (("train", train), ("val", val)):
            samples = []
            for i in range(count):
                name = f"{split}_{i:02d}"
                image, mask = self.data / "images" / f"{name}.png", self.data / "t" / f"{name}.png"
                image.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(image)
                if truth:
                    write_labels(mask, square(i % 3 + 1, 6), voc_palette())
                samples.append(Sample(name, image, (i % 3,), mask if truth else None))
            splits[split] = tuple(samples)
        manifest = Manifest(self.data, CLASSES, splits)
        manifest.write(self.run)
        if not (self.run / "recipe.yaml").exists():
            self.write("recipe.yaml", {"name": "first"})
        return manifest

    def masks(self, manifest: Manifest, folder: str, split: str = "train") -> None:
        """Write masks whose IoU falls from image to image: the square slides off the truth."""
        for i, sample in enumerate(manifest.split(split)):
            labels = square(sample.tags[0] + 1, 6 + i)
            labels[:2] = 255
            write_labels(self.run / folder / f"{sample.id}.png", labels, manifest.palette)

    def cams(self, manifest: Manifest) -> None:
        """Write activation maps of the tagged classes."""
        ramp = np.broadcast_to(np.linspace(0, 1, SIZE[1]), (1, *SIZE)).astype(np.float32)
        for sample in manifest.split("train"):
            save_cams(self.run / "cams" / f"{sample.id}.npz", sample.tags, ramp)

    def record(self, folder: str, stage: str, **values: object) -> None:
        """Write plan.json and stage.json, as the recipe here asks for it."""
        freshness = Freshness(Recipe.load(self.run / "recipe.yaml", out=self.run))
        found = find_stage(stage, freshness.stages)
        plan = freshness.plan(found)
        freshness.folder(found).start(plan)
        record = {"stage": stage, "fingerprint": plan.fingerprint, "settings": {}, "figures": {}}
        record |= {"counts": {"done": 8, "total": 8}, "seconds": 4.0, "versions": {}} | values
        self.write(f"{folder}/stage.json", record)

    def write(self, name: str, value: object) -> None:
        """Write a JSON or YAML file."""
        path = self.run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(value) if path.suffix == ".yaml" else json.dumps(value)
        path.write_text(text, encoding="utf-8")

    def everything(self) -> Manifest:
        """Write a run with every stage done."""
        self.write("recipe.yaml", {"name": "pets & co", "seed": 7, "dataset": {"train": "train"}})
        manifest = self.manifest()
        self.cams(manifest)
        for folder in ("confident", "walk", "pseudo"):
            self.masks(manifest, folder)
        self.masks(manifest, "predictions", "val")
        self.record("classifier", "train_classifier")
        self.record("cams", "compute_cams", versions={"torch": "2.6", "machine": "2 cores"})
        self.record("confident", "mine_confident", figures={"warnings": ["2 images <odd>"]})
        self.record("affinity", "train_affinity")
        self.record("pseudo", "propagate")
        self.record("segmenter", "train_segmenter")
        self.record("evaluation", "evaluate")
        chose = {"threshold": 0.21, "ground_truth_chose": "background threshold"}
        figures = [
            figure("cam", "train", tta="scales 0.5, 1 and flip", **chose),
            figure("confident", "train", miou=None, iou=[], precision=0.91, coverage=0.47),
            figure("pseudo", "train", crf=True, miou=0.625),
            figure("segmenter", "val", tags_given=False, miou=0.55),
        ]
        classes = ["background", *CLASSES]
        self.write("evaluation/figures.json", {"classes": classes, "figures": figures})
        return manifest


@pytest.fixture
def builder(tmp_path: Path) -> RunBuilder:
    return RunBuilder(tmp_path)
