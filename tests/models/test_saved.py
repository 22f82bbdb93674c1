"""Networks on disk: built from `model.json` alone, and what is said where it is damaged."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.models.affinity_net import AffinityNet, build_affinity_net, describe_affinity_net
from affinitynet.models.classifier import Classifier, build_classifier, describe_classifier
from affinitynet.models.saved import Description, save_model
from affinitynet.models.segmenter import (
    Segmenter,
    build_segmentation_net,
    describe_segmenter,
)
from affinitynet.run_folder.settings import (
    AffinitySettings,
    BackboneSettings,
    ClassifierSettings,
    SegmenterSettings,
)

SMALL = BackboneSettings(name="test_resnet", weights="none")
CLASSES = ("cat", "dog")
AFFINITY = AffinitySettings(output_stride=16, radius=3, distance="sum", scale=2)
SEGMENTER = SegmenterSettings(architecture="unet", scales=(0.5, 1.0), refine=True)

Make = Callable[[], tuple[nn.Module, Description]]


def classifier() -> tuple[nn.Module, Description]:
    settings = ClassifierSettings(output_stride=8)
    return build_classifier(SMALL, settings, CLASSES), describe_classifier(SMALL, settings, CLASSES)


def affinity_net() -> tuple[nn.Module, Description]:
    return build_affinity_net(SMALL, AFFINITY), describe_affinity_net(SMALL, AFFINITY)


def segmenter() -> tuple[nn.Module, Description]:
    net = build_segmentation_net(SEGMENTER, SMALL, len(CLASSES) + 1)
    return net, describe_segmenter(SMALL, SEGMENTER, CLASSES)


KINDS: dict[str, tuple[Make, Callable[[Path], Any]]] = {
    "classifier": (classifier, Classifier.load),
    "affinity": (affinity_net, AffinityNet.load),
    "segmenter": (segmenter, lambda folder: Segmenter.load(folder).net),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def folder(kind: str, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(tmp_path, *KINDS[kind][0]())
    return tmp_path


def images() -> Tensor:
    return torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_a_network_is_built_from_its_folder_alone(kind: str, tmp_path: Path) -> None:
    make, load = KINDS[kind]
    model, description = make()
    save_model(tmp_path, model, description)
    loaded = load(tmp_path)
    assert not loaded.training
    torch.testing.assert_close(loaded(images()), model.eval()(images()))  # another memory format
    assert json.loads((tmp_path / "model.json").read_text())["kind"] == kind


@torch.no_grad()
def test_a_loaded_classifier_makes_the_same_cams(tmp_path: Path) -> None:
    model, description = classifier()
    assert isinstance(model, Classifier)
    save_model(tmp_path, model, description)
    assert torch.equal(Classifier.load(tmp_path).cams(images()), model.eval().cams(images()))


@torch.no_grad()
def test_trained_norms_and_pooling_are_saved_and_frozen_when_not_said(tmp_path: Path) -> None:
    """Statistics that a training moved come back, and so does what a score is."""
    torch.manual_seed(0)
    pretrained = BackboneSettings(name="test_resnet", weights="imagenet")
    settings = ClassifierSettings(output_stride=16, norm="trained", pooling="top")
    model = build_classifier(pretrained, settings, CLASSES, pretrained=False)
    model.train()(3 + images())
    description = describe_classifier(pretrained, settings, CLASSES)
    save_model(tmp_path, model, description)
    loaded = Classifier.load(tmp_path)
    torch.testing.assert_close(loaded(images()), model.eval()(images()))
    assert any(p.requires_grad for name, p in loaded.named_parameters() if ".bn" in name)
    file = tmp_path / "model.json"
    former = {k: v for k, v in json.loads(file.read_text()).items() if k not in ("norm", "pooling")}
    file.write_text(json.dumps(former), encoding="utf-8")
    plain = Classifier.load(tmp_path)
    assert plain.head.pooling == "average"
    assert not any(p.requires_grad for name, p in plain.named_parameters() if ".bn" in name)


def test_an_affinity_network_takes_over_a_classifiers_statistics() -> None:
    pretrained = BackboneSettings(name="test_resnet", weights="imagenet")
    settings = ClassifierSettings(output_stride=16, norm="trained")
    classifier = build_classifier(pretrained, settings, CLASSES, pretrained=False)
    with torch.no_grad():
        classifier.train()(3 + images())
    for norm in ("frozen", "trained"):
        own = AffinitySettings(output_stride=16, norm=norm)  # type: ignore[arg-type]
        net = build_affinity_net(pretrained, own, pretrained=False)
        net.backbone.load_state_dict(classifier.backbone.state_dict())
        assert torch.equal(
            net.backbone.get_buffer("net.layer4.0.bn1.running_mean"),
            classifier.backbone.get_buffer("net.layer4.0.bn1.running_mean"),
        )
        trains = net.train().backbone.get_submodule("net.layer4.0.bn1").training
        assert trains is (norm == "trained")
        assert describe_affinity_net(pretrained, own).norm == norm


def test_an_affinity_network_knows_its_grid(tmp_path: Path) -> None:
    save_model(tmp_path, *affinity_net())
    net = AffinityNet.load(tmp_path)
    assert (net.radius, net.distance, net.scale, net.stride) == (3, "sum", 2, 4)


@pytest.mark.parametrize(("name", "norm"), [("vgg16", True), ("resnet38", False)])
def test_vggs_affinity_head_has_group_norm(name: str, norm: bool) -> None:
    """And its fc6 the dilation 4, both as published."""
    backbone = BackboneSettings(name=name, weights="none")
    with torch.device("meta"):
        net = build_affinity_net(backbone, AffinitySettings())
    assert (net.head.norm is not None) is norm
    if norm:
        assert net.backbone.get_submodule("fc6").dilation == (4, 4)
    assert describe_affinity_net(backbone, AffinitySettings()).group_norm is norm


def test_a_segmenter_knows_how_to_predict(tmp_path: Path) -> None:
    save_model(tmp_path, *segmenter())
    loaded = Segmenter.load(str(tmp_path))
    assert loaded.classes == CLASSES
    assert loaded.settings.model_dump() == SEGMENTER.model_dump()


def test_a_segmenters_own_backbone_is_the_one_described() -> None:
    other = BackboneSettings(name="test_byobnet", weights="none")
    settings = SegmenterSettings(backbone=other)
    described = describe_segmenter(SMALL, settings, CLASSES).backbone.model_dump()
    assert described == other.model_dump(exclude_none=True)


def test_keys_of_a_later_version_are_passed_over(kind: str, folder: Path) -> None:
    file = folder / "model.json"
    content = json.loads(file.read_text())
    content["new"] = content["backbone"]["new"] = 1
    if kind == "segmenter":
        content["settings"]["new"] = content["settings"]["crf"]["new"] = 1
    file.write_text(json.dumps(content))
    KINDS[kind][1](folder)


def change(folder: Path, **values: Any) -> None:
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "poodle"},
        {"backbone": None},
        {"backbone": {"name": 1}},
        {"backbone": {"nam": "test_resnet", "weights": "none"}},
        {"backbone": {"name": "zzz"}},
        {"output_stride": 3, "radius": 10**9, "settings": {"output_stride": 3}},
        {"classes": 7, "scale": 10**6},
    ],
)
def test_a_damaged_description_is_one_line(kind: str, folder: Path, damage: dict[str, Any]) -> None:
    change(folder, **damage)
    with pytest.raises(UserError) as caught:
        KINDS[kind][1](folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'model.json'}: ")
    assert message.endswith(f"; make it again with --redo train_{kind}")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '"classifier"', "\ud800"])
def test_what_is_no_description_is_one_line(kind: str, folder: Path, text: str) -> None:
    (folder / "model.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=rf"model\.json: .*--redo train_{kind}$"):
        KINDS[kind][1](folder)


def test_another_kind_of_network_is_refused(kind: str, folder: Path) -> None:
    for name in KINDS.keys() - {kind}:
        with pytest.raises(UserError, match=rf"model\.json: .*kind: .*--redo train_{name}$"):
            KINDS[name][1](folder)


def test_a_network_of_version_0_1_says_what_to_do(tmp_path: Path) -> None:
    """Of a classifier it wrote the classes alone; the recipe had to say the rest."""
    save_model(tmp_path, *classifier())
    (tmp_path / "model.json").write_text('{"kind": "classifier", "classes": ["cat", "dog"]}')
    with pytest.raises(UserError, match=r"model\.json: .*backbone: .*--redo train_classifier$"):
        Classifier.load(tmp_path)


def test_a_folder_without_a_network_is_said(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"holds no trained model \(model\.json is missing\)"):
        KINDS[kind][1](tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut", "another"])
def test_damaged_weights_are_one_line(kind: str, folder: Path, damage: str) -> None:
    file = folder / "weights.safetensors"
    whole = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "another":
        save_model(folder / "other", nn.Linear(1, 1), describe_affinity_net(SMALL, AFFINITY))
        (folder / "other" / "weights.safetensors").rename(file)
    with pytest.raises(UserError) as caught:
        KINDS[kind][1](folder)
    assert str(caught.value).startswith(f"{file}: can't be loaded (")
    assert str(caught.value).endswith(f"make it again with --redo train_{kind}")
    assert "\n" not in str(caught.value)


def test_a_segmenter_goes_to_a_device_by_name(tmp_path: Path) -> None:
    save_model(tmp_path, *segmenter())
    assert next(Segmenter.load(tmp_path, torch.device("cpu")).net.parameters()).is_cpu
    with pytest.raises(UserError, match="device = 'gpu': not the name of a device"):
        Segmenter.load(tmp_path, "gpu")


def test_a_full_disk_while_saving_weights_is_a_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    model, description = classifier()
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"weights\.safetensors: can't be written"):
        save_model(tmp_path, model, description)
