"""Every operation on CUDA: the same result as on the CPU, and it stays on the device.

Where there is Triton, a kernel of its that doesn't work on the device fails its tests here.

Where there is no GPU, the tensor paths that CUDA takes are held to the CPU's kernels on the CPU,
in the other files of this folder.
"""

from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

import affinitynet as an
from affinitynet.ops._choice import Choice
from affinitynet.ops._crf_choice import mean_field_cuda
from affinitynet.ops._mean_field import Settings
from affinitynet.ops._walk_choice import walk_cuda
from affinitynet.ops.affinity import displacements
from affinitynet.ops.random_walk import power_coefficients

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _kernels_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where Triton's kernels do not work: the tensor path would pass all tests here."""

    def fail(_: Choice, __: torch.device, reason: BaseException) -> None:
        raise reason

    monkeypatch.setattr(Choice, "_give_up", fail)


def assert_same(on_gpu: Tensor, on_cpu: Tensor, tolerance: float) -> None:
    assert on_gpu.is_cuda
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=tolerance)


def test_class_activation_maps() -> None:
    features, weight = torch.randn(2, 16, 9, 7), torch.randn(3, 16)
    maps = an.ops.class_activation_maps(features.cuda(), weight.cuda())
    assert_same(maps, an.ops.class_activation_maps(features, weight), 1e-4)


def test_background_map() -> None:
    cams = torch.rand(2, 3, 9, 7)
    assert_same(an.ops.background_map(cams.cuda(), 4), an.ops.background_map(cams, 4), 1e-6)


@pytest.mark.parametrize("labels", [1, 2, 4, 21])
def test_dense_crf(labels: int) -> None:
    image = torch.randint(0, 256, (60, 83, 3), dtype=torch.uint8)
    scores = torch.rand(labels, 60, 83)
    assert_same(
        an.ops.dense_crf(image.cuda(), scores.cuda()), an.ops.dense_crf(image, scores), 1e-3
    )


def test_confident_labels() -> None:
    image = torch.randint(0, 256, (60, 83, 3), dtype=torch.uint8)
    cams = torch.rand(2, 60, 83) ** 3
    labels = an.ops.confident_labels(image.cuda(), cams.cuda())
    assert labels.is_cuda
    assert (labels.cpu() == an.ops.confident_labels(image, cams)).float().mean() >= 0.9999


@pytest.mark.parametrize("radius", [2, 5, 10])
def test_pairwise_affinity_and_its_gradient(radius: int) -> None:
    features = torch.randn(2, 24, 23, 31)
    gradients, answers = [], []
    for device in ("cuda", "cpu"):
        x = features.to(device).requires_grad_()
        answers.append(an.ops.pairwise_affinity(x, radius))
        answers[-1].square().sum().backward()
        gradients.append(x.grad)
    assert_same(answers[0].detach(), answers[1].detach(), 1e-5)
    assert_same(gradients[0], gradients[1], 1e-4)


def test_affinity_targets_and_loss() -> None:
    labels = torch.randint(0, 3, (2, 23, 31))
    labels[torch.rand(labels.shape) < 0.2] = 255
    affinity = torch.rand(2, len(an.ops.neighbor_offsets(5)), 23, 31)
    on_gpu, on_cpu = an.ops.affinity_targets(labels.cuda()), an.ops.affinity_targets(labels)
    for one, other in zip(on_gpu, on_cpu, strict=True):
        assert torch.equal(one.cpu(), other)
    loss = an.ops.affinity_loss(affinity.cuda(), on_gpu)
    assert_same(loss.total, an.ops.affinity_loss(affinity, on_cpu).total, 1e-5)


@pytest.mark.parametrize("steps", [0, 7, 256])
def test_random_walk(steps: int) -> None:
    maps = torch.rand(2, 3, 23, 31)
    affinity = torch.rand(2, len(an.ops.neighbor_offsets(5)), 23, 31)
    on_gpu = an.ops.random_walk(maps.cuda(), affinity.cuda(), steps=steps)
    assert_same(on_gpu, an.ops.random_walk(maps, affinity, steps=steps), 5e-5)


