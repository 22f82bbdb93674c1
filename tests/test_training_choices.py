"""AdamW, warm-up, a number of steps, and images drawn by weight."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from affinitynet.hardware import Hardware
from affinitynet.models.backbone import TimmBackbone
from affinitynet.models.classifier import Classifier
from affinitynet.run_folder.records import CHECKPOINT
from affinitynet.run_folder.settings import TrainingSettings
from affinitynet.training import fit, learning_rate, parameter_groups, training_length


class Net(nn.Module):
    """A pretrained part with a norm that trains, dropout, and a new head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.backbone(x).relu()))


class Points:
    """Random points; notes what it is asked for, and may be interrupted."""

    def __init__(self, stop_in_epoch: int | None = None, length: int = 10) -> None:
        self.epoch, self.stop, self.length = 0, stop_in_epoch, length
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.epoch == self.stop:
            raise KeyboardInterrupt
        self.asked.append((self.epoch, index))
        x = torch.randn(4, generator=torch.Generator().manual_seed(1000 * self.epoch + index))
        return x, x.sum()[None]


def squared(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    x, y = batch
    return {"loss": (model(x) - y).square().mean()}


def settings(**values: Any) -> TrainingSettings:
    return TrainingSettings(**{"epochs": 4, "batch_size": 3, "learning_rate": 0.01, **values})


def train(
    folder: Path, data: Points, weights: list[float] | None = None, **values: Any
) -> tuple[nn.Module, dict[str, float]]:
    torch.manual_seed(0)
    model = Net()
    figures = fit(
        "train",
        model,
        data,
        squared,
        settings(**values),
        folder=folder,
        seed=5,
        hardware=Hardware("cpu", workers=0),
        weights=weights,
    )
    return model, figures


def test_adamw_has_no_rate_for_biases_and_no_decay_on_norms() -> None:
    model = Net()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, settings(optimizer="adamw", weight_decay=0.01, head_rate=3))
    found = {
        (group["rate"], group["weight_decay"]): {names[id(p)] for p in group["params"]}
        for group in groups
    }
    assert found == {
        (1.0, 0.01): {"backbone.0.weight"},
        (3.0, 0.01): {"head.weight"},
        (1.0, 0.0): {"backbone.0.bias", "backbone.1.weight", "backbone.1.bias"},
        (3.0, 0.0): {"head.bias"},
    }


def test_with_sgd_trained_norms_are_weights_like_others() -> None:
    model = Classifier(TimmBackbone("test_resnet", 16, norm="trained"), 2)
    rates = {
        name: group["rate"]
        for group in parameter_groups(model, settings())
        for name, parameter in model.named_parameters()
        if any(parameter is p for p in group["params"])
    }
    assert {rates[n] for n in rates if "bn" in n and n.endswith("weight")} == {1.0}
    assert {rates[n] for n in rates if "bn" in n and n.endswith("bias")} == {2.0}


def test_one_step_of_adamw_by_hand(tmp_path: Path) -> None:
    """The first step is rate * sign(gradient) but for epsilon, after decay by rate * decay * w."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"backbone": nn.Linear(4, 1)})
    model.forward = model["backbone"].forward  # type: ignore[method-assign]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x, y = Points(length=1)[0]
    loss = (model(x[None]) - y[None]).square().mean()
    gradients = dict(zip(before, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    values = settings(epochs=1, optimizer="adamw", learning_rate=0.01, weight_decay=0.1)
    hardware = Hardware("cpu", workers=0)
    data = Points(length=1)
    fit("t", model, data, squared, values, folder=tmp_path, seed=0, hardware=hardware)
    for name, parameter in model.named_parameters():
        decay = 0.0 if name.endswith("bias") else 0.1
        expected = before[name] * (1 - 0.01 * decay) - 0.01 * gradients[name].sign()
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)


def test_the_warm_up_rises_in_a_line_to_the_schedule() -> None:
    warm = settings(warmup=0.1, learning_rate=1.0, power=0)
    rates = [learning_rate(warm, step, 50) for step in range(7)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0])
    plain = settings(learning_rate=1.0)
    assert learning_rate(settings(warmup=0.1, learning_rate=1.0), 20, 50) == learning_rate(
        plain, 20, 50
    )


def test_steps_replace_epochs(tmp_path: Path) -> None:
    assert training_length(10, settings()) == (3, 12)
    assert training_length(10, settings(steps=7)) == (3, 7)
    data = Points()
    _, figures = train(tmp_path, data, steps=7)
    assert figures["steps"] == 7
    assert [sum(epoch == e for epoch, _ in data.asked) for e in range(4)] == [9, 9, 3, 0]


def test_as_many_steps_as_the_epochs_have_are_the_same_training(tmp_path: Path) -> None:
    by_epochs, one = train(tmp_path / "a", Points())
    by_steps, two = train(tmp_path / "b", Points(), steps=12)
    assert one == two
    assert save(by_epochs.state_dict()) == save(by_steps.state_dict())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_resumed_is_uninterrupted_with_all_of_it(tmp_path: Path, optimizer: str) -> None:
    """Statistics of trained norms, AdamW's moments, the warm-up's place, the cut last epoch."""
    changes = {"optimizer": optimizer, "steps": 8, "warmup": 0.6}
    weights = [1.0] * 8 + [4.0, 2.0]
    whole, figures = train(tmp_path / "whole", Points(), weights, **changes)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", Points(stop_in_epoch=2), weights, **changes)
    assert (tmp_path / "cut" / CHECKPOINT).is_file()
    resumed, again = train(tmp_path / "cut", Points(), weights, **changes)
    assert figures == again
    assert save(whole.state_dict()) == save(resumed.state_dict())


def test_weights_draw_images_as_often_and_never_the_same_augmentation(tmp_path: Path) -> None:
    data = Points(length=40)
    weights = [1.0] * 30 + [4.0] * 10
    train(tmp_path, data, weights, epochs=30, batch_size=40)
    assert len(set(data.asked)) == len(data.asked) == 1200
    heavy = sum(index % 40 >= 30 for _, index in data.asked)
    assert heavy / 1200 == pytest.approx(40 / 70, abs=0.05)
