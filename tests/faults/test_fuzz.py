"""A few mutated inputs of each reader; benchmarks/fuzz.py gives each 100,000."""

import importlib
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
COUNT = 25

with patch.object(sys, "path", [str(FOLDER), *sys.path]):
    fuzz: Any = importlib.import_module("fuzz")


@pytest.mark.parametrize("reader", sorted(fuzz.READERS))
def test_a_mutated_input_is_read_or_refused_in_words(reader: str) -> None:
    if reader == "caffe":
        pytest.importorskip("google.protobuf")
    found = fuzz.fuzz(reader, COUNT, seed=1)
    # A busy machine is no finding; an endless loop is.
    assert not [fault for fault in found.faults if not fault.startswith("slow")], str(found)
    assert found.refused, "none was refused: the changes don't reach the reader"
