"""The settings that can be decided again from what a run keeps, and the values to try."""

from typing import Any, NamedTuple

from affinitynet.run_folder.settings import WalkSettings


class Tunable(NamedTuple):
    """A setting of the section `walk`, with dots, and values from its one end to the other."""

    name: str
    values: tuple[Any, ...]


# A new one is a line here; `decide` has to know what it does.
TUNABLE = (
    Tunable("alpha", (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)),
    Tunable("background", ("alpha", "constant", "relative")),
    # Of no effect with the background of an alpha: its curve is flat then.
    Tunable("background_score", (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)),
    Tunable("method", ("power", "restart")),
    Tunable("beta", (1.0, 2.0, 4.0, 8.0, 16.0)),
    Tunable("steps", (0, 4, 16, 64, 256, 1024)),
    Tunable("guard", (False, True)),
    Tunable("refine", (False, True)),
    Tunable("crf.bilateral_sxy", (20.0, 50.0, 80.0, 120.0)),
    Tunable("crf.bilateral_srgb", (3.0, 5.0, 8.0, 13.0, 20.0)),
)


def value_of(walk: WalkSettings, name: str) -> Any:
    """Return the value of a setting of the section."""
    found: Any = walk
    for part in name.split("."):
        found = getattr(found, part)
    return found


def with_value(walk: WalkSettings, name: str, value: Any) -> WalkSettings:
    """Return the section with another value of one setting."""
    section, _, own = name.rpartition(".")
    if not section:
        return walk.model_copy(update={own: value})
    inner = value_of(walk, section).model_copy(update={own: value})
    return walk.model_copy(update={section: inner})


def values_to_try(walk: WalkSettings, tunable: Tunable) -> list[Any]:
    """Return the values to try: the usual ones and the section's own, in order."""
    return sorted({*tunable.values, value_of(walk, tunable.name)})
