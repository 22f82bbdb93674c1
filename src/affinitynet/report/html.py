"""The report of a run: one HTML file that needs nothing beside it."""

import base64
import hashlib
import io
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image

from affinitynet.data import Manifest, Sample
from affinitynet.data.judgements import class_table
from affinitynet.data.of_run import manifest_of
from affinitynet.data.roles import count_files, samples_of
from affinitynet.data.trust import read_trust
from affinitynet.errors import UserError
from affinitynet.progress import warn
from affinitynet.report.attention import look_first, missed_objects
from affinitynet.report.curves import learning_curves
from affinitynet.report.figures import FigureSheet, read_facts, read_figures, read_stages
from affinitynet.report.pictures import Pixels, class_color
from affinitynet.report.sampling import Scored, Selection, select
from affinitynet.report.strips import PREDICTION_COLUMNS, draw_strip, training_columns
from affinitynet.report.table import percent, yes_no
from affinitynet.run_folder.artifacts import CAMS, CONFIDENT, PREDICTIONS, PSEUDO
from affinitynet.run_folder.flags import list_settings, show_value
from affinitynet.run_folder.folder import RECIPE, atomic_write, output_path
from affinitynet.run_folder.freshness import Freshness
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import final_masks
from affinitynet.run_folder.store import is_there

PANEL_SIDE = 320  # pixels; six panels fill a wide screen, twelve rows stay near 1 MB
_BINS = 20


