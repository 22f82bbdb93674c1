import hashlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.models.heads import AffinityHead, CamHead
from affinitynet.models.resnet38 import ResNet38
from affinitynet.models.vgg16 import VGG16
from affinitynet.models.weights import (
    ConversionReport,
    convert_weights,
    load_backbone,
    load_weights,
)
from affinitynet.models.weights.layouts import recognize

# The names and shapes of the four networks that the paper's authors published checkpoints of:
# tensors, parameters, trainable parameters, and
# sha256("\n".join(sorted(f"{name} {tuple(shape)}" for each tensor of the state dict))).
PUBLISHED = {
    ("resnet38", "classifier"): (
        229,
        105_152_832,
        104_284_160,
        "2a55850fa57b9f66cb48d20cabf19acbebdd9677f6452d174ee047f9100139cb",
    ),
    ("resnet38", "affinity"): (
        232,
        106_484_032,
        105_615_360,
        "de0dd2e484f15388b92dbed615d7d3a9e25db6c2be02e9b8e7be5425a0e219cd",
    ),
    ("vgg16", "classifier"): (
        31,
        20_504_384,
        20_244_224,
        "ecd175b122303c1876961ebaf9648bad3f259c02f92dd3b3a272c953a7c008c4",
    ),
    ("vgg16", "affinity"): (
        40,
        21_045_952,
        20_785_792,
        "59163e756ae69a3a9ca4265972c26ec2f943fe7aa558a759e938ba71e99598c7",
    ),
}
NETWORKS = list(PUBLISHED)
LAYERS = {"fc": "fc8", "reduce.0": "f8_3", "reduce.1": "f8_4", "reduce.2": "f8_5", "mix": "f9"}
LAYERS |= {f"norm.{i}": f"gn8_{i + 3}" for i in range(3)}


def network_of(name: str, head: str, width: float = 1.0, classes: int = 20) -> nn.ModuleDict:
    backbone: ResNet38 | VGG16 = (
        ResNet38(width) if name == "resnet38" else VGG16(4 if head == "affinity" else 1, width)
    )
    top = (
        AffinityHead(backbone.channels, group_norm=name == "vgg16")
        if head == "affinity"
        else CamHead(backbone.channels[-1], classes)
    )
    return nn.ModuleDict({"backbone": backbone, "head": top})


def published_state(paper: SimpleNamespace, name: str, head: str) -> dict[str, Tensor]:
    backbone = paper.resnet38_state() if name == "resnet38" else paper.vgg16_state()
    return {**backbone, **paper.head_state(head, name)}


def published_name(ours: str) -> str:
    part, name = ours.split(".", 1)
    if part == "backbone":
        return name
    layer, _, value = name.rpartition(".")
    return f"{LAYERS[layer]}.{value}"


@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_names_shapes_and_counts_are_the_published_ones(name: str, head: str) -> None:
    tensors, parameters, trainable, digest = PUBLISHED[name, head]
    with torch.device("meta"):
        network = network_of(name, head)
    state = {published_name(ours): t for ours, t in network.state_dict().items()}
    lines = sorted(f"{key} {tuple(tensor.shape)}" for key, tensor in state.items())
    assert len(lines) == tensors
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == digest
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == trainable
    # And the full-width file is recognised as what it is, each tensor at its own place.
    weights = recognize(state, "psa")
    assert weights.kind == f"psa {type(network['backbone']).__name__} {head}"
    assert {key: t.shape for key, t in weights.tensors.items()} == {
        key: t.shape for key, t in network.state_dict().items()
    }


def output(network: nn.ModuleDict, images: Tensor) -> Tensor:
    maps = network["backbone"](images)
    head = network["head"]
    result: Tensor = head(maps if isinstance(head, AffinityHead) else maps[-1])
    return result


def expected_output(paper: SimpleNamespace, name: str, head: str, images: Tensor) -> Tensor:
    state = published_state(paper, name, head)
    if name == "resnet38":
        maps = paper.resnet38(images, state)
    else:
        maps = paper.vgg16(images, state, 4 if head == "affinity" else 1)
    if head == "affinity":
        features: Tensor = paper.affinity_features(maps, state)
        return features
    scores: Tensor = maps[-1].mean((2, 3)) @ state["fc8.weight"].double().flatten(1).T
    return scores