def test_boundary_loss() -> None:
    logits, target = torch.randn(2, 3, 9, 7), torch.randn(2, 3, 9, 7).softmax(1)
    on_gpu = an.ops.boundary_loss(logits.cuda(), target.cuda())
    assert_same(on_gpu, an.ops.boundary_loss(logits, target), 1e-5)


@pytest.mark.parametrize("radius", [2, 5, 10])
def test_boundary_affinity_and_its_gradient(radius: int) -> None:
    boundary, gradients = torch.rand(2, 23, 31), []
    for device in ("cuda", "cpu", "cuda"):
        x = boundary.to(device).requires_grad_()
        affinity = an.ops.boundary_affinity(x, radius)
        assert torch.equal(affinity.cpu(), an.ops.boundary_affinity(boundary, radius))
        (affinity * affinity.detach()).sum().backward()
        gradients.append(x.grad)
    assert_same(gradients[0], gradients[1], 1e-3)
    assert torch.equal(gradients[0], gradients[2])  # in the same order every time


def test_feature_affinity_restart_walk_and_pixel_adaptive_refinement() -> None:
    features, maps = torch.randn(1, 24, 23, 31), torch.rand(1, 2, 23, 31)
    affinity = an.ops.feature_affinity(features, 3)
    assert_same(an.ops.feature_affinity(features.cuda(), 3), affinity, 1e-5)
    walked = an.ops.restart_walk(maps, affinity, radius=3)
    assert_same(an.ops.restart_walk(maps.cuda(), affinity.cuda(), radius=3), walked, 1e-4)
    image = torch.randint(0, 256, (23, 31, 3), dtype=torch.uint8)
    refined = an.ops.pixel_adaptive_refinement(image, maps[0])
    assert_same(an.ops.pixel_adaptive_refinement(image.cuda(), maps[0].cuda()), refined, 1e-4)


@pytest.mark.skipif(find_spec("triton") is None, reason="no triton")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("shape", "radius"), [((2, 5, 23, 31), 5), ((1, 3, 47, 63), 10), ((3, 1, 1, 9), 2)]
)
def test_the_walk_of_triton_equals_that_in_tensors(
    shape: tuple[int, ...], radius: int, dtype: torch.dtype
) -> None:
    offsets = displacements(radius)
    maps = torch.rand(*shape, device="cuda", dtype=dtype)
    affinity = torch.rand(shape[0], len(offsets), *shape[2:], device="cuda", dtype=dtype)
    coefficients = power_coefficients(256, 1e-5)
    arguments = (maps, affinity, offsets, 8, coefficients)
    walked = walk_cuda(*arguments)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(walked, walk_cuda.plain(*arguments), rtol=0, atol=tolerance)
    assert torch.equal(walked, walk_cuda(*arguments))


@pytest.mark.skipif(find_spec("triton") is None, reason="no triton")
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 60, 83), (1, 21, 41, 30)])
def test_the_mean_field_of_triton_equals_that_in_tensors(shape: tuple[int, ...]) -> None:
    image = torch.randint(0, 256, (*shape[2:], 3), device="cuda").float()
    unary = -torch.rand(*shape, device="cuda").clamp(1e-5, 1).log().flatten(2)
    arguments = (image, unary, Settings(10, 3, 3, 80, 13, 10))
    refined = mean_field_cuda(*arguments)
    torch.testing.assert_close(refined, mean_field_cuda.plain(*arguments), rtol=0, atol=1e-3)
    assert torch.equal(refined, mean_field_cuda(*arguments))  # in the same order every time


def test_the_gradients_of_the_walk() -> None:
    maps, affinity = torch.rand(2, 3, 23, 31), torch.rand(2, 4, 23, 31)
    gradients = []
    for device in ("cuda", "cpu"):
        inputs = [values.to(device).requires_grad_() for values in (maps, affinity)]
        an.ops.random_walk(*inputs, steps=16, radius=2).square().sum().backward()
        gradients.append([values.grad for values in inputs])
    for on_gpu, on_cpu in zip(*gradients, strict=True):
        assert_same(on_gpu, on_cpu, 1e-4)
