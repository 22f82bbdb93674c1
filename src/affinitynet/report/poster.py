"""A figure of strips as one PNG, for a README or a slide."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from affinitynet.data.manifest import Manifest
from affinitynet.errors import UserError
from affinitynet.report.pictures import class_color
from affinitynet.report.sampling import score
from affinitynet.report.strips import Column, Panel, Strip, draw_strip, training_columns
from affinitynet.run_folder.folder import RECIPE, atomic_write
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.stages import final_masks

_PAPER, _INK, _MUTED, _EMPTY = (255, 255, 255), (32, 36, 40), (96, 102, 108), (238, 238, 236)
_NEUTRAL = (131, 131, 131)  # the mean of the hatching in `draw_labels`
_GAP, _MARGIN = 8, 20
_HEADING, _TEXT = 17, 15  # font sizes, pixels


def write_strip(
    run_folder: Path, ids: Sequence[str], path: Path, *, caption: str = "", side: int = 240
) -> Path:
    """Write a figure of chosen images as PNG: one row an id, the columns of the report.

    Columns that are empty in every row are left out. `side` is the long side of a cell in
    pixels; below the rows stand the classes' colors, then `caption`. A row with ground truth
    says the IoU of its final mask (of this image, mean over the classes in mask or truth).

    Raises:
        UserError: no run folder, no ids, an id that the manifest does not know, or nothing to
            draw for any of them.
    """
    run_folder, path = Path(run_folder), Path(path)
    manifest = Manifest.of_run(run_folder)
    known = {sample.id: sample for sample in manifest.samples}
    for name in ids:
        if name not in known:
            raise UserError(
                f"{run_folder}: its manifest has no image {name!r}; ids look like "
                f"{manifest.samples[0].id!r}"
            )
    recipe = Recipe.load(run_folder / RECIPE, out=run_folder)
    masks, columns = final_masks(recipe).folder, training_columns(recipe)
    scored = [score(run_folder / masks, manifest, known[name]) for name in ids]
    strips = [draw_strip(run_folder, manifest, entry, columns, side=side) for entry in scored]
    filled = [
        number
        for number in range(len(columns))
        if any(strip.panels[number].picture is not None for strip in strips)
    ]
    if not filled:
        raise UserError(f"{run_folder}: nothing to draw for {len(ids)} image ids")
    labels = sorted(frozenset().union(*(strip.labels for strip in strips)))
    legend = [(class_color(label), manifest.classes[label - 1]) for label in labels]
    poster = _compose(strips, columns, filled, masks, legend, caption)
    with atomic_write(path) as temporary:
        poster.save(temporary, format="PNG", optimize=True)
    return path


def _compose(
    strips: Sequence[Strip],
    every: Sequence[Column],
    columns: Sequence[int],
    masks: str,
    legend: Sequence[tuple[tuple[int, int, int], str]],
    caption: str,
) -> Image.Image:
    rows = [[strip.panels[number] for number in columns] for strip in strips]
    # A column is as wide as its widest picture, a row as high as its highest.
    widths = [max(_width(row[i]) for row in rows) for i in range(len(columns))]
    heights = [max(_height(panel) for panel in row) for row in rows]
    width = 2 * _MARGIN + sum(widths) + _GAP * (len(columns) - 1)
    text = ImageFont.load_default(size=_TEXT)
    notes = _wrap(caption, text, width - 2 * _MARGIN)
    keys = _legend_lines(legend, text, width - 2 * _MARGIN)
    line = _TEXT + 9
    height = 2 * _MARGIN + _HEADING + 12 + sum(heights) + _GAP * (len(rows) - 1) + 14
    height += line * (len(keys) + len(notes))
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    left = _MARGIN
    for number, wide in zip(columns, widths, strict=True):
        heading = ImageFont.load_default(size=_HEADING)
        pen.text((left, _MARGIN), every[number][0], fill=_INK, font=heading)
        left += wide + _GAP
    top = _MARGIN + _HEADING + 12
    for strip, row, high in zip(strips, rows, heights, strict=True):
        left = _MARGIN
        for number, panel, wide in zip(columns, row, widths, strict=True):
            _draw_cell(sheet, panel, (left, top, left + wide, top + high))
            # Beside the final mask alone, which is what the score is of.
            if every[number][1] == masks and strip.scored.iou is not None:
                _draw_badge(pen, (left, top), f"IoU {100 * strip.scored.iou:.0f}")
            left += wide + _GAP
        top += high + _GAP
    top += 14 - _GAP
    for keys_of_line in keys:
        for left, color, name in keys_of_line:
            box = (_MARGIN + left, top + 2, _MARGIN + left + _TEXT, top + 2 + _TEXT)
            pen.rounded_rectangle(box, radius=3, fill=color)
            pen.text((_MARGIN + left + _TEXT + 7, top), name, fill=_INK, font=text)
        top += line
    for note in notes:
        pen.text((_MARGIN, top), note, fill=_MUTED, font=text)
        top += line
    return sheet


def _width(panel: Panel) -> int:
    return 0 if panel.picture is None else panel.picture.shape[1]


def _height(panel: Panel) -> int:
    return 0 if panel.picture is None else panel.picture.shape[0]


def _draw_cell(sheet: Image.Image, panel: Panel, box: tuple[int, int, int, int]) -> None:
    """Paste a picture into its cell; an empty cell is gray and says why."""
    if panel.picture is not None:
        sheet.paste(Image.fromarray(np.ascontiguousarray(panel.picture)), box[:2])
        return
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=_EMPTY)
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    pen.text(middle, panel.missing, fill=_MUTED, font=ImageFont.load_default(13), anchor="mm")


def _draw_badge(pen: ImageDraw.ImageDraw, corner: tuple[int, int], words: str) -> None:
    font = ImageFont.load_default(size=13)
    left, top = corner[0] + 6, corner[1] + 6
    box = pen.textbbox((left + 6, top + 3), words, font=font)
    pen.rounded_rectangle((left, top, box[2] + 6, box[3] + 4), radius=4, fill=(20, 22, 24))
    pen.text((left + 6, top + 3), words, fill=(255, 255, 255), font=font)


def _legend_lines(
    legend: Sequence[tuple[tuple[int, int, int], str]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
) -> list[list[tuple[int, tuple[int, int, int], str]]]:
    """Break the legend into lines of (left, color, name) that fit `width` pixels."""
    lines: list[list[tuple[int, tuple[int, int, int], str]]] = []
    left = 0
    entries = [*legend, (_NEUTRAL, "neutral")]
    for color, name in entries:
        wide = round(font.getlength(name)) + _TEXT + 29
        if not lines or left + wide > width:
            lines.append([])
            left = 0
        lines[-1].append((left, color, name))
        left += wide
    return lines


def _wrap(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in words.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
