import numpy as np
import pytest
import torch

from affinitynet.ops.normalization import CAFFE_BGR, IMAGENET, Normalization


def pixels(*rgb: int) -> torch.Tensor:
    return torch.tensor(rgb, dtype=torch.uint8).view(3, 1, 1)


def test_imagenet_is_rgb_from_zero_to_one() -> None:
    expected = [(51 / 255 - 0.485) / 0.229, (102 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    assert IMAGENET.apply(pixels(51, 102, 255)).flatten().tolist() == pytest.approx(
        expected, rel=1e-5
    )


def test_caffe_is_bgr_from_zero_to_255() -> None:
    expected = [30 - 104.008, 20 - 116.669, 10 - 122.675]
    assert CAFFE_BGR.apply(pixels(10, 20, 30)).flatten().tolist() == pytest.approx(
        expected, rel=1e-6
    )


@pytest.mark.parametrize("normalization", [IMAGENET, CAFFE_BGR])
def test_batches_and_floats_give_what_single_bytes_give(normalization: Normalization) -> None:
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (2, 4, 3, 5, 6), dtype=np.uint8))
    batched = normalization.apply(images)
    assert batched.dtype == torch.float32
    assert torch.equal(normalization.apply(images.double()), batched)
    assert torch.equal(normalization.apply(images[1, 2]), batched[1, 2])


def test_the_mean_color_becomes_zero() -> None:
    mean = torch.tensor(CAFFE_BGR.mean).view(3, 1, 1)
    assert CAFFE_BGR.apply(mean).tolist() == torch.zeros(3, 1, 1).tolist()
    mean = torch.tensor(IMAGENET.mean).view(3, 1, 1) * 255
    assert IMAGENET.apply(mean).abs().max() == 0
