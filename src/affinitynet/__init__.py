"""Image tags in, pixel masks out: weakly supervised semantic segmentation with AffinityNet."""

import importlib
from typing import TYPE_CHECKING, Any

from affinitynet import _threads  # noqa: F401  (before torch)

__version__ = "0.2.0.dev0"
__all__ = [
    "Manifest",
    "Recipe",
    "Run",
    "Sample",
    "Segmenter",
    "UserError",
    "check_dataset",
    "evaluate_run",
    "export_run",
    "ops",
    "predict_folder",
    "read_dataset",
    "run",
    "tune_run",
    "write_recipe",
    "write_report",
]

# Names are looked up on first use, so that `import affinitynet` loads no torch. No function has the
# name of a package of ours: importing the package would replace the function.
_HOMES = {
    "Manifest": "affinitynet.data",
    "Recipe": "affinitynet.run_folder.recipe",
    "Run": "affinitynet.pipeline",
    "Sample": "affinitynet.data",
    "Segmenter": "affinitynet.models.segmenter",
    "UserError": "affinitynet.errors",
    "check_dataset": "affinitynet.data.check",
    "evaluate_run": "affinitynet.pipeline",
    "export_run": "affinitynet.export",
    "predict_folder": "affinitynet.pipeline",
    "read_dataset": "affinitynet.data",
    "run": "affinitynet.pipeline",
    "tune_run": "affinitynet.tuning.tune",
    "write_recipe": "affinitynet.data.new_recipe",
    "write_report": "affinitynet.report",
}

if TYPE_CHECKING:
    from affinitynet import ops
    from affinitynet.data import Manifest, Sample, read_dataset
    from affinitynet.data.check import check_dataset
    from affinitynet.data.new_recipe import write_recipe
    from affinitynet.errors import UserError
    from affinitynet.export import export_run
    from affinitynet.models.segmenter import Segmenter
    from affinitynet.pipeline import Run, evaluate_run, predict_folder, run
    from affinitynet.report import write_report
    from affinitynet.run_folder.recipe import Recipe
    from affinitynet.tuning.tune import tune_run


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("affinitynet.ops")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'affinitynet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
