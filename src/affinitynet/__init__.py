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
    "apply_run",
    "check_dataset",
    "convert_weights",
    "evaluate_run",
    "export_model",
    "export_run",
    "import_corrections",
    "ops",
    "predict_folder",
    "read_dataset",
    "reproduce_run",
    "run",
    "sweep_run",
    "tune_run",
    "view_run",
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
    "apply_run": "affinitynet.applying",
    "check_dataset": "affinitynet.data.check",
    "convert_weights": "affinitynet.models.weights",
    "evaluate_run": "affinitynet.evaluating",
    "export_model": "affinitynet.models.export",
    "export_run": "affinitynet.export",
    "import_corrections": "affinitynet.data.drawn",
    "predict_folder": "affinitynet.predicting",
    "read_dataset": "affinitynet.data",
    "reproduce_run": "affinitynet.reproducing",
    "run": "affinitynet.pipeline",
    "sweep_run": "affinitynet.tuning.sweep",
    "tune_run": "affinitynet.tuning.tune",
    "view_run": "affinitynet.view",
    "write_recipe": "affinitynet.data.new_recipe",
    "write_report": "affinitynet.report",
}

if TYPE_CHECKING:
    from affinitynet import ops
    from affinitynet.applying import apply_run
    from affinitynet.data import Manifest, Sample, read_dataset
    from affinitynet.data.check import check_dataset
    from affinitynet.data.drawn import import_corrections
    from affinitynet.data.new_recipe import write_recipe
    from affinitynet.errors import UserError
    from affinitynet.evaluating import evaluate_run
    from affinitynet.export import export_run
    from affinitynet.models.export import export_model
    from affinitynet.models.segmenter import Segmenter
    from affinitynet.models.weights import convert_weights
    from affinitynet.pipeline import Run, run
    from affinitynet.predicting import predict_folder
    from affinitynet.report import write_report
    from affinitynet.reproducing import reproduce_run
    from affinitynet.run_folder.recipe import Recipe
    from affinitynet.tuning.sweep import sweep_run
    from affinitynet.tuning.tune import tune_run
    from affinitynet.view import view_run


def __getattr__(name: str) -> Any:
    if name == "ops":
        return importlib.import_module("affinitynet.ops")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'affinitynet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
