"""Which backbones are transformers, by their names alone, as settings depend on it."""

import re
from collections.abc import Mapping
from typing import Any, Literal

# Plain: one grid at the size of a patch from the first block to the last (ViT, DeiT, DINOv2,
# DINOv3, the towers of CLIP and SigLIP, EVA-02). Not those with other blocks or a convolutional
# stem: vit_relpos, vitamin, hybrids such as vit_small_r26_s32.
_PLAIN = re.compile(
    r"(test_)?(vit|deit|deit3|eva|eva02)\d?(_(?!relpos|srelpos|\w*r\d+_s\d)\w+)?(\..+)?"
)
# Pyramids: maps at strides 4, 8, 16 and 32, but no stride to choose.
_PYRAMID = re.compile(r"(swin|swinv2|pvt_v2)_(?!cr_)\w+(\..+)?")


def transformer_kind(name: str) -> Literal["plain", "pyramid"] | None:
    """Tell whether a timm name is that of a transformer that serves as a backbone, and its kind."""
    if _PLAIN.fullmatch(name):
        return "plain"
    return "pyramid" if _PYRAMID.fullmatch(name) else None


def fit_transformers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe's values with what its transformers ask for, where they say nothing of it.

    They have no output stride (null), and DeepLab's head, which is built on one, gives way to DPT
    or SegFormer's.
    """
    fitted = dict(values)
    own = _name(values.get("backbone")) or ""
    segmenter = values.get("segmenter")
    inner = segmenter.get("backbone") if isinstance(segmenter, Mapping) else None
    names = {"classifier": own, "affinity": own, "segmenter": _name(inner) or own}
    for section, name in names.items():
        kind, given = transformer_kind(name), values.get(section)
        if kind is None or not isinstance(given, Mapping | None):
            continue
        known: dict[str, Any] = {"output_stride": None}
        if section == "segmenter":
            known["architecture"] = "dpt" if kind == "plain" else "segformer"
        fitted[section] = {**known, **(given or {})}
    return fitted


def check_strides(recipe: Any) -> None:
    """Refuse an output stride of a network that has none, and none of one that needs it.

    Raises:
        ValueError: which setting, and what to write.
    """
    own = recipe.backbone.name
    inner = recipe.segmenter.backbone
    names = {"classifier": own, "affinity": own, "segmenter": inner.name if inner else own}
    for section, name in names.items():
        stride = getattr(recipe, section).output_stride
        if transformer_kind(name) and stride is not None:
            raise ValueError(
                f"{section}.output_stride = {stride}: {name} is a transformer, which has none to "
                "choose; leave it out or set it to null"
            )
        if not transformer_kind(name) and stride is None:
            raise ValueError(f"{section}.output_stride = null: {name} needs 8 or 16")


def _name(backbone: Any) -> str | None:
    # Called before the values are checked: a name may still be anything.
    mapped = isinstance(backbone, Mapping)
    found = backbone.get("name") if mapped else getattr(backbone, "name", None)
    return found if isinstance(found, str) else None
