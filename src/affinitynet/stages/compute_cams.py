"""Stage 2: classifier -> cams/<id>.npz, the maps of the tagged classes at image size.

With `cams.source = auto` they are one of two kinds to choose from: cams_classifier/<id>.npz.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T

from affinitynet.data import Sample, load_image
from affinitynet.data.cams import save_cams
from affinitynet.errors import UserError
from affinitynet.hardware import compiled, inference
from affinitynet.models.classifier import Classifier
from affinitynet.ops.cam import scale_to_one
from affinitynet.ops.normalization import Normalization
from affinitynet.progress import say
from affinitynet.run_folder.stages import CLASSIFIER
from affinitynet.stages.context import Context
from affinitynet.stages.images import make_each


def work(context: Context) -> dict[str, Any]:
    """Write the CAMs of every image of the splits asked for that has tags or no need of any."""
    model = Classifier.load(context.folder(CLASSIFIER))
    normalization: Normalization = model.backbone.normalization  # type: ignore[assignment]
    settings = context.recipe.cams
    artifact = context.stage("compute_cams").artifacts[0]
    hardware = context.hardware_at(settings.precision)
    network: Callable[[Tensor], Tensor] = model.cams
    if settings.compile:
        say("compute_cams: compiles the network with the first image, in about half a minute")
        network = compiled(model.cams)
    with inference(model, hardware) as device:

        def compute(sample: Sample, image: Tensor) -> Tensor:
            if not sample.tags:
                # No map, but the size stays: later stages compare it with the image's.
                return torch.zeros(0, *image.shape[-2:])
            pixels = image.to(device)
            cams = multi_scale_cams(
                network, normalization, pixels, sample.tags, settings.scales, settings.flip
            )
            return _finite(cams).cpu()

        counts = make_each(
            context,
            "compute_cams",
            artifact,
            context.samples(*settings.splits, "figures"),
            load=lambda sample: torch.from_numpy(load_image(sample.image)).permute(2, 0, 1),
            compute=compute,
            finish=lambda sample, cams: save_cams(
                context.file(artifact, sample), sample.tags, cams.numpy()
            ),
        )
    return {**counts, "precision": hardware.chosen_precision}


def multi_scale_cams(
    network: Callable[[Tensor], Tensor],
    normalization: Normalization,
    image: Tensor,
    tags: Sequence[int],
    scales: Sequence[float],
    flip: bool,
) -> Tensor:
    """Sum the rectified CAMs over scales and flips and divide each class by its maximum.

    network is `Classifier.cams`; image (3, H, W) uint8; returns (K, H, W) float32 in [0, 1] for
    the K tagged classes. An image and its mirror image go through the network as one batch.
    """
    height, width = image.shape[-2:]
    total = torch.zeros(len(tags), height, width, device=image.device)
    for scale in scales:
        size = [max(1, round(height * scale)), max(1, round(width * scale))]
        scaled = T.resize(image, size, InterpolationMode.BICUBIC, antialias=True)
        pixels = normalization.apply(scaled[None])
        batch = torch.cat([pixels, pixels.flip(-1)]) if flip else pixels
        maps = network(batch.contiguous(memory_format=torch.channels_last))[:, list(tags)]
        # float32 before the sum over scales: the network may run in half precision.
        maps = F.interpolate(maps.float(), (height, width), mode="bilinear", align_corners=False)
        total += maps[0]
        if flip:
            total += maps[1].flip(-1)
    return scale_to_one(total)


def _finite(cams: Tensor) -> Tensor:
    if not cams.isfinite().all():
        raise UserError(
            "its CAMs hold NaN or infinite values: train with a lower classifier.learning_rate, "
            "or compute with precision = float32"
        )
    return cams