@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_a_published_checkpoint_computes_what_the_paper_says(
    tmp_path: Path, paper: SimpleNamespace, images: Tensor, name: str, head: str
) -> None:
    path = tmp_path / "released.pth"
    torch.save(published_state(paper, name, head), path)
    network = network_of(name, head, paper.width, paper.classes).eval()
    weights = load_weights(path)
    assert weights.dropped == ()
    network.load_state_dict(weights.tensors, strict=True)
    expected = expected_output(paper, name, head, images)
    torch.testing.assert_close(output(network, images).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_a_converted_checkpoint_is_the_whole_network(
    tmp_path: Path, paper: SimpleNamespace, name: str, head: str
) -> None:
    path, converted = tmp_path / "released.pth", tmp_path / "converted.safetensors"
    state = published_state(paper, name, head)
    torch.save(state, path)
    report = convert_weights(path, converted)
    assert (report.dropped, report.missing) == ((), ())
    network = network_of(name, head, paper.width, paper.classes)
    network.load_state_dict(load_weights(converted).tensors, strict=True)
    for ours, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[published_name(ours)]), ours
    again = convert_weights(converted, tmp_path / "again.safetensors")
    assert (again.kind, again.dropped, again.missing) == ("affinitynet", (), ())


def legacy(state: dict[str, Tensor], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def parallel(state: dict[str, Tensor], path: Path) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)


