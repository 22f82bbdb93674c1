"""Settings on the command line: their list, their flags, and the nearest one to a wrong name.

Everything is derived from the pydantic models, so a new field is a flag and a line of help at once.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from affinitynet.errors import UserError, close_names, either

FORMER = ("walk.scores",)  # of version 0.1: still read, listed no more
MANY = 1_000_000  # words that a list without a fixed length may take
MANY_VALUES = 10_000  # of a recipe, where its anchors are written out
DEEP = 50  # brackets within each other; PyYAML takes the square of their number in time
_KINDS = {bool: "true|false", int: "integer", float: "number", str: "text", Path: "path"}


class Setting(NamedTuple):
    """One setting: its dotted name, its value, the default, what it means, what it may be."""

    name: str
    value: Any
    default: Any
    meaning: str
    kind: str

    @property
    def changed(self) -> bool:
        """Whether the value differs from the default."""
        return bool(self.value != self.default)


def list_settings(recipe: BaseModel, defaults: BaseModel, prefix: str = "") -> Iterator[Setting]:
    """Yield each setting of a recipe in order, section by section, beside its default."""
    for name, field in type(recipe).model_fields.items():
        value, default = getattr(recipe, name), getattr(defaults, name)
        if isinstance(value, BaseModel):
            # A section that is null by default is compared with what its own fields start from.
            default = default if isinstance(default, type(value)) else type(value)()
            yield from list_settings(value, default, f"{prefix}{name}.")
        else:
            kind = _describe_kind(field.annotation)
            yield Setting(prefix + name, value, default, field.description or "", kind)


def show_value(value: Any) -> str:
    """Write a value as it can be typed after a flag or in YAML: `null`, `true`, `[0.5, 1.0]`."""
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)


def show_settings(values: Mapping[str, Any]) -> str:
    """Write settings as `walk.beta = 8, walk.steps = 256`."""
    return ", ".join(f"{name} = {show_value(value)}" for name, value in values.items())


def setting_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of each section and each setting, those of null sections included."""
    for name in model.model_fields:
        yield prefix + name
        if inner := find_section(model, name):
            yield from setting_names(inner, f"{prefix}{name}.")


def nearest_settings(model: type[BaseModel], name: str, also: Collection[str] = ()) -> str:
    """Return "did you mean walk.beta?" for a name that is no setting, or nothing.

    A name without a section (`epochs`) stands for that setting of every section that has it.
    also: further names that were possible there.
    """
    names = [*also, *setting_names(model)]
    # With a section the whole name counts: `wlak.beta` is nearest to `walk.beta`.
    if "." in name and (found := close_names(name, names)):
        return f"did you mean {found[0]}?"
    last_parts = {known.rpartition(".")[2] for known in names}
    near = close_names(name.rpartition(".")[2], last_parts)
    found = [known for known in names if near and known.rpartition(".")[2] == near[0]]
    return f"did you mean {either(found)}?" if found else ""


def split_flags(
    model: type[BaseModel], words: Sequence[str], own: Collection[str]
) -> tuple[list[str], dict[str, Any]]:
    """Take the settings out of a command's words: `--walk.beta 10 --cams.scales 0.5 1`.

    A list takes words up to the next flag, any other setting takes one. A setting that is given
    twice has its last value; the words of a list add up.

    own: the command's own flags, which stay among the words that are returned.

    Raises:
        UserError: an unknown setting, a setting without a value, or a value that can't be read.
    """
    rest: list[str] = []
    found: dict[str, list[str]] = {}
    room = 0  # words that the last setting still takes
    for word in words:
        name, equals, value = word.partition("=")
        if name in own or not (word.startswith("--") or room):
            rest.append(word)
            room = 0
        elif word.startswith("--"):
            key = name[2:].replace("-", "_")
            # `--no-such-flag` gets one word as well; it is refused below, by its whole name.
            room = _most_words(model, key)
            found[key] = found.get(key, []) if room > 1 else []
            if equals:
                found[key].append(value)
                room -= 1
        else:
            found[key].append(word)
            # A bracketed list is whole.
            room = 0 if word.startswith("[") else room - 1
    for key, given in found.items():
        if key not in (*setting_names(model), *FORMER):
            hint = nearest_settings(model, key, [flag.lstrip("-") for flag in own])
            hint = f": {hint}" if hint else "; see affinitynet settings"
            raise UserError(f"unknown setting --{key}{hint}")
        if not given:
            raise UserError(f"--{key} needs a value")
    return rest, {key: read_flag(model, key, given) for key, given in found.items()}


