"""A setting's sensitivity curve as SVG: what each value is worth, with its standard error."""

from html import escape
from typing import Any

from affinitynet.tuning.choose import Curve

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 480, 260, 56, 16, 34, 44
STYLE = (
    "svg{background:#fff;font:12px system-ui,sans-serif;fill:#22282c}"
    ".line{fill:none;stroke:#226a70;stroke-width:2}.error{stroke:#226a70;opacity:.5}"
    ".dot{fill:#226a70}.now{fill:#fff;stroke:#8a4b08;stroke-width:3}.grid{stroke:#e3e1da}"
)


def draw_curve(curve: Curve, what: str) -> str:
    """Return an SVG of its own; the values stand at equal distances, the recipe's own is ringed."""
    low = min(mean - error for mean, error in zip(curve.means, curve.errors, strict=True))
    high = max(mean + error for mean, error in zip(curve.means, curve.errors, strict=True))
    # A curve as flat as noise should look flat.
    middle, span = (low + high) / 2, max(high - low, 0.02)
    low, high = middle - span / 2, middle + span / 2

    def x(place: int) -> float:
        steps = max(1, len(curve.values) - 1)
        return LEFT + place * (WIDTH - LEFT - RIGHT) / steps

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def text(x: float, y: float, said: str, anchor: str) -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{said}</text>'

    shapes = []
    for tick in (low, middle, high):
        shapes.append(f'<path class="grid" d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}"/>')
        shapes.append(text(LEFT - 8, y(tick) + 4, f"{tick:.3f}", "end"))
    points = [(x(place), y(mean)) for place, mean in enumerate(curve.means)]
    shapes.append(f'<path class="line" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in points)}"/>')
    rows = zip(curve.values, curve.means, curve.errors, strict=True)
    for place, (value, mean, error) in enumerate(rows):
        a, kind = x(place), "now" if value == curve.now else "dot"
        ends = f"{y(mean - error):.1f}V{y(mean + error):.1f}"
        shapes.append(f'<path class="error" d="M{a:.1f} {ends}"/>')
        said = f"<title>{_say(value)}: {mean:.4f} (standard error {error:.4f})</title>"
        place_of = f'cx="{a:.1f}" cy="{y(mean):.1f}" r="5"'
        shapes.append(f'<circle class="{kind}" {place_of}>{said}</circle>')
        shapes.append(text(a, HEIGHT - BOTTOM + 20, _say(value), "middle"))
    title = f"walk.{curve.name}: {what}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}"><style>{STYLE}</style>'
        f'<text x="{LEFT}" y="20" font-weight="600">{escape(title)}</text>{"".join(shapes)}'
        f'<text x="{LEFT}" y="{HEIGHT - 8}">ringed: the recipe\'s own value</text></svg>\n'
    )


def _say(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