def wrapped(state: dict[str, Tensor], path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": state}, path)


def older(state: dict[str, Tensor], path: Path) -> None:
    torch.save({k: t for k, t in state.items() if not k.endswith("num_batches_tracked")}, path)


def half(state: dict[str, Tensor], path: Path) -> None:
    torch.save({k: t.half() if t.is_floating_point() else t for k, t in state.items()}, path)


@pytest.mark.parametrize("write", [legacy, parallel, wrapped, older, half])
def test_checkpoints_come_in_many_wrappings(tmp_path: Path, paper: SimpleNamespace, write) -> None:
    state = published_state(paper, "resnet38", "classifier")
    path = tmp_path / "checkpoint.pth"
    write(state, path)
    network = network_of("resnet38", "classifier", paper.width, paper.classes)
    weights = load_weights(path)
    assert weights.kind == "psa ResNet38 classifier"
    report = load_backbone(network["backbone"], path)
    assert (report.missing, report.dropped) == ((), ("fc8.weight",))
    network.head.load_state_dict({"fc.weight": weights.tensors["head.fc.weight"]})
    tolerance = 1e-2 if write is half else 0
    for ours, tensor in network.state_dict().items():
        expected = state[published_name(ours)]
        torch.testing.assert_close(tensor, expected, rtol=tolerance, atol=tolerance)


def test_a_backbone_takes_a_whole_networks_file_without_its_head(
    tmp_path: Path, paper: SimpleNamespace
) -> None:
    path, converted = tmp_path / "cls.pth", tmp_path / "cls.safetensors"
    torch.save(published_state(paper, "vgg16", "classifier"), path)
    convert_weights(path, converted)
    for file, head in ((path, "fc8.weight"), (converted, "head.fc.weight")):
        backbone = VGG16(width=paper.width)
        report = load_backbone(backbone, file)
        assert report.dropped == (head,)
        assert (len(report.recognised), report.missing) == (30, ())
        for name, tensor in paper.vgg16_state().items():
            assert torch.equal(backbone.state_dict()[name], tensor)


def test_a_followers_extra_layers_are_dropped(tmp_path: Path, paper: SimpleNamespace) -> None:
    path = tmp_path / "seam.pth"
    state = published_state(paper, "resnet38", "classifier")
    state |= {"f8_3.weight": torch.ones(64, 32, 1, 1), "f9.weight": torch.ones(192, 195, 1, 1)}
    torch.save(state, path)
    report = convert_weights(path, tmp_path / "seam.safetensors")
    assert report.kind == "psa ResNet38 classifier"
    assert report.dropped == ("f8_3.weight", "f9.weight")


class Wrapped(nn.Module):
    """A timm network as the backbone of it holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = timm.create_model("mobilenetv2_050", num_classes=0, global_pool="")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_timm_file_goes_into_the_network_inside(tmp_path: Path, suffix: str) -> None:
    state = timm.create_model("mobilenetv2_050", num_classes=7).state_dict()
    path = tmp_path / f"mobilenet{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    backbone = Wrapped()
    report = load_backbone(backbone, path)
    assert report.kind == "timm"
    assert sorted(report.dropped) == ["classifier.bias", "classifier.weight"]
    assert report.missing == ()
    for name, tensor in backbone.net.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_our_own_file_goes_back_into_its_backbone(tmp_path: Path) -> None:
    first, second = Wrapped(), Wrapped()
    path = tmp_path / "weights.safetensors"
    state = {f"backbone.{name}": tensor for name, tensor in first.state_dict().items()}
    save_file({**state, "head.fc.weight": torch.ones(3, 1280, 1, 1)}, path)
    report = load_backbone(second, path)
    assert (report.kind, report.dropped) == ("affinitynet", ("head.fc.weight",))
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, first.state_dict()[name])


def test_a_file_that_fits_nowhere_is_refused_with_both_sides_named(
    tmp_path: Path, paper: SimpleNamespace
) -> None:
    path = tmp_path / "vgg.pth"
    torch.save(paper.vgg16_state(), path)
    with pytest.raises(UserError, match=r"vgg\.pth .*fits nowhere.*conv1_1.*conv1a"):
        load_backbone(ResNet38(paper.width), path)
    other = tmp_path / "other.pth"
    torch.save({"a.weight": torch.ones(2)}, other)
    with pytest.raises(UserError, match=r"fits nowhere.*a\.weight.*net\.conv_stem\.weight"):
        load_backbone(Wrapped(), other)
    with pytest.raises(UserError, match=r"other\.pth: none of the paper's networks"):
        convert_weights(other, tmp_path / "out.safetensors")


def test_another_width_is_refused_with_both_shapes(tmp_path: Path, paper: SimpleNamespace) -> None:
    path = tmp_path / "cls.pth"
    torch.save(published_state(paper, "resnet38", "classifier"), path)
    with pytest.raises(UserError, match=r"conv1a\.weight has the shape \(4, 3, 3, 3\)"):
        load_backbone(ResNet38(1 / 8), path)


def test_a_refused_file_leaves_the_network_as_it_was(
    tmp_path: Path, paper: SimpleNamespace
) -> None:
    path = tmp_path / "cls.pth"
    torch.save(published_state(paper, "resnet38", "classifier"), path)
    backbone = ResNet38(2 * paper.width)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(UserError):
        load_backbone(backbone, path)
    assert all(torch.equal(t, before[name]) for name, t in backbone.state_dict().items())


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    path, touched = tmp_path / "evil.pth", tmp_path / "touched"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (touched,))

    torch.save({"conv1a.weight": Evil()}, path)
    with pytest.raises(UserError, match="holds more than tensors"):
        load_weights(path)
    assert not touched.exists()


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "legacy.pt"])
def test_a_file_cut_anywhere_is_refused_in_words(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    state = {"conv1a.weight": torch.ones(4, 3, 3, 3)}
    if name == "a.safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "a.pth")
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=name):
            load_weights(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no state dict"),
        ([torch.ones(1)], "no state dict"),
        ({"epoch": 3}, "no tensors under names"),
        (torch.ones(1), "no state dict"),
    ],
)
def test_a_checkpoint_without_weights_is_refused_in_words(
    tmp_path: Path, content: object, message: str
) -> None:
    path = tmp_path / "x.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match=message):
        load_weights(path)


def test_missing_files_and_unknown_endings_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth: no such weights file"):
        load_weights(tmp_path / "nowhere.pth")
    (tmp_path / "x.h5").write_bytes(b"x")
    with pytest.raises(UserError, match=r"x\.h5: .*\.caffemodel"):
        load_weights(tmp_path / "x.h5")
    with pytest.raises(UserError, match=r"out\.pth: .*\.safetensors"):
        convert_weights(tmp_path / "x.h5", tmp_path / "out.pth")


def test_the_report_reads_as_text() -> None:
    dropped = tuple(f"extra{i}" for i in range(10))
    report = ConversionReport("MXNet ResNet38", ("a", "b"), dropped, ())
    assert str(report).splitlines() == [
        "kind: MXNet ResNet38",
        "recognised: 2 tensors",
        "dropped: extra0, extra1, extra2, extra3, extra4, extra5, extra6, extra7 and 2 more",
        "missing: nothing",
    ]
