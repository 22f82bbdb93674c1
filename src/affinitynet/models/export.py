"""A trained segmenter for other programs: ONNX, torch.export's file, or a hub's folder.

The graph of the first two takes a photograph as it is and gives labels: normalization, the scales
and the mirrored images that predictions are averaged over, and the average are in it. Sizes are
free. The dense CRF is not in it: it is no network.
"""

import importlib.util
import inspect
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from affinitynet.data import voc_palette
from affinitynet.errors import UserError
from affinitynet.models.hub import write_hub_folder
from affinitynet.models.segmenter import SegmentationNet, Segmenter
from affinitynet.progress import say
from affinitynet.run_folder.artifacts import SEGMENTER
from affinitynet.run_folder.folder import atomic_write

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# Of the picture that the graph is traced with: sizes that no stride divides.
_EXAMPLE = (1, 87, 121)
_OPSET = 18
# The argument without which a graph takes some sizes alone.
_DEFERRED = "prefer_deferred_runtime_asserts_over_guards"


def export_model(run_folder: str | Path, out: str | Path, *, format: str = "onnx") -> Path:
    """Write a run's trained segmenter for other programs into the new folder `out`, and return it.

    format: ``onnx`` writes ``model.onnx``, and ``pt2`` ``model.pt2`` (`torch.export.load`). Both
        take `image`, (1, H, W, 3) uint8 RGB of any size, and give `labels` (1, H, W) and
        `probabilities` (1, C + 1, H, W); ``classes.json`` beside it has the names and colors of the
        labels, which the files' metadata hold as well. ``segmenter`` writes a folder that
        `segmentation_models_pytorch.from_pretrained` loads, with a model card.

    Raises:
        UserError: unknown format, no trained segmenter, packages that the format needs are not
            installed or too old, a network that the format can't hold, or `out` holds files.
    """
    out = Path(out).resolve()
    if format not in MODEL_FORMATS:
        raise UserError(f"format = {format!r}: not known; choose from {', '.join(MODEL_FORMATS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: holds files already; name a new folder, as nothing is overwritten")
    segmenter = Segmenter.load(Path(run_folder) / SEGMENTER.folder)
    MODEL_FORMATS[format](segmenter, out)
    if segmenter.settings.refine:
        say("the run's masks went through the dense CRF, which is not in the file")
    return out


