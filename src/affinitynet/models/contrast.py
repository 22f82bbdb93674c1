"""The source of CAMs that needs no training: contrast with images that lack the tag."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Generator, Tensor, nn

from affinitynet.data import Sample
from affinitynet.errors import UserError
from affinitynet.models.backbone import Backbone, TimmBackbone
from affinitynet.models.transformer import TransformerBackbone
from affinitynet.ops.contrast import (
    calibrate,
    calibration,
    coreset,
    nearest_distance,
    patch_features,
    patch_statistics,
)
from affinitynet.ops.normalization import Normalization
from affinitynet.run_folder.folder import atomic_write
from affinitynet.run_folder.settings import ContrastSettings

FEWEST = 5  # images without the tag: with fewer there is nothing to contrast with
_IN_BANK, FOR_SCALE = 400, 60  # images for a class: more change the scores by little
_LEAST_PATCHES = 40  # of an image in a bank


class PatchNetwork(nn.Module):
    """Describe patches by a backbone's maps: normalized (B, 3, H, W) -> (B, D, h, w)."""

    def __init__(self, backbone: Backbone, strides: Sequence[int]) -> None:
        """Take the backbone's maps of these strides; the first one's grid is the patches'.

        Raises:
            UserError: it has no map of such a stride.
        """
        super().__init__()
        self.backbone = cast(nn.Module, backbone)
        self.normalization: Normalization = backbone.normalization
        self._timm = isinstance(backbone, TimmBackbone)
        known = _map_strides(backbone)
        self._indices: list[int] = []
        if isinstance(backbone, TransformerBackbone) and backbone.kind == "plain":
            # All maps are on one grid, which a stride does not tell apart; the last one's features
            # are of classes more than of places.
            self._indices = [0, 1]
            strides = ()
        missing = [stride for stride in strides if stride not in known]
        if missing:
            raise UserError(
                f"contrast.strides: the network has no map of stride {missing[0]}; choose from "
                f"{', '.join(map(str, sorted(set(known))))}"
            )
        self._indices = [known.index(stride) for stride in strides] or self._indices
        # Measured: a backbone lists the channels of its three maps only.
        with torch.inference_mode():
            maps = self.eval()._maps(torch.zeros(1, 3, 64, 64))
        self.channels = tuple(part.shape[1] for part in maps)

    def forward(self, images: Tensor) -> Tensor:
        """Return one description (D) for each patch of the grid."""
        return patch_features(self._maps(images))

    def _maps(self, images: Tensor) -> list[Tensor]:
        if self._timm:  # stops after the deepest map that is asked for
            wanted = sorted(set(self._indices))
            maps = self.backbone.net.forward_intermediates(  # type: ignore[union-attr,operator]
                images, indices=wanted, intermediates_only=True, stop_early=True
            )
            found = dict(zip(wanted, maps, strict=True))
        else:
            found = dict(enumerate(self.backbone(images)))
        return [found[index] for index in self._indices]


def _map_strides(backbone: Backbone) -> list[int]:
    """Return the strides of the maps, as they are where no stride is traded for dilation."""
    if not isinstance(backbone, TimmBackbone):
        return list(backbone.strides)
    stages = backbone.net.feature_info
    # Not each stage's own reduction: at an output stride of 8 the last three would all have 8, and
    # a stride could not tell them apart.
    return [stages[0]["reduction"] * 2**number for number in range(len(stages))]


def images_without(samples: Sequence[Sample], classes: int, seed: int) -> dict[int, list[str]]:
    """Return the images without each class, in an order that `seed` chooses.

    A class that too few images lack is not there. The order is the same for all classes, so that
    most images serve several of them.
    """
    order = torch.randperm(len(samples), generator=Generator().manual_seed(seed)).tolist()
    without = {
        label: [samples[i].id for i in order if label not in samples[i].tags]
        for label in range(classes)
    }
    return {label: names for label, names in without.items() if len(names) >= FEWEST}


@dataclass(frozen=True)
class Banks:
    """What the patches of each class's images without the tag look like.

    mean, scale: (D,), which standardize a patch. patches: class -> (M, D), standardized. range:
    class -> the distances that become zero and one.
    """

    mean: Tensor
    scale: Tensor
    patches: Mapping[int, Tensor]
    range: Mapping[int, tuple[float, float]]

    def distances(self, label: int, patches: Tensor, neighbors: int) -> Tensor:
        """Return each patch's mean distance to the bank of a class: (D, h, w) -> (h, w)."""
        found = nearest_distance(self.rows(patches), self.patches[label], neighbors)
        return found.view(patches.shape[1:])

    def rows(self, patches: Tensor) -> Tensor:
        """Return patches as a bank holds them: (D, h, w) -> (h * w, D), standardized."""
        return ((patches.flatten(1).T - self.mean) / self.scale).contiguous()

    def scores(self, labels: Sequence[int], patches: Tensor, neighbors: int) -> Tensor:
        """Return calibrated scores (K, h, w) of the classes `labels`, 0 where there is no bank."""
        maps = patches.new_zeros(len(labels), *patches.shape[1:])
        for row, label in zip(maps, labels, strict=True):
            if label in self.patches:
                distances = self.distances(label, patches, neighbors)
                row.copy_(calibrate(distances, *self.range[label]))
        return maps

    def to(self, device: torch.device) -> "Banks":
        """Return the same on another device."""
        patches = {label: bank.to(device) for label, bank in self.patches.items()}
        return Banks(self.mean.to(device), self.scale.to(device), patches, self.range)

    def write(self, file: Path) -> None:
        """Write all of it, atomically, as safetensors."""
        tensors = {"mean": self.mean, "scale": self.scale}
        for label, bank in self.patches.items():
            tensors[f"bank.{label}"] = bank
            # float64, as Python's floats are: float32 would round the two numbers on the way.
            tensors[f"range.{label}"] = torch.tensor(self.range[label], dtype=torch.float64)
        with atomic_write(file) as temporary:
            temporary.write_bytes(save({k: v.contiguous().cpu() for k, v in tensors.items()}))

    @classmethod
    def read(cls, file: Path) -> "Banks | None":
        """Read what `write` wrote; None where the file cannot be read, and has to be made again."""
        try:
            tensors = load_file(file)
            labels = [int(k.removeprefix("bank.")) for k in tensors if k.startswith("bank.")]
            ranges = {label: tensors[f"range.{label}"].tolist() for label in labels}
            return cls(
                tensors["mean"],
                tensors["scale"],
                {label: tensors[f"bank.{label}"] for label in labels},
                {label: (zero, one) for label, (zero, one) in ranges.items()},
            )
        except (OSError, SafetensorError, KeyError, ValueError):
            return None


