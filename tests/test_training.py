"""The training loop: schedule, parameter groups, and resumed = uninterrupted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.hardware import Hardware
from affinitynet.models.affinity_net import AffinityNet
from affinitynet.models.classifier import Classifier
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.vgg16 import VGG16
from affinitynet.run_folder.records import CHECKPOINT
from affinitynet.run_folder.settings import TrainingSettings
from affinitynet.training import (
    fit,
    parameter_groups,
    poly_learning_rate,
)

CPU = Hardware("cpu", workers=0)


class Net(nn.Module):
    """A pretrained part with a bias, dropout, and a new head without one."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.backbone(x).relu()))


class Points:
    """Random points whose noise depends on (epoch, index), as an augmentation would."""

    def __init__(self, stop_in_epoch: int | None = None) -> None:
        self.epoch, self.stop = 0, stop_in_epoch

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.epoch == self.stop and index == 5:
            raise KeyboardInterrupt
        rng = torch.Generator().manual_seed(1000 * self.epoch + index)
        x = torch.randn(4, generator=rng)
        return x, x.sum()[None]


def squared(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    x, y = batch
    return {"loss": (model(x) - y).square().mean()}


def settings(**values: Any) -> TrainingSettings:
    return TrainingSettings(**{"epochs": 4, "batch_size": 3, "learning_rate": 0.01, **values})


def train(folder: Path, dataset: Points, **values: Any) -> tuple[nn.Module, dict[str, float]]:
    torch.manual_seed(0)
    model = Net()
    figures = fit(
        "train", model, dataset, squared, settings(**values), folder=folder, seed=5, hardware=CPU
    )
    return model, figures


def test_poly_schedule_starts_at_the_base_rate_and_ends_near_zero() -> None:
    rates = [poly_learning_rate(0.1, step, 100) for step in (0, 50, 99)]
    assert rates == pytest.approx([0.1, 0.1 * 0.5**0.9, 0.1 * 0.01**0.9])


def test_groups_give_new_layers_ten_times_and_biases_twice_the_rate() -> None:
    groups = {
        (group["rate"], group["weight_decay"]): len(group["params"])
        for group in parameter_groups(Net(), settings())
    }
    assert groups == {(1.0, 5e-4): 1, (2.0, 0.0): 1, (10.0, 5e-4): 1}


def names_by_rate(model: nn.Module) -> dict[tuple[float, float], set[str]]:
    """(rate, weight decay) -> names of the parameters."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        (group["rate"], group["weight_decay"]): {names[id(p)] for p in group["params"]}
        for group in parameter_groups(model, settings())
    }


def test_resnet38_trains_35_convolutions_and_its_head() -> None:
    """The table of the original code: conv1a, b2, b2_1, b2_2 and all BatchNorms are frozen."""
    basic = ["b3", "b3_1", "b3_2", "b4", *(f"b4_{i}" for i in range(1, 6)), "b5", "b5_1", "b5_2"]
    layers = [f"{unit}.conv_branch{branch}" for unit in basic for branch in ("2a", "2b1")]
    layers += [f"{unit}.conv_branch1" for unit in ("b3", "b4", "b5", "b6", "b7")]
    layers += [f"{unit}.conv_branch{b}" for unit in ("b6", "b7") for b in ("2a", "2b1", "2b2")]
    assert len(layers) == 35
    assert names_by_rate(Classifier(ResNet38(1 / 16), 20)) == {
        (1.0, 5e-4): {f"backbone.{layer}.weight" for layer in layers},
        (10.0, 5e-4): {"head.fc.weight"},
    }


def test_vgg16s_group_norm_learns_as_slowly_as_pretrained_layers() -> None:
    """As published: conv1 and conv2 frozen; the affine parameters not in the new layers' groups."""
    model = AffinityNet(VGG16(fc6_dilation=4, width=1 / 16), group_norm=True)
    layers = [f"backbone.conv{stage}_{i}" for stage in (3, 4, 5) for i in (1, 2, 3)]
    layers += ["backbone.fc6", "backbone.fc7", "head.norm.0", "head.norm.1", "head.norm.2"]
    new = ("head.reduce.0", "head.reduce.1", "head.reduce.2", "head.mix")
    assert names_by_rate(model) == {
        (1.0, 5e-4): {f"{layer}.weight" for layer in layers},
        (2.0, 0.0): {f"{layer}.bias" for layer in layers},
        (10.0, 5e-4): {f"{layer}.weight" for layer in new},
    }


def test_one_step_moves_weights_as_published(tmp_path: Path) -> None:
    """SGD with decay: w - rate * (gradient + decay * w), rates 1x, 2x (bias, no decay), 10x."""
    torch.manual_seed(0)
    model = Net()
    model.dropout.p = 0.0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    class One(Points):
        def __len__(self) -> int:
            return 1

    batch = [part[None] for part in One()[0]]
    loss = (model.head(model.backbone(batch[0]).relu()) - batch[1]).square().mean()
    gradients = dict(zip(before, torch.autograd.grad(loss, list(model.parameters())), strict=True))
    fit("t", model, One(), squared, settings(epochs=1), folder=tmp_path, seed=0, hardware=CPU)
    rates = {"backbone.weight": 0.01, "backbone.bias": 0.02, "head.weight": 0.1}
    for name, parameter in model.named_parameters():
        decay = 0.0 if name.endswith("bias") else 5e-4
        expected = before[name] - rates[name] * (gradients[name] + decay * before[name])
        torch.testing.assert_close(parameter.detach(), expected)


@pytest.mark.parametrize("momentum", [0.9, 5e-4])
def test_later_steps_follow_the_schedule_and_the_momentum(tmp_path: Path, momentum: float) -> None:
    """v <- momentum v + gradient + decay w; w <- w - lr0 (1 - step / steps)^0.9 multiple v."""
    steps, decay = 3, 5e-4
    torch.manual_seed(0)
    model = Net()
    model.dropout.p = 0.0
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    velocity = {name: torch.zeros_like(w) for name, w in weights.items()}
    multiples = {"backbone.weight": 1.0, "backbone.bias": 2.0, "head.weight": 10.0}

    class One(Points):
        def __len__(self) -> int:
            return 1

    points = One()
    for step in range(steps):  # one sample an epoch, one step an epoch
        points.epoch = step
        x, y = points[0]
        hidden = weights["backbone.weight"] @ x + weights["backbone.bias"]
        # d/d output of (output - y)^2, back through the head and the ReLU
        outer = 2 * (weights["head.weight"] @ hidden.relu() - y)
        inner = outer * weights["head.weight"][0] * (hidden > 0)
        gradients = {
            "head.weight": outer * hidden.relu()[None],
            "backbone.weight": inner[:, None] * x,
            "backbone.bias": inner,
        }
        for name, gradient in gradients.items():
            own_decay = 0.0 if name.endswith("bias") else decay
            velocity[name] = momentum * velocity[name] + gradient + own_decay * weights[name]
            rate = 0.01 * (1 - step / steps) ** 0.9 * multiples[name]
            weights[name] = weights[name] - rate * velocity[name]

    values = settings(epochs=steps, momentum=momentum, weight_decay=decay)
    fit("t", model, One(), squared, values, folder=tmp_path, seed=0, hardware=CPU)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[name])


