"""Banks of patches: who fills them, that they repeat, and that they find what others lack."""

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from affinitynet.data import Sample
from affinitynet.errors import UserError
from affinitynet.models.backbone import TimmBackbone
from affinitynet.models.contrast import BankBuilder, Banks, PatchNetwork, images_without
from affinitynet.models.vgg16 import VGG16
from affinitynet.run_folder.settings import ContrastSettings

SETTINGS = ContrastSettings(bank=200)


def samples(count: int) -> list[Sample]:
    """Every third image shows class 0, all show class 1, none class 2."""
    return [
        Sample(f"i{n:02}", Path(f"i{n:02}.png"), (0, 1) if n % 3 == 0 else (1,))
        for n in range(count)
    ]


def patches(number: int) -> Tensor:
    """Noise (8, 6, 7); the first map's four channels are larger than the second's."""
    noise = torch.randn(8, 6, 7, generator=Generator().manual_seed(number))
    return noise * torch.tensor([50.0] * 4 + [1.0] * 4)[:, None, None]


def build(without: dict[int, list[str]], seed: int = 0, *, backwards: bool = False) -> Banks:
    builder = BankBuilder(without, (4, 4), SETTINGS)
    direction = -1 if backwards else 1
    for name in builder.bank_images[::direction]:
        builder.collect(name, patches(int(name[1:])), seed)
    builder.fill(seed)
    for name in builder.scale_images[::direction]:
        builder.measure(name, patches(int(name[1:])))
    return builder.banks


def test_banks_come_from_images_without_the_tag() -> None:
    without = images_without(samples(30), 3, seed=0)
    assert set(without) == {0, 2}  # class 1 is everywhere
    assert set(without[0]) == {sample.id for sample in samples(30) if 0 not in sample.tags}
    assert set(without[2]) == {sample.id for sample in samples(30)}


def test_the_seed_chooses_the_images() -> None:
    assert images_without(samples(30), 3, seed=0) == images_without(samples(30), 3, seed=0)
    assert images_without(samples(30), 3, seed=0) != images_without(samples(30), 3, seed=1)


def test_an_object_that_the_bank_lacks_is_above_one() -> None:
    banks = build(images_without(samples(30), 3, seed=0))
    image = patches(99)
    image[:, 2:4, 3:5] += 6 * torch.tensor([50.0] * 4 + [1.0] * 4)[:, None, None]
    scores = banks.scores((0, 1), image, 3)
    assert scores.shape == (2, 6, 7)
    inside = torch.zeros(6, 7, dtype=torch.bool)
    inside[2:4, 3:5] = True
    assert scores[0][inside].min() > 1.5
    assert (scores[0][~inside] > 1).float().mean() < 0.1
    assert (scores[1] == 0).all()  # nothing to contrast class 1 with


def test_images_without_the_class_set_the_scale() -> None:
    """Images that are in no bank are like those that set it: half below zero, 1 % above one."""
    banks = build(images_without(samples(30), 3, seed=0))
    scores = torch.stack([banks.scores((2,), patches(number), 3)[0] for number in range(50, 90)])
    assert float((scores == 0).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert float((scores > 1).float().mean()) == pytest.approx(0.01, abs=0.02)


def test_an_image_is_not_measured_by_its_own_patches() -> None:
    """Five images far from one another: with its own patches in the bank each would be near."""
    builder = BankBuilder({0: [f"i{n:02}" for n in range(5)]}, (4, 4), ContrastSettings(bank=210))
    for number, name in enumerate(builder.bank_images):
        builder.collect(name, patches(number) + 1000 * number, 0)
    builder.fill(0)
    for number, name in enumerate(builder.scale_images):
        builder.measure(name, patches(number) + 1000 * number)
    assert builder.banks.range[0][0] > 0.3  # of the five images' spread, which is 1


def test_the_order_of_images_does_not_matter() -> None:
    without = images_without(samples(30), 3, seed=0)
    one, other = build(without), build(without, backwards=True)
    for label in without:
        assert torch.equal(one.patches[label], other.patches[label])
        assert one.range[label] == other.range[label]
    assert not torch.equal(one.patches[0], build(without, seed=1).patches[0])


def test_banks_survive_the_disk(tmp_path: Path) -> None:
    banks = build(images_without(samples(30), 3, seed=0))
    file = tmp_path / "banks.safetensors"
    assert Banks.read(file) is None
    banks.write(file)
    read = Banks.read(file)
    assert read is not None
    image = patches(99)
    assert torch.equal(read.scores((0, 2), image, 3), banks.scores((0, 2), image, 3))
    file.write_bytes(file.read_bytes()[:100])
    assert Banks.read(file) is None


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("test_resnet", (8, 16), (48, 192)),
        ("test_resnet", (16, 4, 8), (192, 32, 48)),
        ("test_byobnet", (4,), (32,)),
    ],
)
def test_patches_lie_on_the_grid_of_the_first_stride(
    name: str, strides: tuple[int, ...], channels: tuple[int, ...]
) -> None:
    network = PatchNetwork(TimmBackbone(name, 32), strides)
    assert network.channels == channels
    with torch.inference_mode():
        found = network(torch.rand(2, 3, 64, 96))
    assert found.shape == (2, sum(channels), 64 // strides[0], 96 // strides[0])


def test_a_stride_that_the_network_lacks_is_named() -> None:
    with pytest.raises(UserError, match=r"contrast\.strides: .* no map of stride 32; choose from"):
        PatchNetwork(VGG16(width=1 / 16), (32,))