def read_flag(model: type[BaseModel], key: str, words: Sequence[str]) -> Any:
    """Read the words that follow a flag as a value of the setting `key`.

    Text stays as typed (`--dataset.classes no on` names two classes, not two YAML booleans) and a
    list may have one word. Everything else is YAML. null means none where the setting allows it.

    Raises:
        UserError: a word that is not YAML where YAML is expected.
    """
    kinds = _kinds(model, key)
    if NoneType in kinds and list(words) in (["null"], ["~"], [""]):
        return None
    items = _items(kinds)
    bracketed = len(words) == 1 and words[0].startswith("[")
    as_text = any(map(_is_text, items or kinds)) and not (items and bracketed)
    values = list(words) if as_text else [_read_word(key, word) for word in words]
    return values[0] if len(values) == 1 and (bracketed or not items) else values


def read_yaml(text: str) -> Any:
    """Read YAML whose anchors are no trap: what they stand for is counted before it is used.

    Raises:
        ValueError: no YAML, or a recipe of more than `MANY_VALUES` values.
    """
    if _brackets(text) > DEEP:
        raise ValueError("nested too deeply")
    try:
        values = yaml.safe_load(text)
    # Its constructors raise more than YAMLError: 2001-99-99 is a date to them, !!bool x a KeyError.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    except (RecursionError, OverflowError) as error:
        raise ValueError("nested too deeply, or a number too large") from error
    count, waiting = 0, [values]
    while waiting:
        value = waiting.pop()
        inner = value.values() if isinstance(value, dict) else value
        waiting += inner if isinstance(value, dict | list | tuple | set) else ()
        count += 1
        if count + len(waiting) > MANY_VALUES:
            raise ValueError(f"it stands for more than {MANY_VALUES} values")
    return values


def _brackets(text: str) -> int:
    """Count how many brackets are open at once; those in quotes count too."""
    depth = most = 0
    for letter in text:
        if letter in "[{":
            depth += 1
            most = max(most, depth)
        elif letter in "]}":
            depth = max(depth - 1, 0)
    return most


def find_section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """Return the section of that name, or None where there is none or it is a single setting."""
    field = model.model_fields.get(name)
    kinds = _alternatives(field.annotation) if field else ()
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def _kinds(model: type[BaseModel], key: str) -> tuple[Any, ...]:
    """Return the types a setting may have; none where there is no such setting."""
    *sections, last = key.split(".")
    inner: type[BaseModel] | None = model
    for section in sections:
        inner = inner and find_section(inner, section)
    if inner is None or last not in inner.model_fields:
        return ()
    return _alternatives(inner.model_fields[last].annotation)


def _items(kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the item types of a list setting, with an Ellipsis last where any number may come."""
    return next((get_args(kind) for kind in kinds if get_origin(kind) is tuple), ())


def _most_words(model: type[BaseModel], key: str) -> int:
    items = _items(_kinds(model, key))
    return MANY if Ellipsis in items else max(len(items), 1)


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(value, str) for value in get_args(kind))
    return kind in (str, Path)


def _read_word(key: str, word: str) -> Any:
    try:
        return read_yaml(word)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--{key} {word}: this value is not YAML ({reason})") from error


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)


def _describe_kind(annotation: Any) -> str:
    """Say in a word or two what a setting may be: `number`, `auto|cpu|cuda`, `number ...`."""
    if annotation is Ellipsis:
        return "..."
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _describe_kind(inner[0])
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin is tuple:
        return " ".join(map(_describe_kind, inner))
    if origin in (Union, UnionType):
        return "|".join(map(_describe_kind, inner))
    if annotation is NoneType:
        return "null"
    return _KINDS.get(annotation, "section")
