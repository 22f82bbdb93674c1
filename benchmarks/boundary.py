"""Boundary affinities and the walk over them against dense torch, one CPU thread on each side.

    python benchmarks/boundary.py                  47x63 grid: a 375x500 image at stride 8
    python benchmarks/boundary.py --stride 4 --peer-repeats 0   94x125; the dense walk: minutes

The peer gathers the boundaries of all cells of all paths, takes their maximum, fills an N x N
matrix and squares it eight times: t = 256 steps, beta 8. With --peer-repeats 0 it builds the
affinities alone. The boundary map is smoothed noise with thin ridges, as a trained one has.
"""

import argparse
import statistics

import torch
from dense_walk import dense_walk
from measure import alternate, in_words, one_thread, seconds
from torch import Tensor

from affinitynet.ops import boundary_affinity, neighbor_offsets, random_walk
from affinitynet.ops.boundary import line_cells


def scene(height: int, width: int, maps: int) -> tuple[Tensor, Tensor]:
    """Make (1, K, h, w) maps and a (1, h, w) boundary, which is high in thin lines."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 1, height // 8 + 2, width // 8 + 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return torch.rand(1, maps, height, width, generator=generator), torch.exp(-20 * smooth.abs())


def gathered(boundary: Tensor, radius: int) -> Tensor:
    """1 - the maximum over gathered paths: (1, h, w) -> (P, h, w), 0 outside."""
    _, height, width = boundary.shape
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    result = []
    for dy, dx in neighbor_offsets(radius).tolist():
        cells = line_cells(dy, dx)
        y = torch.stack([(rows + y).clamp(max=height - 1) + 0 * columns for y, _ in cells])
        x = torch.stack([(columns + x).clamp(0, width - 1) + 0 * rows for _, x in cells])
        inside = (rows + dy < height) & (columns + dx >= 0) & (columns + dx < width)
        result.append((1 - boundary[0][y, x].amax(0)) * inside)
    return torch.stack(result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--height", type=int, default=375, help="of the image")
    parser.add_argument("--width", type=int, default=500, help="of the image")
    parser.add_argument("--stride", type=int, default=8, help="image pixels per grid pixel")
    parser.add_argument("--radius", type=int, default=5)
    parser.add_argument("--maps", type=int, default=3, help="K")
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--peer-repeats", type=int, default=2, help="dense walks; 0: none")
    arguments = parser.parse_args()
    one_thread()
    height, width = (-(-s // arguments.stride) for s in (arguments.height, arguments.width))
    radius = arguments.radius
    maps, boundary = scene(height, width, arguments.maps)

    def walked() -> Tensor:
        return random_walk(maps, boundary_affinity(boundary, radius), radius=radius)

    def dense() -> Tensor:
        return dense_walk(maps[0], gathered(boundary, radius), radius=radius)

    first = seconds(walked)
    leaf = boundary.clone().requires_grad_()
    calls = {
        "affinity": lambda: boundary_affinity(boundary, radius),
        "affinity, gathered": lambda: gathered(boundary, radius),
        "affinity, with gradient": lambda: boundary_affinity(leaf, radius).sum().backward(),
        "affinity and walk": walked,
    }
    repeats = dict.fromkeys(calls, arguments.repeats)
    if arguments.peer_repeats:
        calls["affinity and walk, dense"] = dense
        repeats["affinity and walk, dense"] = arguments.peer_repeats
    times = alternate(calls, repeats)
    same = boundary_affinity(boundary, radius)[0] - gathered(boundary, radius)
    print(f"grid {height}x{width}, radius {radius}, K = {arguments.maps}, t = 256")
    print(f"largest difference of the affinities: {float(same.abs().max()):.1e}")
    if arguments.peer_repeats:
        print(f"largest difference of the walks: {float((walked()[0] - dense()).abs().max()):.1e}")
    print(f"first call, compilation or its cache included: {first:.2f} s\n")
    print("| | median (range) |\n|---|---|")
    for name, found in times.items():
        print(f"| {name}, {len(found)} runs | {in_words(found)} |")
    for name, peer in (
        ("affinity", "affinity, gathered"),
        ("affinity and walk", "affinity and walk, dense"),
    ):
        if peer in times:
            ratio = statistics.median(times[peer]) / statistics.median(times[name])
            print(f"\n{peer} takes {ratio:,.0f} times as long as ours")


if __name__ == "__main__":
    main()