class BankBuilder:
    """Collects patches image by image, so that only those that are kept stay in memory.

    First every image of `bank_images` is given to `collect`, then `fill` is called, then every
    image of `scale_images` is given to `measure`, and `banks` has the result. The order of the
    images does not matter.
    """

    def __init__(
        self,
        without: Mapping[int, Sequence[str]],
        channels: Sequence[int],
        settings: ContrastSettings,
    ) -> None:
        """Prepare banks for the classes of `without`, from images that don't show them."""
        self._channels, self._settings = channels, settings
        self._fills = {label: names[:_IN_BANK] for label, names in without.items()}
        self._measured = images_by_classes(
            {label: names[:FOR_SCALE] for label, names in without.items()}
        )
        # An image serves several classes: its patches are collected once, for all of them.
        self._classes_of = images_by_classes(self._fills)
        self._numbers = {image: number for number, image in enumerate(self._classes_of)}
        self._collected: dict[str, Tensor] = {}
        self._owners: dict[int, Tensor] = {}
        self._distances: dict[int, dict[str, Tensor]] = {label: {} for label in without}
        self._filled: Banks | None = None

    @property
    def bank_images(self) -> tuple[str, ...]:
        """Images that fill banks."""
        return tuple(self._classes_of)

    @property
    def scale_images(self) -> tuple[str, ...]:
        """Images that set scales."""
        return tuple(self._measured)

    def collect(self, image: str, patches: Tensor, seed: int) -> None:
        """Keep some of an image's patches (D, h, w), chosen by `seed`."""
        most = max(self._share(label) for label in self._classes_of[image])
        rows = patches.flatten(1).T
        # Drawn on the CPU, so that the same patches are kept on every device.
        order = torch.randperm(len(rows), generator=Generator().manual_seed(seed))[:most]
        self._collected[image] = rows[order.to(rows.device)].cpu()

    def fill(self, seed: int) -> None:
        """Make the banks from what was collected."""
        # As many of each image, so that none counts more than another.
        few = [self._collected[image][:_LEAST_PATCHES] for image in self._classes_of]
        mean, scale = patch_statistics(torch.cat(few), self._channels)
        banks = {}
        for label, images in self._fills.items():
            parts = [self._collected[image][: self._share(label)] for image in images]
            rows = (torch.cat(parts) - mean) / scale
            # A seed for each class: its bank does not depend on which other classes there are.
            kept = self._choose(rows, Generator().manual_seed(seed + label))
            banks[label] = rows[kept].contiguous()
            owners = [
                torch.full((len(part),), self._numbers[image])
                for image, part in zip(images, parts, strict=True)
            ]
            self._owners[label] = torch.cat(owners)[kept]
        # Only the banks are needed from here on.
        self._collected.clear()
        self._filled = Banks(mean, scale, banks, {})

    def measure(self, image: str, patches: Tensor) -> None:
        """Take an image's distances (D, h, w) to the banks, its own patches left out of them."""
        assert self._filled is not None
        # Where the network is: on a processor the distances would take longer than its features.
        self._filled = self._filled.to(patches.device)
        rows = self._filled.rows(patches)
        for label in self._measured[image]:
            # Its own patches are at distance 0: the scale would say that images without the tag are
            # closer to the bank than a new one ever is.
            others = (self._owners[label] != self._numbers[image]).to(patches.device)
            bank = self._filled.patches[label][others]
            found = nearest_distance(rows, bank, self._settings.neighbors)
            self._distances[label][image] = found.cpu()

    @property
    def banks(self) -> Banks:
        """The banks with their scales."""
        filled = self._filled
        assert filled is not None
        ranges = {
            label: calibration(list(found.values()), self._settings.quantile)
            for label, found in self._distances.items()
        }
        return Banks(filled.mean, filled.scale, filled.patches, ranges)

    def _share(self, label: int) -> int:
        """Return how many patches an image gives to a class: twice as many as the bank holds."""
        return max(_LEAST_PATCHES, -(-2 * self._settings.bank // len(self._fills[label])))

    def _choose(self, rows: Tensor, generator: Generator) -> Tensor:
        if self._settings.choice == "coreset":
            return coreset(rows, self._settings.bank, generator)
        return torch.randperm(len(rows), generator=generator)[: self._settings.bank]


def images_by_classes(images: Mapping[int, Sequence[str]]) -> dict[str, list[int]]:
    """Turn class -> images into image -> classes."""
    found: dict[str, list[int]] = {}
    for label, names in images.items():
        for name in names:
            found.setdefault(name, []).append(label)
    return found
