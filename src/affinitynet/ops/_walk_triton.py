"""The walk on a GPU: a launch for each Chebyshev term, over all samples and maps at once."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from affinitynet.ops._triton import launch

# Of a program: few cells, so that a small grid spreads over the whole GPU, and some maps and pairs
# of each, whose loads wait for one another's memory together.
CELLS, MOST_MAPS, PAIRS = 64, 4, 8


def walk(
    maps: Tensor, pairs: Tensor, offsets: Sequence[tuple[int, int]], coefficients: Sequence[float]
) -> Tensor:
    """Calculate sum_k c_k T_k(T) maps as `walk_torch` does, without its derivatives.

    Args:
        maps: (B, K, h, w) float32 or float64, on the GPU; so is the result.
        pairs: (B, P, h, w) of the same type, the affinities to the power beta.
        offsets: the P displacements (dy, dx).
        coefficients: c_0, c_1 and so on.
    """
    batch, count, height, width = maps.shape
    state, pairs = maps.contiguous(), pairs.contiguous()
    result, change = coefficients[0] * state, torch.zeros_like(state)
    if not maps.numel():
        return result
    # Two, in turns: others still read a state while the next one is written.
    buffers = [torch.empty_like(state) for _ in range(2)]
    steps = torch.tensor(offsets, dtype=torch.int32, device=maps.device)
    # As a tensor: Triton takes a float for float32.
    terms = torch.tensor(coefficients, dtype=maps.dtype, device=maps.device)
    width_of_maps = min(triton.next_power_of_2(count), MOST_MAPS)
    grid = (triton.cdiv(height * width, CELLS), triton.cdiv(count, width_of_maps), batch)
    for k in range(len(coefficients) - 1):
        following = buffers[k % 2]
        launch(
            *(_step, grid, state, change, following, result, pairs, steps, terms, k),
            *(count, height, width, len(offsets)),
            MAPS=width_of_maps,
            CELLS=CELLS,
            PAIRS=PAIRS,
            num_warps=2,
        )
        state = following
    return result


@triton.jit(do_not_specialize=["k", "count", "height", "width", "pairs_of_one"])  # type: ignore[untyped-decorator]
def _step(
    state: tl.tensor,
    change: tl.tensor,
    following: tl.tensor,
    result: tl.tensor,
    pairs: tl.tensor,
    offsets: tl.tensor,
    coefficients: tl.tensor,
    k: tl.tensor,
    count: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    pairs_of_one: tl.tensor,
    MAPS: tl.constexpr,
    CELLS: tl.constexpr,
    PAIRS: tl.constexpr,
) -> None:
    """Go from term k to the next, and add it: as `_flow` and `_chebyshev` of `_walk_tensors.py`.

    T_{k+1} - T_k = (T_k - T_{k-1}) + 2 (T - I) T_k, once instead of twice at k = 0.
    """
    cells = height * width
    sample = tl.program_id(2).to(tl.int64)  # a batch of graphs may pass 2^31 weights
    index = tl.program_id(1) * MAPS + tl.arange(0, MAPS)[:, None]
    cell = tl.program_id(0) * CELLS + tl.arange(0, CELLS)[None, :]
    y, x = cell // width, cell % width
    asked, inside = index < count, cell < cells
    here, at = asked & inside, (sample * count + index) * cells + cell
    pairs += sample * pairs_of_one * cells
    own = tl.load(state + at, mask=here, other=0.0)
    flow = tl.zeros_like(own)
    degree = tl.zeros((1, CELLS), own.dtype) + 1
    for done in range(0, pairs_of_one, PAIRS):
        pair = done + tl.arange(0, PAIRS)[:, None, None]
        known = pair < pairs_of_one
        dy = tl.load(offsets + 2 * pair, mask=known, other=0)
        dx = tl.load(offsets + 2 * pair + 1, mask=known, other=0)
        # A pair's weight lies at its first cell: at this one, then at the one behind it.
        for behind in tl.static_range(2):
            sign = 1 - 2 * behind
            row, column = y + sign * dy, x + sign * dx
            there = known & inside & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            ahead = sign * (dy * width + dx)
            first = pair * cells + cell + behind * ahead
            weight = tl.load(pairs + first, mask=there, other=0.0)
            value = tl.load(state + at + ahead, mask=there & asked, other=0.0)
            flow += tl.sum(weight * (value - own), axis=0)
            degree += tl.sum(weight, axis=0)
    moved = tl.load(change + at, mask=here, other=0.0) + tl.where(k > 0, 2, 1) * flow / degree
    tl.store(change + at, moved, mask=here)
    tl.store(following + at, own + moved, mask=here)
    sum_so_far = tl.load(result + at, mask=here, other=0.0)
    sum_so_far += tl.load(coefficients + k + 1) * (own + moved)
    tl.store(result + at, sum_so_far, mask=here)
