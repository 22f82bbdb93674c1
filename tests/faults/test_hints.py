"""What an error advises works: `--redo` for every damaged artifact, and nothing goes in circles."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import affinitynet as an
from affinitynet.checkpoint import State, save_state
from affinitynet.data.judgements import class_table, read_judgements
from affinitynet.errors import UserError
from affinitynet.models.classifier import Classifier
from affinitynet.run_folder.stages import find_stage, stages_of


def recipe(home: Path, **changes: object) -> an.Recipe:
    return an.Recipe.load(
        home / "tiny.yaml", **{"data": home / "data", "out": home / "run"} | changes
    )


# An artifact, and the stage that reads it.
READ = [
    ("classifier/weights.safetensors", "compute_cams"),
    ("classifier/model.json", "compute_cams"),
    ("classifier/stage.json", "compute_cams"),
    ("cams/*.npz", "mine_confident"),
    ("confident/*.png", "train_affinity"),
    ("affinity/weights.safetensors", "propagate"),
    ("pseudo/*.png", "train_segmenter"),
    ("predictions/*.png", "evaluate"),
]


@pytest.mark.parametrize(("pattern", "reader"), READ)
def test_the_hint_of_a_damaged_artifact_makes_it_again(
    home: Path, pattern: str, reader: str
) -> None:
    run = home / "run"
    stages = [stage.name for stage in stages_of(recipe(home))]
    for stage in stages_of(recipe(home))[stages.index(reader) :]:
        for artifact in stage.artifacts:
            shutil.rmtree(run / artifact.folder)
    # As a file that rots: neither its size nor its time tells of it.
    for record in run.glob("*/contents.json"):
        record.unlink()
    for file in run.glob(pattern):
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError) as said:
        an.run(recipe(home))
    advice = re.search(r"--redo (\w+)$", str(said.value))
    assert advice, str(said.value)
    finished = an.run(recipe(home), redo=advice[1])
    assert all(status.finished for status in finished.status())


@pytest.mark.parametrize("source", ["classifier", "contrast", "auto"])
def test_cams_are_made_again_by_one_name_whatever_makes_them(source: str) -> None:
    stages = stages_of(an.Recipe.load("demo", **{"cams.source": source}))
    assert (
        find_stage("compute_cams", stages).name
        == {
            "classifier": "compute_cams",
            "contrast": "compute_contrast",
            "auto": "compute_cams",
        }[source]
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_checkpoint_that_is_not_finite_is_not_gone_on_with(home: Path, value: float) -> None:
    """A lower learning rate, which helps a training that diverges, would not help it."""
    classifier = home / "run" / "classifier"
    model = Classifier.load(classifier)
    shutil.rmtree(classifier)
    with torch.no_grad():
        next(model.parameters()).fill_(value)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = State(epochs=1, means={"loss": 0.5})
    save_state(classifier / "checkpoint.pt", model, optimizer, state)
    plan = home / "run" / "cams" / "plan.json"
    known = json.loads(plan.read_text())["settings"]["after train_classifier"]
    (classifier / "plan.json").write_text(json.dumps({"fingerprint": known, "settings": {}}))
    with pytest.raises(UserError, match=r"checkpoint\.pt: .*delete it: the training then starts"):
        an.run(recipe(home), until="train_classifier")
    (classifier / "checkpoint.pt").unlink()
    an.run(recipe(home), until="train_classifier")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("classifier/stage.json", {"tags": [{"class": "x", "ap": "high"}]}, "train_classifier"),
        ("confident/stage.json", {"seeds": [{"class": "x", "images": 3}]}, "mine_confident"),
        ("pseudo/stage.json", {"judgements": [1]}, "propagate"),
    ],
)
def test_a_record_edited_by_hand_is_named(
    home: Path, file: str, content: dict[str, object], said: str
) -> None:
    path = home / "run" / file
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "figures": content}))

    def read() -> None:
        class_table(home / "run")
        read_judgements(home / "run", stages_of(recipe(home)))

    with pytest.raises(UserError, match=rf"stage\.json: not what a stage writes.*--redo {said}"):
        read()
