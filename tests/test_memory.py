"""Freed memory is kept while a stage works, and given back afterwards."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affinitynet.memory import kept_memory

resource: Any = pytest.importorskip("resource", reason="Windows has none")

LARGE = 48 << 20  # bytes: above what glibc keeps by itself

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")


def pages_taken(arrays: int) -> int:
    """Count the pages that the system hands out for arrays that live one after the other."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(arrays):
        np.ones(LARGE, np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * int(resource.getpagesize())


def test_an_array_takes_the_memory_of_the_one_before() -> None:
    outside = pages_taken(8)
    with kept_memory():
        pages_taken(1)
        within = pages_taken(8)
    assert within < outside / 20
    assert pages_taken(8) > outside / 2


def test_memory_is_given_back_at_the_end_of_the_outer_context() -> None:
    with kept_memory():
        with kept_memory():
            np.ones(LARGE, np.uint8)
        kept = resident()
    assert resident() < kept - LARGE / 2
