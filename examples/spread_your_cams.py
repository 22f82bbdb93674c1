"""Spread class activation maps of your own method with this project's walk and dense CRF.

A later method often has its own CAMs and its own features, and wants only the second step of
AffinityNet. This script makes up both for one image: two squares on a noisy ground, each with a
CAM that lights up a corner of its square and spills over its edge, and colors as the features.
The affinities of neighboring cells carry each CAM over its whole square.

    python examples/spread_your_cams.py
"""

import torch
import torch.nn.functional as F

import affinitynet as an

STRIDE = 8


def make_scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return an image (H, W, 3) uint8, its CAMs (2, H, W) and its true labels (H, W)."""
    torch.manual_seed(0)
    truth = torch.zeros(128, 160, dtype=torch.long)
    truth[24:88, 16:72] = 1
    truth[48:112, 96:144] = 2
    colors = torch.tensor([[110, 120, 100], [200, 80, 60], [60, 90, 200]])
    image = (colors[truth] + 12 * torch.randn(128, 160, 3)).clamp(0, 255).to(torch.uint8)
    cams = torch.stack([bump(34, 26), bump(58, 106)])
    return image, cams, truth


def bump(y: int, x: int, width: float = 24.0) -> torch.Tensor:
    """Return a map (H, W) that is 1 at (y, x) and falls off around it, as a coarse CAM does."""
    rows, columns = torch.arange(128)[:, None], torch.arange(160)[None]
    return torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2))


def accuracy(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the share of pixels whose strongest score is the true label's."""
    return float((scores.argmax(0) == truth).float().mean())


def main() -> None:
    """Print how many pixels are right before the walk, after it, and after the dense CRF."""
    image, cams, truth = make_scene()
    maps = torch.cat([an.ops.background_map(cams, alpha=16), cams])
    features = F.avg_pool2d(image.permute(2, 0, 1)[None].float() / 16, STRIDE)
    affinity = an.ops.pairwise_affinity(features, radius=5)
    walked = an.ops.random_walk(F.avg_pool2d(maps[None], STRIDE), affinity, beta=8, steps=256)
    spread = F.interpolate(walked, truth.shape, mode="bilinear", align_corners=False)[0]
    refined = an.ops.dense_crf(image, spread)
    for name, scores in (("CAM", maps), ("random walk", spread), ("dense CRF", refined)):
        print(f"{name:12} {accuracy(scores, truth):6.1%} of pixels right")


if __name__ == "__main__":
    main()
