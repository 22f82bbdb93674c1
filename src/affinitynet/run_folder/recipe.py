"""A recipe: all settings of a run, read from YAML and flags, with mistakes said in one line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from affinitynet.errors import UserError, did_you_mean
from affinitynet.run_folder.settings import (
    AffinitySettings,
    BackboneSettings,
    CamSettings,
    ClassifierSettings,
    ConfidentSettings,
    DatasetSettings,
    EvaluateSettings,
    SegmenterSettings,
    Settings,
    WalkSettings,
)


class Recipe(Settings):
    """Everything a run depends on."""

    name: str = Field("affinitynet", description="of the recipe; runs/<name> is the default folder")
    data: Path | None = Field(None, description="folder of the data set (--data)")
    out: Path = Field(Path(), description="run folder (--out)")
    seed: int = Field(0, ge=0, lt=2**31, description="of every random choice")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where networks run")
    precision: Literal["float32", "bf16", "fp16"] = Field(
        "float32", description="of the trainings; bf16 needs hardware for it to gain"
    )
    workers: int = Field(
        2, ge=0, description="processes that load training images, threads that run the CPU kernels"
    )
    dataset: DatasetSettings = DatasetSettings()
    backbone: BackboneSettings = BackboneSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    cams: CamSettings = CamSettings()
    confident: ConfidentSettings = ConfidentSettings()
    affinity: AffinitySettings = AffinitySettings()
    walk: WalkSettings = WalkSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @model_validator(mode="before")
    @classmethod
    def _default_folder(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("out"):
            return {**values, "out": Path("runs") / str(values.get("name", "affinitynet"))}
        return values

    @model_validator(mode="after")
    def _same_backbone(self) -> Self:
        segmenter = self.segmenter
        if segmenter.start == "classifier" and segmenter.backbone not in (None, self.backbone):
            raise ValueError(
                "segmenter.start = classifier needs the classifier's backbone: "
                "leave segmenter.backbone out"
            )
        return self

    @classmethod
    def load(cls, path: str | Path, /, **overrides: Any) -> Self:
        """Read a YAML recipe; `overrides` replace settings, with dots for sections.

        `Recipe.load("demo.yaml", data="toy", **{"walk.beta": 10})`

        Raises:
            UserError: no such file, not YAML, an unknown key or a value that does not fit.
        """
        path = _find_recipe(Path(path))
        values = _read_yaml(path)
        values.setdefault("name", path.stem)
        for key, value in overrides.items():
            _assign(values, key, value)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{path}: {_first_complaint(cls, error)}") from error

    def dump(self) -> str:
        """Return the recipe as YAML, every setting written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def describe(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield (name with dots, default, meaning) of each setting, section by section."""
    for name, field in model.model_fields.items():
        default = field.get_default()
        if isinstance(default, Settings):
            yield from describe(type(default), f"{prefix}{name}.")
        else:
            yield prefix + name, default, field.description or ""


def find_weights(weights: str, data: Path | None) -> Path | None:
    """Return the local weights file a setting names, None for `imagenet` and `none`.

    Raises:
        UserError: no such file in the working folder or beside the data.
    """
    if weights in ("imagenet", "none"):
        return None
    places = [Path(weights)] if data is None else [Path(weights), data / weights]
    for place in places:
        if place.is_file():
            return place
    tried = " or ".join(str(p) for p in places)
    raise UserError(f"backbone.weights = {weights!r}: no such file ({tried}); or imagenet, or none")


def read_flag(key: str, words: Sequence[str]) -> Any:
    """Read the words that follow a flag as a value of the setting `key`.

    What is text stays as typed (`--dataset.classes no on` names two classes, and no YAML booleans)
    and a list may have one word; all else is YAML, and null stands for none where that is allowed.

    Raises:
        UserError: a word that is not YAML where YAML is meant.
    """
    kinds = _kinds(key)
    if NoneType in kinds and list(words) in (["null"], ["~"], [""]):
        return None
    items = next((get_args(kind) for kind in kinds if get_origin(kind) is tuple), ())
    bracketed = len(words) == 1 and words[0].startswith("[")
    as_text = any(map(_is_text, items or kinds)) and not (items and bracketed)
    values = list(words) if as_text else [_read_word(key, word) for word in words]
    return values[0] if len(values) == 1 and (bracketed or not items) else values


def _kinds(key: str) -> tuple[Any, ...]:
    """Return the types a setting may have; none where there is no such setting."""
    *sections, last = key.split(".")
    model: type[BaseModel] | None = Recipe
    for section in sections:
        model = model and _section(model, section)
    if model is None or last not in model.model_fields:
        return ()
    return _alternatives(model.model_fields[last].annotation)


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(value, str) for value in get_args(kind))
    return kind in (str, Path)


def _read_word(key: str, word: str) -> Any:
    try:
        return yaml.safe_load(word)
    except yaml.YAMLError as error:
        raise UserError(f"--{key} {word}: not a value ({' '.join(str(error).split())})") from error


def _find_recipe(path: Path) -> Path:
    shipped = Path(__file__).parents[1] / "recipes"
    named = shipped / f"{path}.yaml"
    if path.is_file():
        return path
    if len(path.parts) == 1 and named.is_file():
        return named
    known = ", ".join(sorted(file.stem for file in shipped.glob("*.yaml")))
    raise UserError(f"{path}: no such recipe file, and none of the package's own ({known})")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: a recipe is a mapping of settings, this is {type(values)}")
    return values


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            inner = values[section] = {}
        values = inner
    values[last] = value


def _first_complaint(model: type[BaseModel], error: ValidationError) -> str:
    """Say the first of pydantic's complaints in one line, with the nearest known name."""
    first = error.errors(include_url=False)[0]
    place = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        known = _field_names(model, place[:-1])
        hint = did_you_mean(place[-1], known, cutoff=0.5) or f"known here: {', '.join(known)}"
        return f"unknown setting {where}; {hint}"
    said = first["msg"].removeprefix("Value error, ")
    if not place:  # a check over several sections names its settings itself
        return said
    if first["type"] == "literal_error":
        choices = [part.strip("' ") for part in first["ctx"]["expected"].split(" or ")]
        choices = [c.strip("' ") for part in choices for c in part.split(",")]
        hint = did_you_mean(str(first["input"]), choices, cutoff=0.5)
        said += f"; {hint}" if hint else ""
    return f"{where} = {first['input']!r}: {said}"


def _field_names(model: type[BaseModel], place: list[str]) -> list[str]:
    for part in place:
        section = _section(model, part)
        if section is None:
            return []
        model = section
    return list(model.model_fields)


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the section of that name, or None where there is none or it is a single setting."""
    field = model.model_fields.get(name)
    kinds = _alternatives(field.annotation) if field else ()
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)
