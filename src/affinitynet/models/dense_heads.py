"""Segmentation heads that transformers take, of segmentation-models-pytorch."""

import warnings
from collections.abc import Callable
from typing import Any, cast

import torch.nn.functional as F
from segmentation_models_pytorch.decoders.dpt.decoder import DPTDecoder
from torch import Tensor, nn

from affinitynet.errors import UserError
from affinitynet.run_folder.backbone_names import transformer_kind

PATCH = 16  # the stride that DPT's decoder is made for
# The library's decoders that take a pyramid as it is; DeepLab's and PAN's want a stride.
ON_PYRAMIDS = ("segformer", "fpn", "unet", "upernet", "linknet", "manet")


class Dpt(nn.Module):
    """DPT on a plain transformer of any patch size: (B, 3, H, W) -> (B, L, H, W).

    The decoder makes maps of strides 4, 8, 16 and 32 out of one grid of stride 16. Other patches,
    as DINOv2's of 14, it takes as if they were of 16, and the scores are brought to the size of the
    images.

    Source: Ranftl et al., ICCV 2021 (Vision Transformers for Dense Prediction).
    """

    def __init__(self, network: nn.Module) -> None:
        """Take the parts of the library's network, with a decoder for patches of 16."""
        super().__init__()
        parts = cast(Any, network)
        self.encoder, self.decoder = parts.encoder, parts.decoder
        self.segmentation_head = parts.segmentation_head

    def forward(self, images: Tensor) -> Tensor:
        """Return logits at the size of the images, whose sides are multiples of two patches."""
        features, prefix = self.encoder(images)
        logits: Tensor = self.segmentation_head(self.decoder(features, prefix))
        if logits.shape[-2:] == images.shape[-2:]:
            return logits
        return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


def build_dpt(create: Callable[..., nn.Module]) -> Dpt:
    """Make DPT; `create` calls the library with further arguments."""
    with warnings.catch_warnings():
        # Of encoders without a class token, which we find out only from the encoder.
        warnings.filterwarnings("ignore", "Encoder does not have prefix tokens")
        network = cast(Any, create())
    encoder = network.encoder
    if encoder.output_stride != PATCH or not encoder.has_prefix_tokens:
        blocks = network.decoder.reassemble_blocks
        network.decoder = DPTDecoder(
            encoder_out_channels=encoder.out_channels,
            encoder_output_strides=[PATCH] * len(encoder.out_channels),
            encoder_has_prefix_tokens=encoder.has_prefix_tokens,
            readout="cat" if encoder.has_prefix_tokens else "ignore",
            intermediate_channels=[block.project_to_out_channel.out_channels for block in blocks],
            fusion_channels=blocks[0].project_to_feature_dim.out_channels,
        )
    return Dpt(network)


def check_head(architecture: str, name: str) -> None:
    """Refuse a head that can't stand on a transformer.

    Raises:
        UserError: the heads that can.
    """
    heads = ("dpt",) if transformer_kind(name) == "plain" else ON_PYRAMIDS
    if architecture not in heads:
        raise UserError(
            f"segmenter.architecture = {architecture!r}: {name} is a transformer, on which stand "
            f"{', '.join(heads)}"
        )
