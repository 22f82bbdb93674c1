"""What operations refuse: values of the wrong type or out of range."""

import math
from numbers import Integral

from torch import Tensor

from affinitynet.errors import NotFiniteError
from affinitynet.ops._operators import is_traced

_ROUNDING = 1e-5  # a value may pass its bound by this


def check_values(
    values: Tensor, name: str, least: float = -math.inf, most: float = math.inf
) -> None:
    """Refuse a tensor that is not floating point, or not finite and from `least` to `most`.

    Raises:
        ValueError: what is wrong, with the tensor's name.
    """
    check_floating(values, name)
    # aminmax refuses an empty tensor, and nobody can look at what is only being traced.
    if is_traced(values) or not values.numel():
        return
    low, high = (float(value) for value in values.detach().aminmax())
    # A comparison with NaN is false, and aminmax gives NaN wherever there is one.
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NotFiniteError(f"{name} {tuple(values.shape)} hold NaN or infinite values")
    if low < least - _ROUNDING or high > most + _ROUNDING:
        raise ValueError(f"{name} must be from {least} to {most}, not from {low:g} to {high:g}")


def check_floating(values: Tensor, name: str) -> None:
    """Refuse a tensor of integers: 8-bit values would all count as 1, or wrap.

    Raises:
        ValueError: its name and type.
    """
    if not values.is_floating_point():
        raise ValueError(
            f"{name} must be floating point, not {values.dtype}: convert with .float(), and divide "
            "8-bit values by 255"
        )


def check_exponent(value: float, name: str) -> None:
    """Refuse an exponent that is not above 0 and finite.

    Raises:
        ValueError: its name and value.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0 and finite, not {value}")


def check_count(value: int, name: str, most: int) -> None:
    """Refuse what is not a whole number from 0 to `most`.

    Raises:
        ValueError: its name and value.
    """
    # True and False are Integral too.
    if not isinstance(value, Integral) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{name} must be a whole number from 0 to {most:,}, not {value!r}")