def _write_onnx(segmenter: Segmenter, out: Path) -> None:
    for package in ("onnx", "onnxscript"):  # which torch imports
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"--format onnx: {package} is not installed; pip install 'affinitynet[onnx]'"
            )
    program = trace(segmenter)
    with _quiet():
        exported = torch.onnx.export(
            program,
            input_names=["image"],
            output_names=["labels", "probabilities"],
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    exported.model.metadata_props.update(_metadata(segmenter))
    with atomic_write(out / "model.onnx") as temporary:
        exported.save(temporary)
    _write_classes(segmenter, out)


def _write_pt2(segmenter: Segmenter, out: Path) -> None:
    program = trace(segmenter)
    with atomic_write(out / "model.pt2") as temporary, _quiet():
        torch.export.save(program, temporary, extra_files=_metadata(segmenter))
    _write_classes(segmenter, out)


MODEL_FORMATS: dict[str, Callable[[Segmenter, Path], None]] = {
    "onnx": _write_onnx,
    "pt2": _write_pt2,
    "segmenter": write_hub_folder,
}


def trace(segmenter: Segmenter) -> "ExportedProgram":
    """Return a segmenter's `Predictor` as a graph for images of any size.

    Raises:
        UserError: this torch is too old for graphs of any size.
    """
    if _DEFERRED not in inspect.signature(torch.export.export).parameters:
        raise UserError(
            f"--format onnx and pt2 take torch 2.9 or later, and this is {torch.__version__}; "
            "update it, or export with --format segmenter"
        )
    settings = segmenter.settings
    predictor = Predictor(segmenter.net, settings.scales, settings.flip).eval()
    free = {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    image = torch.zeros((*_EXAMPLE, len(segmenter.net.normalization.mean)), dtype=torch.uint8)
    with _quiet():
        return torch.export.export(
            predictor,
            (image,),
            dynamic_shapes={"image": free},
            strict=False,
            # Else a size that no stride divides is taken for a promise about all sizes.
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def _metadata(segmenter: Segmenter) -> dict[str, str]:
    names = ["background", *segmenter.classes]
    palette = voc_palette()
    colors = [palette[3 * (i % 256) : 3 * (i % 256) + 3] for i in range(len(names))]
    found = {"classes": json.dumps(names), "palette": json.dumps(colors)}
    if segmenter.reading is None:
        return found
    # Without it nobody could make the bytes that the graph takes.
    return {**found, "reading": segmenter.reading.model_dump_json()}


def _write_classes(segmenter: Segmenter, out: Path) -> None:
    content = {key: json.loads(value) for key, value in _metadata(segmenter).items()}
    with atomic_write(out / "classes.json") as temporary:
        temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own notes back: they speak of their insides."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


class Predictor(nn.Module):
    """A segmenter as one graph: (B, H, W, 3) uint8 -> labels (B, H, W), probabilities.

    Computes what `Segmenter.predict` does without the CRF, in operations that any size goes
    through. Probabilities are (B, C + 1, H, W) float32, labels uint8 (int32 with 255 classes).
    """

    def __init__(self, net: SegmentationNet, scales: Sequence[float], flip: bool) -> None:
        """Wrap a network; `scales` and `flip` are those of its settings."""
        super().__init__()
        self.network = net.network
        self.multiple, self.scales = net.multiple, tuple(scales)
        self.mirrored = (False, True) if flip else (False,)
        self.normalization = net.normalization

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return labels and probabilities."""
        pixels = self.normalization.apply(image.permute(0, 3, 1, 2))
        views = [(scale, mirrored) for scale in self.scales for mirrored in self.mirrored]
        found = [self._view(pixels, scale, mirrored) for scale, mirrored in views]
        probabilities = sum(found[1:], found[0]) / len(found)
        wide = probabilities.shape[1] > 255
        labels = probabilities.argmax(1).to(torch.int32 if wide else torch.uint8)
        return labels, probabilities

    def _view(self, pixels: Tensor, scale: float, mirrored: bool) -> Tensor:
        rows = _Axis(pixels.shape[-2], scale, self.multiple, False, pixels.device)
        columns = _Axis(pixels.shape[-1], scale, self.multiple, mirrored, pixels.device)
        scaled = columns.enter(rows.enter(pixels, 2), 3)
        probabilities = cast(Tensor, self.network(scaled)).softmax(1)
        return columns.leave(rows.leave(probabilities, 2), 3)


class _Axis:
    """One axis of a view: scaled, mirrored, with zeros at its end until `multiple` divides it.

    Sizes in between are tensors, and only the count of multiples becomes a number, with a symbol of
    its own: exporters then have no sizes to compare that are nested formulas of the image's size.
    """

    def __init__(
        self, size: int, scale: float, multiple: int, mirrored: bool, device: torch.device
    ) -> None:
        whole = torch.full((), size, dtype=torch.int64, device=device)
        self.plain, self.size = scale == 1, whole
        self.new = whole if self.plain else rounded(whole, scale).clamp(min=1)
        count = cast(int, ((self.new + multiple - 1) // multiple).item())
        torch._check(count >= 1)
        torch._check(count <= 1 << 20)
        self.own = torch.arange(size, device=device)
        places = torch.arange(count * multiple, device=device)
        # Where each place of the view lies on the scaled image: below 0 or from `new` on, nowhere.
        self.places = self.new - 1 - places if mirrored else places
        self.mirrored = mirrored

    def enter(self, images: Tensor, axis: int) -> Tensor:
        """Bring the axis of (B, C, H, W) to the view: bilinear, antialiased where it shrinks."""
        there = (self.places >= 0) & (self.places < self.new)
        if self.plain:
            taken = images.index_select(axis, self.places.clamp(min=0).minimum(self.new - 1))
            return taken * there.to(images).reshape((-1, 1) if axis == 2 else (-1,))
        ratio = self.size.to(images) / self.new.to(images)
        center = (self.places.to(images) + 0.5) * ratio
        weights = _triangle(center, self.own.to(images) + 0.5, ratio.clamp(min=1))
        return _product(weights * there.to(images)[:, None], images, axis)

    def leave(self, maps: Tensor, axis: int) -> Tensor:
        """Bring the axis of (B, L, H, W) back: bilinear."""
        if self.plain:
            back = self.new - 1 - self.own if self.mirrored else self.own
            return maps.index_select(axis, back)
        ratio = self.new.to(maps) / self.size.to(maps)
        # Beyond the border the nearest pixel counts.
        center = ((self.own.to(maps) + 0.5) * ratio).clamp(min=0.5)
        center = center.minimum(self.new.to(maps) - 0.5)
        reach = torch.ones_like(ratio)
        return _product(_triangle(center, self.places.to(maps) + 0.5, reach), maps, axis)


def rounded(size: Any, scale: float) -> Any:
    """Return ``round(size * scale)`` in whole numbers: of a number, or of a tensor in a graph.

    >>> rounded(374, 0.75), rounded(375, 0.5)
    (280, 188)
    """
    ratio = Fraction(scale).limit_denominator(10_000)
    top, bottom = ratio.numerator, ratio.denominator
    doubled = 2 * size * top + bottom
    nearest, rest = doubled // (2 * bottom), doubled % (2 * bottom)
    # Halves go to the even neighbor, as Python's round has it.
    tie = 1 - (rest + 2 * bottom - 1) // (2 * bottom)
    return nearest - (nearest % 2) * tie


def _triangle(center: Tensor, origin: Tensor, reach: Tensor) -> Tensor:
    """What each center takes of each origin: (N, M), linear down to 0 at `reach`, of sum 1."""
    weights = (1 - (origin[None] - center[:, None]).abs() / reach).clamp(min=0)
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-6)


def _product(weights: Tensor, images: Tensor, axis: int) -> Tensor:
    # Not F.interpolate, since exporters know no antialiasing of free sizes.
    return weights @ images if axis == 2 else images @ weights.transpose(0, 1)
