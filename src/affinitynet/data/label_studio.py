"""Label Studio's exports of image classification: JSON and JSON-MIN. Its CSV is a table."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from affinitynet.data.json_rows import load_json
from affinitynet.data.rows import Listing, Row
from affinitynet.errors import UserError

_HASH = re.compile(r"^[0-9a-f]{8}-")  # Label Studio writes it before the names of uploads
# What Label Studio adds to each task of JSON-MIN itself.
_MIN_KEYS = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}
_IMAGE_KEYS = ("image", "img", "photo", "picture", "file", "url")


def is_label_studio(content: Any) -> bool:
    """Whether a parsed JSON file is one of the two exports."""
    first = content[0] if isinstance(content, list) and content else None
    if not isinstance(first, dict):
        return False
    return {"annotations", "data"} <= first.keys() or {"annotation_id", "annotator"} <= first.keys()


def read_label_studio(path: Path) -> Listing:
    """Read the tasks of an export: the choices of an image's annotations are its labels.

    A task without an annotation is not yet looked at, and left out; an annotation without a choice
    says background only. JSON-MIN does not tell such an annotation from a skipped task: left out.
    Where several annotations of a task differ, all their labels count.

    Raises:
        UserError: the file is no export, a task has no image, an annotation is of another form, two
            controls have choices; names the entry.
    """
    content = load_json(path)
    if not is_label_studio(content):
        raise UserError(
            f"{path}: is no export of Label Studio (a list of tasks with annotations and data); "
            "export it as JSON or JSON-MIN"
        )
    full = "annotations" in content[0]
    found: dict[str, tuple[int, list[tuple[str, ...]]]] = {}
    # The control of the choices -> the first entry that has it.
    controls = {} if full else _min_controls(path, content)
    others: dict[str, int] = {}  # results that are no choices, likewise
    waiting = []
    for number, task in enumerate(content, 1):
        where = f"{path}, entry {number}"
        if not isinstance(task, dict):
            raise UserError(f"{where}: is no task of Label Studio; export the project again")
        image, answers = (_of_task if full else _of_min)(task, where, controls, others, number)
        if not answers:
            waiting.append(image)
        # JSON-MIN has an entry for each annotation, so an image may come several times.
        found.setdefault(image, (number, []))[1].extend(answers)
    if len(controls) > 1:
        named = " and ".join(f"{name} (entry {n})" for name, n in controls.items())
        raise UserError(
            f"{path}: both {named} hold choices; export a project with one of the two, or take the "
            "other out"
        )
    if others and not controls:
        kind, number = next(iter(others.items()))
        raise UserError(
            f"{path}, entry {number}: has results of the type {kind}, and no entry has choices; "
            "only choices are tags of an image (regions can be exported as COCO)"
        )
    rows = [
        Row(
            n,
            image,
            tuple(dict.fromkeys(label for labels in answers for label in labels)),
            unit="entry",
            names=file_names(image),
        )
        for image, (n, answers) in found.items()
        if answers
    ]
    differ = [i for i, (_, answers) in found.items() if len({frozenset(a) for a in answers}) > 1]
    notes = []
    if waiting:
        notes.append(
            f"{path.name}: {len(waiting)} tasks have no annotation yet and are left out, "
            f"{waiting[0]} first"
        )
    if differ:
        notes.append(
            f"{path.name}: {len(differ)} images have annotations that differ, {differ[0]} first; "
            "the labels of all count"
        )
    if others:
        kinds = ", ".join(sorted(others))
        notes.append(f"{path.name}: results that are no choices are not read ({kinds})")
    kind = "JSON" if full else "JSON-MIN"
    control = f", choices of {next(iter(controls))}" if controls else ""
    return Listing(path, rows, f"{path.name}: Label Studio's {kind}{control}", tuple(notes))


def _of_task(
    task: dict[str, Any], where: str, controls: dict[str, int], others: dict[str, int], number: int
) -> tuple[str, list[tuple[str, ...]]]:
    data, annotations = task.get("data"), task.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise UserError(f"{where}: has no data or no list of annotations; export the project again")
    answers = []
    for annotation in annotations:
        results = annotation.get("result") if isinstance(annotation, dict) else None
        if not isinstance(results, list):
            raise UserError(
                f"{where}: has an annotation without a result; export the project again"
            )
        # Skipped by its annotator: nothing was said of the image, not even that it shows none.
        if annotation.get("was_cancelled"):
            continue
        labels: list[str] = []
        for result in results:
            if not isinstance(result, dict) or not isinstance(result.get("value"), dict):
                raise UserError(f"{where}: has a result without a value; export the project again")
            if result.get("type") == "choices":
                controls.setdefault(str(result.get("from_name")), number)
                labels += _choices(result["value"].get("choices"), where)
            else:
                others.setdefault(str(result.get("type")), number)
        answers.append(tuple(labels))
    return image_of(data, where), answers


def _of_min(
    task: dict[str, Any], where: str, controls: dict[str, int], others: dict[str, int], number: int
) -> tuple[str, list[tuple[str, ...]]]:
    image = image_of(task, where)
    labels: list[str] = []
    for key, value in task.items():
        if key in controls and value is not None:
            several = value.get("choices") if isinstance(value, dict) else value
            labels += _choices([value] if isinstance(value, str) else several, where)
        elif isinstance(value, list):
            others.setdefault(key, number)
    # Skipped tasks are exported as well, without the key: nothing was said of their images.
    said = any(task.get(key) is not None for key in controls)
    return image, [tuple(labels)] if said else []


def _min_controls(path: Path, tasks: list[Any]) -> dict[str, int]:
    """Find the key of JSON-MIN that holds the choices, and the first entry that has it.

    Several choices are told by their form; one alone is text, as a title in the task's data is.
    """
    sure: dict[str, int] = {}
    texts: dict[str, int] = {}
    for number, task in enumerate(tasks, 1):
        for key, value in task.items() if isinstance(task, dict) else ():
            if isinstance(value, dict) and "choices" in value:
                sure.setdefault(key, number)
            elif isinstance(value, str) and key not in (*_MIN_KEYS, *_IMAGE_KEYS):
                texts.setdefault(key, number)
    # "choice" is the control's name in Label Studio's own template of image classification.
    if sure or "choice" in texts:
        return sure or {"choice": texts["choice"]}
    if len(texts) > 1:
        raise UserError(
            f"{path}: {' and '.join(texts)} may hold the choices; export the project as JSON, "
            "which says so"
        )
    return texts


def _choices(value: Any, where: str) -> Iterable[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{where}: has choices that are no list of names; export the project again")
    return [item.strip() for item in value]


def image_of(data: dict[str, Any], where: str) -> str:
    """Return what a task names as its image; UserError where it names none."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    for key in _IMAGE_KEYS:
        if key in texts:
            return texts[key]
    raise UserError(f"{where}: names no image (a key {', '.join(_IMAGE_KEYS)}); add it to its data")


def file_names(image: str) -> tuple[str, ...]:
    """What an uploaded, served or stored image's file may be called: `1.jpg` of `a1b2c3d4-1.jpg`.

    Exports name images by addresses: `/data/upload/1/a1b2c3d4-1.jpg` of uploads,
    `/data/local-files/?d=photos/1.jpg` of local storage, `s3://bucket/photos/1.jpg`.
    """
    address = urlsplit(image)
    local = parse_qs(address.query).get("d", [""])[0]
    path = local or unquote(address.path)
    if address.scheme in ("s3", "gs", "azure-blob", "http", "https") or path.startswith("/"):
        path = path.lstrip("/")
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    # The longest ending first, as it says most; buckets and servers put folders before it that are
    # not on this disk.
    names = ["/".join(parts[start:]) for start in range(len(parts))]
    names += [_HASH.sub("", parts[-1])] if parts and _HASH.match(parts[-1]) else []
    return tuple(names)
