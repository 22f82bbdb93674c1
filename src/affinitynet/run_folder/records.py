"""What the run folder says about each stage: what it is made from, how far it is, its results."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from affinitynet.errors import UserError
from affinitynet.run_folder.folder import (
    damaged,
    is_temporary,
    output_path,
    read_json,
    write_json,
)

PLAN = "plan.json"  # written before a stage's first file
RECORD = "stage.json"  # written after its last
CHECKPOINT = "checkpoint.pt"  # of a training that is not finished
SHARDS = "shards"
SHARD_IMAGES = 64  # consecutive images whose files are recorded together


class Paper(BaseModel):
    """A record on disk; entries that another version wrote beside the known ones are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Plan(Paper):
    """What the files in a stage's folder are made from (`plan.json`)."""

    fingerprint: str
    settings: dict[str, Any]


class Record(Paper):
    """What a finished stage says about itself (`stage.json`)."""

    stage: str
    fingerprint: str
    settings: dict[str, Any]
    figures: dict[str, Any] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict)
    seconds: float = 0.0
    versions: dict[str, str] = Field(default_factory=dict)


class Shard(Paper):
    """That the files of consecutive images are there (`shards/000000.json`)."""

    first: str
    images: int


Kind = TypeVar("Kind", bound=Paper)


class StageFolder:
    """One stage's folder: its plan, its shards and, when it is done, its record."""

    def __init__(self, path: Path, stage: str) -> None:
        """Look at the folder `path` of the stage named `stage`."""
        self.path, self.stage = path, stage

    def holds_results(self) -> bool:
        """Tell whether anything was made here: a plan alone is nothing."""
        return any(
            file.name != PLAN and not is_temporary(file.name) and file.is_file()
            for file in self.path.rglob("*")
        )

    def plan(self) -> Plan | None:
        """Return what the files here are made from; None where no readable plan says it."""
        try:
            return self._read(Plan, self.path / PLAN)
        except UserError:
            return None

    def start(self, plan: Plan) -> None:
        """Write down what the files that follow are made from."""
        write_json(self.path / PLAN, plan.model_dump(mode="json"))

    def record(self) -> Record | None:
        """Return the finished stage's record, or None while there is work to do.

        Raises:
            UserError: the record is damaged.
        """
        return self._read(Record, self.path / RECORD)

    def rows(self, key: str, kind: type) -> list[Any]:
        """Return a list among the record's figures as it is, [] where there is none.

        Raises:
            UserError: the record is damaged, or an entry of the list is not of the kind.
        """
        record = self.record()
        found: list[Any] = record.figures.get(key, []) if record else []
        checked(found, list[kind], self.path / RECORD, self.stage, f"figures.{key}")  # type: ignore[valid-type]
        return found

    def finish(self, record: Record) -> None:
        """Write the record, the last file of a stage, and delete what it makes needless."""
        write_json(self.path / RECORD, record.model_dump(mode="json"))
        self.tidy()

    def tidy(self) -> None:
        """Delete the checkpoint of a training that is finished: only its record makes it that."""
        if (self.path / RECORD).is_file():
            (self.path / CHECKPOINT).unlink(missing_ok=True)

    def finish_shard(self, number: int, ids: Sequence[str]) -> None:
        """Record that the files of these consecutive images are complete."""
        write_json(self._shard(number), Shard(first=ids[0], images=len(ids)).model_dump())

    def has_shard(self, number: int, ids: Sequence[str]) -> bool:
        """Tell whether these images are recorded as complete."""
        try:
            shard = self._read(Shard, self._shard(number))
        except UserError:  # made again, which costs no more than looking at its images
            return False
        # Of another list of images it says nothing.
        return shard == Shard(first=ids[0], images=len(ids))

    def listed_shards(self) -> set[int]:
        """Return the numbers of the shards that have a record, of whatever list of images."""
        found = (self.path / SHARDS).glob("*.json")
        return {int(file.stem) for file in found if file.stem.isdecimal()}

    def _shard(self, number: int) -> Path:
        return output_path(self.path, f"{SHARDS}/{number:06d}", ".json")

    def _read(self, kind: type[Kind], file: Path) -> Kind | None:
        if not file.is_file():
            return None
        found: Kind = checked(read_json(file, self.stage), kind, file, self.stage)
        return found


def checked(value: Any, kind: Any, file: Path, stage: str = "", place: str = "") -> Any:
    """Return what was read from a JSON file of a run folder, if it is of a kind.

    Records are read by people, and edited by some. `kind` is a model or a type, `place` is where in
    the file the value stands.

    Raises:
        UserError: it is of another kind; names file and place.
    """
    try:
        # Strict for plain types, so that "1" is no number; models say for themselves.
        return _adapter(kind).validate_python(value, strict=None if _is_model(kind) else True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join([*([place] if place else []), *map(str, first["loc"])])
        raise damaged(file, stage, f"not what a stage writes ({where}: {first['msg']})") from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def shards_of(ids: Sequence[str]) -> list[Sequence[str]]:
    """Cut a stage's images into the runs of consecutive ones that are recorded together."""
    return [ids[start : start + SHARD_IMAGES] for start in range(0, len(ids), SHARD_IMAGES)]
