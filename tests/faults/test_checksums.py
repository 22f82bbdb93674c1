"""Bits that rot: weights and checkpoints are checked when they are loaded."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.hardware import Hardware
from affinitynet.models.classifier import Classifier, build_classifier, describe_classifier
from affinitynet.models.saved import save_model
from affinitynet.run_folder.records import CHECKPOINT
from affinitynet.run_folder.settings import BackboneSettings, ClassifierSettings, TrainingSettings
from affinitynet.training import fit


class Points:
    epoch = 0

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((4,), float(index + self.epoch))


def train(folder: Path, epochs: int) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    settings = TrainingSettings(epochs=epochs, batch_size=4, learning_rate=1e-4)

    def loss(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": model(batch).square().mean()}

    hardware = Hardware("cpu", workers=0)
    fit("t", model, Points(), loss, settings, folder=folder, seed=0, hardware=hardware)


def flip(file: Path, place: float) -> None:
    """Flip one bit, at a share of the file's length."""
    content = bytearray(file.read_bytes())
    content[min(int(place * len(content)), len(content) - 1)] ^= 4
    file.write_bytes(content)


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_a_flipped_bit_in_a_checkpoint_is_noticed(tmp_path: Path, place: float) -> None:
    train(tmp_path, 1)
    flip(tmp_path / CHECKPOINT, place)
    with pytest.raises(UserError, match=r"checkpoint\.pt: is no checkpoint .* delete it"):
        train(tmp_path, 2)


@pytest.mark.parametrize("cut", [1, 51, 1000])
def test_a_checkpoint_cut_short_is_noticed(tmp_path: Path, cut: int) -> None:
    train(tmp_path, 1)
    file = tmp_path / CHECKPOINT
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(UserError, match="delete it"):
        train(tmp_path, 2)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    backbone = BackboneSettings(name="test_resnet", weights="none")
    model = build_classifier(backbone, ClassifierSettings(), ("cat", "dog"))
    description = describe_classifier(backbone, ClassifierSettings(), ("cat", "dog"))
    save_model(tmp_path, model, description)
    return tmp_path


@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_a_flipped_bit_in_weights_is_noticed(saved: Path, place: float) -> None:
    Classifier.load(saved)
    flip(saved / "weights.safetensors", place)
    with pytest.raises(UserError, match=r"not what was written: .*--redo train_classifier"):
        Classifier.load(saved)


def test_weights_of_a_version_without_checksums_are_read(saved: Path) -> None:
    import json

    file = saved / "model.json"
    content = json.loads(file.read_text())
    del content["weights_sha256"]
    file.write_text(json.dumps(content))
    assert Classifier.load(saved)
