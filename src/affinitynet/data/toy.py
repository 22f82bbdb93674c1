"""A generated data set: creatures whose head tells their class and whose body hardly does.

A classifier needs only the patterned head, so its activation map lights up the head above all. The
plain body has any color, the class's usual one more often than others: a weak hint, as a cow's
flank is. It stands out clearly from the textured ground, so that pixel affinities can carry the
head's label over it. The masks cover the whole creature.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from affinitynet.data.labels import voc_palette, write_labels
from affinitynet.errors import UserError
from affinitynet.run_folder.folder import atomic_write, write_json

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CLASSES = ("striped", "spotted", "ringed", "checked")
SETTINGS_FILE = "toy.json"

_OVERSAMPLING = 3  # parts of a pixel's side, for smooth outlines
_GROUNDS = (
    ((38, 66, 30), (92, 128, 58), (150, 172, 96)),  # meadow
    ((122, 96, 62), (178, 148, 102), (222, 200, 156)),  # sand
    ((20, 52, 84), (44, 98, 134), (120, 168, 188)),  # water
    ((52, 36, 26), (104, 74, 48), (156, 122, 84)),  # forest floor
    ((64, 66, 72), (112, 114, 118), (168, 168, 166)),  # stone
    ((58, 40, 72), (104, 78, 116), (160, 132, 160)),  # heather
)
_BODIES = (
    (236, 222, 190),
    (190, 175, 215),
    (226, 160, 140),
    (150, 190, 222),
    (165, 208, 170),
    (200, 165, 120),
    (84, 88, 108),
)
_USUAL_BODIES = (2, 1, 4, 5)  # of each class, in _BODIES
_USUAL_SHARE = 0.6  # of a class's creatures: a hint, and no more
_CLEAR_DISTANCE = 75.0  # in RGB, between a body and its ground
_COUNT_SHARES = (0.04, 0.38, 0.38, 0.20)  # of images with 0, 1, 2 and 3 creatures

Color = tuple[int, int, int]
# The color of a head's marks on the body's own color, and where in the disc of radius 1 they are.
_PATTERNS: dict[str, tuple[Color, Callable[[Array, Array], Mask]]] = {
    "striped": ((214, 36, 40), lambda p, q: np.floor(p * 2.5 + 0.5) % 2 == 0),
    "spotted": (
        (36, 62, 190),
        lambda p, q: np.hypot((p * 1.5) % 1 - 0.5, (q * 1.5) % 1 - 0.5) < 0.36,
    ),
    "ringed": ((16, 120, 48), lambda p, q: np.floor(np.hypot(p, q) * 4) % 2 == 1),
    "checked": (
        (208, 40, 164),
        lambda p, q: (np.floor(p * 2 + 0.5) + np.floor(q * 2 + 0.5)) % 2 == 0,
    ),
}

# In units of the body's half length, u to the head and v up. Ellipses: shear, center, radii.
_BODY_PARTS = (
    (0.0, 0.0, 0.0, 1.0, 0.55),
    (0.45, -1.18, -0.34, 0.42, 0.17),  # tail
    (0.0, -0.5, -0.5, 0.17, 0.26),
    (0.0, 0.4, -0.5, 0.17, 0.26),
)
_HEAD = (0.78, 0.2, 0.56)  # u, v and radius
_EXTENT = 1.8  # half lengths around the center that hold the whole creature


def make_toy(
    out: Path | str, *, train: int = 240, val: int = 40, size: int = 128, seed: int = 0
) -> Path:
    """Write the toy data set as images/, masks/, labels.csv and classes.txt; return the folder.

    ``train`` + ``val`` images of ``size`` x ``size`` pixels, most with one to three creatures of
    different classes, a few with none. The same arguments give the same bytes (for one version of
    NumPy and Pillow). A folder that already holds just this data set is left as it is, one that
    was begun is completed; one with anything else in it raises UserError.
    """
    folder = Path(out)
    settings = {"train": train, "val": val, "size": size, "seed": seed}
    if min(train + val, size) < 1 or size < 32:
        raise UserError(f"the toy data set needs images, of at least 32 pixels, not {settings}")
    marker = folder / SETTINGS_FILE
    table = folder / "labels.csv"
    made = _made_with(marker)
    if made == settings and table.is_file():
        return folder
    if made not in (None, settings):
        raise UserError(f"{folder}: holds a toy data set with other settings; delete it first")
    if not marker.exists() and folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds other files; give an empty folder for the toy data set")

    table.unlink(missing_ok=True)
    write_json(marker, settings)
    lines = ["image,labels,split"]
    for index in range(train + val):
        # A seed for each image: it does not depend on how many there are.
        image, mask = toy_image(size, np.random.default_rng([seed, index]))
        name = f"{index:04d}.png"
        with atomic_write(folder / "images" / name) as temporary:
            Image.fromarray(image).save(temporary, format="PNG")
        write_labels(folder / "masks" / name, mask, voc_palette())
        tags = ";".join(CLASSES[label - 1] for label in np.unique(mask).tolist() if label)
        lines.append(f"images/{name},{tags},{'train' if index < train else 'val'}")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    # Last, so that a folder with a table is a complete data set.
    with atomic_write(table) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def _made_with(marker: Path) -> dict[str, int] | None:
    """What the folder's data set was made with; None where that is missing or damaged."""
    try:
        settings: dict[str, int] = json.loads(marker.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return settings if isinstance(settings, dict) else None


def toy_image(
    size: int, generator: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """One image (size, size, 3) uint8 and its labels (size, size) uint8."""
    ground = _GROUNDS[generator.integers(len(_GROUNDS))]
    canvas = _ground(size, ground, generator)
    labels = np.zeros((size, size), dtype=np.uint8)
    heads = np.zeros((size, size), dtype=bool)
    count = int(generator.choice(4, p=_COUNT_SHARES))
    for label in generator.permutation(len(CLASSES))[:count] + 1:
        body = _body_color(int(label), np.mean(ground, axis=0), generator)
        for _ in range(40):
            creature = _Creature.random(size, generator)
            whole, head = creature.silhouette(size)
            # A creature may cover a little of another one, but no head: it would lose its class.
            hidden = (whole & (labels > 0)).sum()
            if hidden <= 0.06 * whole.sum() and not (whole & heads).any():
                creature.draw_on(canvas, int(label), body)
                labels[whole] = label
                heads |= head
                break
    noise = generator.normal(0.0, 4.0, (size, size, 1)) + generator.normal(0.0, 1.5, canvas.shape)
    light = generator.uniform(0.85, 1.1)
    return np.clip(np.rint(canvas * light + noise), 0, 255).astype(np.uint8), labels


def _ground(
    size: int, shades: tuple[tuple[int, int, int], ...], generator: np.random.Generator
) -> Array:
    """Textured ground (size, size, 3): noise of many scales, colored from dark to light."""
    height = np.zeros((size, size))
    for cells, strength in ((4, 0.5), (10, 0.6), (24, 0.9), (size // 3, 1.2), (size, 0.6)):
        stretch = int(generator.integers(1, 3))
        coarse = generator.normal(0.0, 1.0, (cells, max(cells // stretch, 2))).astype(np.float32)
        fine = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
        height += strength * np.asarray(fine, dtype=np.float64)
    level = np.clip(0.5 + height / 4.5, 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(shades))
    channels = [np.interp(level, stops, [shade[c] for shade in shades]) for c in range(3)]
    return np.stack(channels, axis=-1)


def _body_color(label: int, ground: Array, generator: np.random.Generator) -> Array:
    """A body color that is clearly not the ground's mean color, often the class's usual one."""
    colors = np.array(_BODIES, dtype=np.float64)
    clear = np.linalg.norm(colors - ground, axis=1) > _CLEAR_DISTANCE
    index = _USUAL_BODIES[label - 1]
    if not clear[index] or generator.random() > _USUAL_SHARE:
        index = int(generator.choice(np.flatnonzero(clear)))
    color: Array = colors[index] + generator.normal(0.0, 7.0, 3)
    return np.clip(color, 0, 255)


@dataclass(frozen=True)
class _Creature:
    """Where a creature stands: center and half length in pixels, tilt in radians, and facing."""

    x: float
    y: float
    length: float
    tilt: float
    facing: int

    @classmethod
    def random(cls, size: int, generator: np.random.Generator) -> "_Creature":
        length = generator.uniform(0.165, 0.235) * size
        x = generator.uniform(1.5 * length, size - 1.5 * length)
        y = generator.uniform(1.05 * length, size - 1.05 * length)
        tilt = generator.uniform(-0.35, 0.35)
        return cls(x, y, length, tilt, int(generator.choice([-1, 1])))

    def silhouette(self, size: int) -> tuple[Mask, Mask]:
        """Pixels (size, size) whose center is in the creature, and those in its head."""
        window, u, v = self._local(size, 1)
        whole, head = np.zeros((2, size, size), dtype=bool)
        head_edge = _head_edge(u, v)
        whole[window] = np.minimum(_body_edge(u, v), head_edge) < 1.0
        head[window] = head_edge < 1.0
        return whole, head

    def draw_on(self, canvas: Array, label: int, body: Array) -> None:
        """Paint the creature, antialiased, on a canvas (size, size, 3) in place."""
        window, u, v = self._local(len(canvas), _OVERSAMPLING)
        body_edge, head_edge = _body_edge(u, v), _head_edge(u, v)
        inside = np.minimum(body_edge, head_edge) < 1.0
        # Per cell the weight of the creature, then its colors times that weight.
        layers = np.zeros((*inside.shape, 4))
        layers[inside, 0] = 1.0
        layers[inside, 1:] = _paint(
            u[inside], v[inside], body_edge[inside], head_edge[inside], self.length, label, body
        )
        n = _OVERSAMPLING
        mean: Array = np.zeros((len(layers) // n, layers.shape[1] // n, 4))
        for i, j in np.ndindex(n, n):
            mean += layers[i::n, j::n] / n**2
        canvas[window] = canvas[window] * (1.0 - mean[..., :1]) + mean[..., 1:]

    def _local(self, size: int, cells: int) -> tuple[tuple[slice, slice], Array, Array]:
        """The window of pixels around, and u, v at the centers of its cells x cells parts."""
        reach = int(np.ceil(_EXTENT * self.length))
        columns = slice(max(int(self.x) - reach, 0), min(int(self.x) + reach, size))
        rows = slice(max(int(self.y) - reach, 0), min(int(self.y) + reach, size))
        x = (_centers(columns, cells) - self.x) / self.length * self.facing
        y = (self.y - _centers(rows, cells)[:, None]) / self.length
        u = np.cos(self.tilt) * x + np.sin(self.tilt) * y
        v = np.cos(self.tilt) * y - np.sin(self.tilt) * x
        return (rows, columns), u, v


def _paint(
    u: Array, v: Array, body_edge: Array, head_edge: Array, length: float, label: int, body: Array
) -> Array:
    """Colors (N, 3) at N points of a creature, given in its local coordinates u, v.

    ``body_edge`` and ``head_edge`` are the squared distances that are 1 on the outline.
    """
    colors = body * (1.0 + 0.12 * np.clip(v, -1.0, 1.0))[:, None]
    # The outline is about 2 pixels wide, and 1.5 around the head, whatever the creature's size.
    rim = 1.0 - 2.0 / length
    colors[body_edge > rim**2] *= 0.7
    head = head_edge < 1.0
    u0, v0, radius = _HEAD
    p, q = (u[head] - u0) / radius, (v[head] - v0) / radius
    color, is_mark = _PATTERNS[CLASSES[label - 1]]
    plain = body * (1.0 + 0.12 * np.clip(v[head], -1.0, 1.0))[:, None]
    face = np.where(is_mark(p, q)[:, None], np.array(color, float), plain)
    outline = head_edge[head] > (1.0 - 1.5 / (length * radius)) ** 2
    face[outline & (body_edge[head] > 1.0)] *= 0.7
    # The eye and its pupil.
    face[(p - 0.35) ** 2 + (q - 0.3) ** 2 < 0.27**2] = 250.0
    face[(p - 0.42) ** 2 + (q - 0.3) ** 2 < 0.14**2] = 20.0
    colors[head] = face
    return colors


def _body_edge(u: Array, v: Array) -> Array:
    """Squared distance, in units of the radius, to the nearest part of the body: 1 on its edge."""
    nearest = np.full(u.shape, np.inf)
    for shear, u0, v0, a, b in _BODY_PARTS:
        np.minimum(nearest, ((u - u0) / a) ** 2 + ((v + shear * u - v0) / b) ** 2, out=nearest)
    return nearest


def _head_edge(u: Array, v: Array) -> Array:
    """Squared distance from the head's center in units of its radius: 1 on its edge."""
    u0, v0, radius = _HEAD
    edge: Array = ((u - u0) ** 2 + (v - v0) ** 2) / radius**2
    return edge


def _centers(pixels: slice, cells: int) -> Array:
    """Coordinates of the centers of the cells, ``cells`` a pixel."""
    count = (pixels.stop - pixels.start) * cells
    centers: Array = pixels.start + (np.arange(count) + 0.5) / cells
    return centers
