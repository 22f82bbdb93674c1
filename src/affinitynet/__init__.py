"""Image tags in, pixel masks out: weakly supervised semantic segmentation with AffinityNet."""

import importlib
from typing import TYPE_CHECKING, Any

from affinitynet import _threads  # noqa: F401  (before torch)

__version__ = "0.1.0"
__all__ = ["Manifest", "Recipe", "Run", "Sample", "Segmenter", "UserError", "ops", "run"]

# Names are looked up on first use, so that `import affinitynet` costs no torch.
_HOMES = {
    "Manifest": "affinitynet.data",
    "Recipe": "affinitynet.run_folder.recipe",
    "Run": "affinitynet.pipeline",
    "Sample": "affinitynet.data",
    "Segmenter": "affinitynet.models.segmenter",
    "UserError": "affinitynet.errors",
    "run": "affinitynet.pipeline",
}

if TYPE_CHECKING:
    from affinitynet import ops
    from affinitynet.data import Manifest, Sample
    from affinitynet.errors import UserError
    from affinitynet.models.segmenter import Segmenter
    from affinitynet.pipeline import Run, run
    from affinitynet.run_folder.recipe import Recipe


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("affinitynet.ops")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'affinitynet' has no attribute {name!r}")