def test_interrupted_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, figures = train(tmp_path / "whole", Points())
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", Points(stop_in_epoch=2))
    assert (tmp_path / "cut" / CHECKPOINT).is_file()
    resumed, again = train(tmp_path / "cut", Points())
    assert figures == again
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_the_number_of_loading_processes_changes_nothing(tmp_path: Path) -> None:
    alone, _ = train(tmp_path / "a", Points(), epochs=1)
    torch.manual_seed(0)
    other = Net()
    hardware = Hardware("cpu", workers=2)
    fit(
        "t",
        other,
        Points(),
        squared,
        settings(epochs=1),
        folder=tmp_path,
        seed=5,
        hardware=hardware,
    )
    assert torch.equal(alone.head.weight, other.head.weight)


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one, _ = train(tmp_path / "a", Points(), epochs=1)
    torch.manual_seed(0)
    two = Net()
    fit("t", two, Points(), squared, settings(epochs=1), folder=tmp_path, seed=6, hardware=CPU)
    assert not torch.equal(one.head.weight, two.head.weight)


def test_a_loss_that_explodes_is_said_with_the_setting_to_change(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"loss is .* lower learning_rate"):
        train(tmp_path, Points(), learning_rate=1e30)


def test_a_set_smaller_than_a_batch_trains(tmp_path: Path) -> None:
    _, figures = train(tmp_path, Points(), batch_size=64)
    assert figures["steps"] == 4
