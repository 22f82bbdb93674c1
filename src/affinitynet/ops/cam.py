"""Class activation maps: where in the image the classifier saw each class."""

from torch import Tensor
from torch.nn.functional import conv2d

from affinitynet.ops._arguments import check_values


def class_activation_maps(features: Tensor, weight: Tensor) -> Tensor:
    """Read the class activation maps off the classifier's last feature map.

    M_c(x, y) = max(0, w_c^T f(x, y)): the class weights that follow the global average
    pooling, applied at every position instead.

    Args:
        features: (B, D, h, w), the map that the classifier pools.
        weight: (C, D), or (C, D, 1, 1) as a 1x1 convolution holds it.

    Returns:
        (B, C, h, w), not negative, not normalized.

    Raises:
        ValueError: features or weights of another shape, with different D, not floating point or
            not finite.

    Source: Zhou et al., CVPR 2016; Ahn & Kwak, CVPR 2018, section 3.1.
    """
    if features.ndim != 4 or weight.shape[1:].numel() != features.shape[1]:
        raise ValueError(
            f"features {tuple(features.shape)} and weight {tuple(weight.shape)} do not fit: "
            "features (B, D, h, w) take weights (C, D)"
        )
    check_values(features, "features")
    check_values(weight, "weight")
    return apply_weights(features, weight)


def apply_weights(features: Tensor, weight: Tensor) -> Tensor:
    """Read the maps off, values unchecked: the caller can name the image and the stage."""
    return conv2d(features, weight.reshape(*weight.shape[:2], 1, 1)).relu()


def normalize_cams(cams: Tensor) -> Tensor:
    """Scale each class's map to a maximum of (almost) one over the image.

    M_c / (max_xy M_c + 1e-5); the small constant leaves a map of zeros at zero.

    Args:
        cams: (..., C, H, W), not negative.

    Returns:
        (..., C, H, W) in [0, 1).

    Raises:
        ValueError: maps that are negative, not floating point or not finite.

    Source: Ahn & Kwak, CVPR 2018, equation 1, with the constant of the public code.
    """
    check_values(cams, "cams", 0)
    return scale_to_one(cams)


def scale_to_one(cams: Tensor) -> Tensor:
    """Scale the maps, values unchecked: the caller can name the image and the stage."""
    return cams / (cams.amax(dim=(-2, -1), keepdim=True) + 1e-5)
