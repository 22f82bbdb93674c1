"""A recipe: all settings of a run, read from YAML and flags; a mistake is one line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from affinitynet.errors import UserError, did_you_mean
from affinitynet.run_folder.backbone_names import check_strides, fit_transformers
from affinitynet.run_folder.flags import find_section, nearest_settings, read_yaml
from affinitynet.run_folder.folder import check_relative
from affinitynet.run_folder.setting_types import FILES, Device, Store
from affinitynet.run_folder.settings import (
    AffinitySettings,
    BackboneSettings,
    CamSettings,
    ClassifierSettings,
    ConfidentSettings,
    ContrastSettings,
    DatasetSettings,
    EvaluateSettings,
    NetworksSettings,
    PseudoSettings,
    RelabelSettings,
    SegmenterSettings,
    Settings,
    WalkSettings,
)

Chosen = Literal[
    "classifier.steps",
    "classifier.balance",
    "cams.scales",
    "affinity.steps",
    "affinity.scale",
    "affinity.crop",
    "segmenter.steps",
    "segmenter.scale_range",
    "segmenter.scales",
    "segmenter.balance",
    "tile",
    "confident.block",
    "walk.block",
    "relabel.block",
]

# As accelerate names them.
Tracker = Literal[
    "tensorboard", "wandb", "mlflow", "comet_ml", "aim", "dvclive", "swanlab", "trackio"
]


class Recipe(Settings):
    """Everything a run depends on."""

    name: str = Field(
        "affinitynet", description="name of the recipe; runs/<name> is the default run folder"
    )
    data: Path | None = Field(None, description="folder of the data set")
    out: Path = Field(Path(), description="run folder")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random choice")
    device: Device = Field(
        "auto", description="where networks run: auto, cpu, cuda, cuda:1 (the second card) or mps"
    )
    precision: Literal["float32", "bf16", "fp16"] = Field(
        "float32", description="of the trainings; bf16 pays only on hardware that computes it"
    )
    workers: int = Field(
        2,
        ge=0,
        le=256,
        description="processes that load training images, and threads that run the CPU kernels",
    )
    trackers: tuple[Tracker, ...] = Field(
        (),
        description="programs that are told each training step's losses, through accelerate; "
        "tensorboard writes to the run folder's logs/",
    )
    store: Store = Field(
        "files",
        description="how a stage keeps what it makes of images: files, one for each image; tar, "
        "one for each 64 of them in WebDataset's layout; or a URL, as s3://bucket/run, to keep "
        "such tars there",
    )
    tile: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="side in pixels of the tiles, each with its surroundings, in which networks "
        "see larger images; 0: they see each image as a whole",
    )
    choose: tuple[Chosen, ...] = Field(
        (),
        description="settings to choose by the number and size of the images when the run folder "
        "is made; one that is given is not chosen",
    )
    dataset: DatasetSettings = DatasetSettings()
    backbone: BackboneSettings = BackboneSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    cams: CamSettings = CamSettings()
    contrast: ContrastSettings = ContrastSettings()
    confident: ConfidentSettings = ConfidentSettings()
    affinity: AffinitySettings = AffinitySettings()
    walk: WalkSettings = WalkSettings()
    pseudo: PseudoSettings = PseudoSettings()
    segmenter: SegmenterSettings = SegmenterSettings()
    relabel: RelabelSettings = RelabelSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    networks: NetworksSettings = NetworksSettings()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        """Refuse a name by which runs/<name> would lie outside runs."""
        try:
            check_relative(name, "the name")
        except UserError as error:
            raise ValueError(str(error)) from error
        return name

    @model_validator(mode="before")
    @classmethod
    def _default_folder(cls, values: Any) -> Any:
        # Before validation, since the default depends on another setting, the name.
        if isinstance(values, dict) and not values.get("out"):
            return {**values, "out": Path("runs") / str(values.get("name", "affinitynet"))}
        return values

    @model_validator(mode="before")
    @classmethod
    def _fit_transformers(cls, values: Any) -> Any:
        """Leave out the stride that a transformer lacks, and choose a head that it takes."""
        return fit_transformers(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _strides_that_are(self) -> Self:
        check_strides(self)
        return self

    @model_validator(mode="after")
    def _same_backbone(self) -> Self:
        segmenter = self.segmenter
        if segmenter.start == "classifier" and segmenter.backbone not in (None, self.backbone):
            raise ValueError(
                "segmenter.start = classifier needs the classifier's backbone: "
                "leave segmenter.backbone out"
            )
        return self

    @model_validator(mode="after")
    def _scales_to_compare(self) -> Self:
        if self.relabel.agreement and len(set(self.segmenter.scales)) < 2:
            raise ValueError(
                "relabel.agreement compares two scales: give segmenter.scales two or more"
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
        # The name chooses the default run folder: a recipe without one is named as its file.
        values.setdefault("name", path.stem)
        for key, value in overrides.items():
            _assign(path, values, key, value)
        # After the overrides: what they set is not left open.
        _close(values)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            place = "" if _is_of(error, overrides) else f"{path}: "
            raise UserError(f"{place}{_first_complaint(cls, error)}") from error

    def dump(self) -> str:
        """Return the recipe as YAML, every setting written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


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
        values = read_yaml(path.read_text(encoding="utf-8")) or {}
    except ValueError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    if not isinstance(values, dict):
        raise UserError(
            f"{path}: a recipe is a mapping of settings, this is a {type(values).__name__}"
        )
    return values


