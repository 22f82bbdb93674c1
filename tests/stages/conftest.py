"""A run up to its CAMs; bilinear interpolation written out, for the stages' slow twins."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from affinitynet.pipeline import Run


@pytest.fixture
def with_cams(finished: Run, begin: Callable[[Run, Path, str], None], tmp_path: Path) -> Path:
    """The tiny recipe's run folder as it is when the CAMs are there."""
    begin(finished, tmp_path / "run", "mine_confident")
    return tmp_path / "run"


def _weights(inputs: int, outputs: int) -> Tensor:
    """Row i holds what output i takes of each input: pixels are areas, ends are repeated."""
    weights = torch.zeros(outputs, inputs, dtype=torch.float64)
    for i in range(outputs):
        source = max((i + 0.5) * inputs / outputs - 0.5, 0.0)  # align_corners = False
        low = min(math.floor(source), inputs - 1)
        weights[i, low] += 1 - (source - low)
        weights[i, min(low + 1, inputs - 1)] += source - low
    return weights


def _bilinear(maps: Tensor, height: int, width: int) -> Tensor:
    rows, columns = _weights(maps.shape[-2], height), _weights(maps.shape[-1], width)
    return rows @ maps.double() @ columns.T


@pytest.fixture
def bilinear() -> Callable[[Tensor, int, int], Tensor]:
    """Resize (..., h, w) to (..., height, width) in float64."""
    return _bilinear
