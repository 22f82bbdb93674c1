"""timm's networks, made by name, with what goes wrong said in words."""

from typing import Any

import timm

from affinitynet.errors import UserError


def create(name: str, how: str, advice: str, *, pretrained: bool, **options: Any) -> Any:
    """Make timm's model `name`; `options` are timm's arguments, `pretrained` fetches weights.

    Raises:
        UserError: timm does not know the name, can't make it with these options (`how`, and the
            `advice` to take), or can't download its weights.
    """
    check_known(name)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, NotImplementedError, AssertionError) as error:  # each network its own
        raise UserError(
            f"backbone.name = {name!r} can't be made {how} ({error}); {advice}"
        ) from error
    except Exception as error:  # hub errors have no common base
        if not pretrained:
            raise
        raise UserError(
            f"backbone.weights = 'imagenet': {name} could not be downloaded ({error}); "
            "give a local file instead"
        ) from error


def check_known(name: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        UserError: with names that are near.
    """
    if timm.is_model(name):
        return
    near = timm.list_models(f"*{name}*")[:3] or timm.list_models(f"{name[:5]}*")[:3]
    hint = f"; timm has {', '.join(near)}" if near else ""
    raise UserError(f"backbone.name = {name!r}: not resnet38, vgg16 or a timm model{hint}")