def _assign(path: Path, values: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        inner = values.get(section)
        if inner is None:  # a section that the recipe leaves out or sets to null
            inner = values[section] = {}
        elif not isinstance(inner, dict):
            raise UserError(
                f"{path}: {section} = {inner!r}: is a section, which has settings of its own; "
                f"write {section}: {{{last}: ...}}"
            )
        values = inner
    values[last] = value


def _close(values: dict[str, Any]) -> None:
    """Leave open no setting that the recipe or a flag has a value for, nor steps with epochs."""

    def is_set(key: Any) -> bool:
        section, _, name = str(key).partition(".")
        if not name:
            return section in values
        found = values.get(section)
        known = found if isinstance(found, dict) else {}
        return name in known or (name == "steps" and "epochs" in known)

    if isinstance(values.get("choose"), list | tuple):
        values["choose"] = [key for key in values["choose"] if not is_set(key)]


def _is_of(error: ValidationError, overrides: Iterable[str]) -> bool:
    """Tell whether pydantic's first complaint is of a value that an override gave."""
    where = _place(error.errors(include_url=False)[0]["loc"])
    parts = (key.split(".") for key in overrides)
    return any(where[: len(key)] == key for key in parts)


def _place(location: tuple[int | str, ...]) -> list[str]:
    # pydantic puts the names of its validators among the parts.
    return [str(part) for part in location if not str(part).startswith("function-")]


def _first_complaint(model: type[BaseModel], error: ValidationError) -> str:
    """Turn the first of pydantic's complaints into one line, with the nearest known name."""
    first = error.errors(include_url=False)[0]
    place = _place(first["loc"])
    where = ".".join(place)
    if first["type"] == "extra_forbidden":
        hint = nearest_settings(model, where) or f"known here: {_names_beside(model, place)}"
        return f"unknown setting {where}: {hint}"
    said = first["msg"].removeprefix("Value error, ")
    if not place:  # a check over several sections names its settings itself
        return said
    if first["type"] == "literal_error":
        # pydantic gives the choices only as a sentence: "'a', 'b' or 'c'".
        choices = [part.strip("' ") for part in first["ctx"]["expected"].split(" or ")]
        choices = [c.strip("' ") for part in choices for c in part.split(",")]
        hint = did_you_mean(str(first["input"]), choices, cutoff=0.5)
        said += f"; {hint}" if hint else ""
    return f"{where} = {first['input']!r}: {said}"


def _names_beside(model: type[BaseModel], place: list[str]) -> str:
    """List the settings of the section that an unknown one was given in."""
    section: type[BaseModel] | None = model
    for part in place[:-1]:
        section = section and find_section(section, part)
    return ", ".join(section.model_fields) if section else "none"


def find_weights(weights: str, data: Path | None) -> Path | None:
    """Return the local weights file a setting names, None for `imagenet` and `none`.

    Raises:
        UserError: no such file in the working folder or beside the data.
    """
    if weights in ("imagenet", "none"):
        return None
    return find_file(weights, "backbone.weights", data, "or imagenet, or none")


def find_file(name: str, key: str, data: Path | None, advice: str = "give its path") -> Path:
    """Return the file that the setting `key` names.

    Raises:
        UserError: no such file in the working folder or beside the data.
    """
    places = _places(name, data)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        tried = " or ".join(map(str, places))
        raise UserError(f"{key} = {name!r}: no such file ({tried}); {advice}")
    return found


def find_files(source: str, key: str, data: Path | None) -> Path:
    """Return the folder that a source `files:FOLDER` names; `key` is its setting.

    Raises:
        UserError: no such folder in the working folder or beside the data.
    """
    places = _places(source.removeprefix(FILES), data)
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        tried = " or ".join(map(str, places))
        raise UserError(f"{key} = {source!r}: no such folder ({tried}); give its path")
    return found


def _places(name: str, data: Path | None) -> list[Path]:
    """Return where a relative path may lie: in the working folder, then in the data folder."""
    return [Path(name)] if data is None else [Path(name), data / name]