def write_report(run_folder: str | Path, *, samples: int = 12) -> Path:
    """Write ``report/index.html`` into the run folder and return its path.

    run_folder: any run folder, however far it got; what is missing is shown as missing.
    samples: how many training images to show (half as many of the segmenter's).

    Raises:
        UserError: no run folder, one of its records is damaged, or `samples` is negative.
    """
    run_folder = Path(run_folder)
    if samples < 0:
        raise UserError(f"samples = {samples}: a report can show 0 images or more")
    manifest = manifest_of(run_folder)
    recipe = Recipe.load(run_folder / RECIPE, out=run_folder)
    freshness = Freshness(recipe)
    states = freshness.states(partial(count_files, recipe, manifest))
    for status in states:
        if status.state == "stale":
            warn(f"{status.name} is {status}; the report shows what it made before")
    stages = read_stages(run_folder, freshness.stages, states)
    sheet = _with_classes(read_figures(run_folder), manifest)
    selection = _select_training(run_folder, manifest, recipe, samples)
    first = look_first(recipe, sheet.figures, selection.ranked, manifest)
    title = "From tags to masks"
    columns = training_columns(recipe)
    sections = [_section(title, run_folder, manifest, selection, columns)]
    sections += _prediction_sections(run_folder, manifest, recipe, (samples + 1) // 2)
    script = _package_text("page.js")
    page = _template().render(
        facts=read_facts(run_folder, manifest, recipe, freshness.stages),
        stages=stages,
        first=first,
        images=image_table(recipe, manifest, selection.ranked),
        missed=missed_objects(selection.ranked, manifest),
        curves=learning_curves(run_folder),
        settings=_changed_settings(recipe),
        judged_classes=_judged(class_table(run_folder)),
        warnings=[
            (row.name, text)
            for row in stages
            for text in row.warnings
            if (row.name, text) not in first
        ],
        sheet=sheet,
        sections=sections,
        css=Markup(_package_text("style.css")),
        script=Markup(script),
        # The page may run this script and no other.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )
    path = output_path(run_folder, "report/index", ".html")  # not where a link leads
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _select_training(
    run_folder: Path, manifest: Manifest, recipe: Recipe, samples: int
) -> Selection:
    role = "figures" if recipe.dataset.figures else "train"
    pool = samples_of(recipe, manifest, role) or manifest.samples
    begun = [sample for sample in pool if _begun(run_folder, sample)]
    masks = final_masks(recipe)
    folder, what = run_folder / masks.folder, masks.title.lower()
    return select(folder, manifest, begun or pool, samples, what=what)


def _prediction_sections(
    run_folder: Path, manifest: Manifest, recipe: Recipe, samples: int
) -> list[dict[str, Any]]:
    """Show the segmenter's masks of unseen images, once there are some."""
    folder = run_folder / PREDICTIONS.folder
    pool = samples_of(recipe, manifest, "val")
    pool = tuple(sample for sample in pool if is_there(output_path(folder, sample.id)))
    if not pool:
        return []
    selection = select(folder, manifest, pool, samples, what="predicted mask")
    title = "The segmenter, without tags"
    return [_section(title, run_folder, manifest, selection, PREDICTION_COLUMNS)]


def _section(
    title: str,
    run_folder: Path,
    manifest: Manifest,
    selection: Selection,
    columns: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Draw the chosen strips and gather what the template shows of them."""
    groups = []
    labels: set[int] = set()
    for group in selection.groups:
        strips = []
        for scored in group.samples:
            strip = draw_strip(run_folder, manifest, scored, columns, side=PANEL_SIDE)
            labels |= strip.labels
            panels = [
                (panel, None if panel.picture is None else data_uri(panel.picture))
                for panel in strip.panels
            ]
            tags = [(_css(tag + 1), manifest.classes[tag]) for tag in scored.sample.tags]
            strips.append({"scored": scored, "panels": panels, "tags": tags})
        groups.append({"title": group.title, "strips": strips})
    return {
        "title": title,
        "rule": selection.rule,
        "columns": len(columns),
        "groups": groups,
        "legend": [(_css(label), manifest.classes[label - 1]) for label in sorted(labels)],
        "histogram": _histogram(selection.ranking),
    }


def _histogram(ranking: Sequence[float]) -> dict[str, Any] | None:
    """Count the images in each of 20 steps of IoU; None where too few were ranked to say much."""
    if len(ranking) < _BINS:
        return None
    counts = [0] * _BINS
    for iou in ranking:
        # An IoU of exactly 1 belongs in the last step.
        counts[min(int(iou * _BINS), _BINS - 1)] += 1
    below_half = sum(iou < 0.5 for iou in ranking)
    words = (
        f"Median IoU {percent(median(ranking))}; {below_half} of {len(ranking)} images "
        "are below 50."
    )
    return {"bars": [count / max(counts) for count in counts], "counts": counts, "words": words}


def data_uri(picture: Pixels) -> str:
    """Encode (H, W, 3) pixels as a JPEG data URI; full color resolution keeps the edges crisp."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=84, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def duration(seconds: float | None) -> str:
    """Say a time in words: 4.2 s, 3 min 20 s, 1 h 12 min; "" for None."""
    if seconds is None:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def _begun(run_folder: Path, sample: Sample) -> bool:
    """Tell whether any stage made something of the image yet."""
    outputs = (PSEUDO, CONFIDENT, CAMS)
    return any(is_there(output_path(run_folder / a.folder, sample.id, a.suffix)) for a in outputs)


def image_table(
    recipe: Recipe, manifest: Manifest, scored: Sequence[Scored]
) -> dict[str, Any] | None:
    """Return the columns and rows of all images with a trust or an IoU, the worst first."""
    trust = read_trust(recipe)
    names = [name for name in trust if name != "image"] + (["IoU"] if scored else [])
    numbers: dict[str, dict[str, float | None]] = {}
    for image, *cells in zip(*trust.values(), strict=True):
        numbers[image] = dict(zip(names, cells, strict=False))
    for entry in scored:
        numbers.setdefault(entry.sample.id, {})["IoU"] = entry.iou
    tags = {s.id: [manifest.classes[tag] for tag in s.tags] for s in manifest.samples}
    order = "IoU" if scored else "trust"
    rows = [(image, tags.get(image, []), found) for image, found in numbers.items()]
    rows.sort(key=lambda row: (row[2].get(order) is None, row[2].get(order) or 0.0, row[0]))
    return {"names": names, "rows": rows, "order": order} if rows else None


def _changed_settings(recipe: Recipe) -> list[tuple[str, str, str, str]]:
    """Return what differs from the defaults: name, value, default, meaning."""
    where = ("name", "data", "out")
    found = (s for s in list_settings(recipe, Recipe()) if s.changed and s.name not in where)
    return [(s.name, show_value(s.value), show_value(s.default), s.meaning) for s in found]


def _judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a class table of which anything is known."""
    return [row for row in rows if row["ap"] is not None or row["empty"] is not None]


def _with_classes(sheet: FigureSheet, manifest: Manifest) -> FigureSheet:
    if sheet.classes:
        return sheet
    return FigureSheet(("background", *manifest.classes), sheet.figures)


def _css(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*class_color(label))


def _package_text(name: str) -> str:
    return files("affinitynet.report").joinpath(name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        # A misspelled name in the template is an error, not a blank.
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "yes_no": yes_no, "duration": duration}
    return environment.from_string(_package_text("template.html"))
