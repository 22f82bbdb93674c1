"""Small data sets, written as the programs write them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from affinitynet.data import Manifest


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """Write images of noise (8 x 6) by their paths, each unlike the others; returns the root."""
    generator = np.random.default_rng(0)

    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8)).save(path)
        return tmp_path

    return write


@pytest.fixture
def tags() -> Callable[[Manifest], dict[str, dict[str, tuple[str, ...]]]]:
    """What a manifest says: split -> image's id -> names of its tags."""

    def say(manifest: Manifest) -> dict[str, dict[str, tuple[str, ...]]]:
        return {
            name: {s.id: tuple(manifest.classes[t] for t in s.tags) for s in split}
            for name, split in manifest.splits.items()
        }

    return say
