"""Figures of the experiment as SVG: points and lines in panels, and heat maps."""

import html
import math
from typing import NamedTuple

COLORS = ("#0061c2", "#c2410c", "#15803d", "#9333ea", "#b45309", "#0e7490", "#be123c", "#4d7c0f", "#525252")
_MARGIN = {"left": 62, "right": 12, "top": 14, "bottom": 44}


class Mark(NamedTuple):
    """A point of a series, with the half width of its interval; 0: none is drawn."""

    x: float
    y: float
    half_width: float = 0.0
    label: str = ""


class Series(NamedTuple):
    name: str
    marks: list[Mark]
    has_line: bool = True
    is_filled: bool = True


class Axis(NamedTuple):
    title: str
    low: float
    high: float

    def ticks(self) -> list[float]:
        """Some five round values of the axis."""
        rough = (self.high - self.low) / 5
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [tick * step for tick in range(first, last + 1)]


def axis(title: str, values: list[float]) -> Axis:
    """From the least to the largest value, with a margin."""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.1
    return Axis(title, low - margin, high + margin)


def _text(x: float, y: float, words: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{html.escape(words)}</text>'


class Panel:
    """A rectangle with axes at (left, top) of the figure; draw() adds a series."""

    def __init__(self, left: float, top: float, width: float, height: float, x: Axis, y: Axis) -> None:
        self._x, self._y = x, y
        self._left, self._right = left + _MARGIN["left"], left + width - _MARGIN["right"]
        self._top, self._bottom = top + _MARGIN["top"], top + height - _MARGIN["bottom"]
        self.parts = [*self._x_ticks(), *self._y_ticks(), *self._titles(left)]

    def _at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self._x.low) / (self._x.high - self._x.low)
        up = (y - self._y.low) / (self._y.high - self._y.low)
        return self._left + across * (self._right - self._left), self._bottom - up * (self._bottom - self._top)

    def _x_ticks(self) -> list[str]:
        return [_text(self._at(tick, 0)[0], self._bottom + 15, f"{tick:g}"[:6], "middle") for tick in self._x.ticks()]

    def _y_ticks(self) -> list[str]:
        parts = []
        for tick in self._y.ticks():
            y = self._at(0, tick)[1]
            color = "#888" if abs(tick) < 1e-12 else "#e2e2e2"
            parts.append(f'<path d="M{self._left:.1f} {y:.1f}H{self._right:.1f}" stroke="{color}"/>')
            parts.append(_text(self._left - 5, y + 4, f"{round(tick, 10):g}", "end"))
        return parts

    def _titles(self, left: float) -> list[str]:
        x, y = left + 13, (self._top + self._bottom) / 2
        turned = f' transform="rotate(-90 {x:.1f} {y:.1f})"'
        return [_text((self._left + self._right) / 2, self._bottom + 34, self._x.title, "middle"),
                _text(x, y, self._y.title, "middle", turned)]  # fmt: skip

    def draw(self, series: Series, color: str) -> None:
        places = [self._at(mark.x, mark.y) for mark in series.marks]
        if series.has_line and len(places) > 1:
            line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            self.parts.append(f'<path d="M{line}" fill="none" stroke="{color}" stroke-opacity="0.6"/>')
        for mark, (x, y) in zip(series.marks, places, strict=True):
            if mark.half_width:
                low, high = (self._at(mark.x, mark.y + sign * mark.half_width)[1] for sign in (-1, 1))
                self.parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{color}" stroke-opacity="0.5"/>')
            fill = color if series.is_filled else "white"
            self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{color}"/>')
            if mark.label:
                self.parts.append(_text(x + 5, y - 4, mark.label, more=f' font-size="9" fill="{color}"'))


def _legend(names: list[tuple[str, bool]], left: float, top: float, columns: int, width: float) -> list[str]:
    parts = []
    for at, (name, is_filled) in enumerate(names):
        x, y = left + at % columns * width, top + at // columns * 16
        color = COLORS[at % len(COLORS)]
        fill = color if is_filled else "white"
        parts.append(f'<circle cx="{x:.1f}" cy="{y - 4:.1f}" r="3.5" fill="{fill}" stroke="{color}"/>')
        parts.append(_text(x + 9, y, name))
    return parts


def svg(width: int, height: int, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *parts, "</svg>", ""])


class Plot(NamedTuple):
    """One panel of a figure: what its axes say, and the series in the order of the figure's legend."""

    x_title: str
    y_title: str
    series: list[Series]


def panels(plots: list[Plot], width: int = 340, height: int = 340) -> str:
    """Panels side by side with one legend; each scales its own axes, and all have series of the same names."""
    names = [(series.name, series.is_filled) for series in plots[0].series]
    columns = max(1, len(plots) * width // 230)
    legend_height = 16 * -(-len(names) // columns) + 10
    parts = _legend(names, _MARGIN["left"], height + 10, columns, 230)
    for at, plot in enumerate(plots):
        marks = [mark for series in plot.series for mark in series.marks]
        ends = [mark.y + sign * mark.half_width for mark in marks for sign in (-1, 1)]
        panel = Panel(at * width, 0, width, height, axis(plot.x_title, [mark.x for mark in marks]),
                      axis(plot.y_title, [*ends, 0.0]))  # fmt: skip
        for place, series in enumerate(plot.series):
            panel.draw(series, COLORS[place % len(COLORS)])
        parts += panel.parts
    return svg(len(plots) * width, height + legend_height, parts)


def square_of(pairs: list[int]) -> list[list[int]]:
    """The symmetric matrix whose entries above the diagonal are `pairs`, row by row; its diagonal is 0."""
    size = (1 + math.isqrt(1 + 8 * len(pairs))) // 2
    matrix = [[0] * size for _ in range(size)]
    values = iter(pairs)
    for a in range(size):
        for b in range(a + 1, size):
            matrix[a][b] = matrix[b][a] = next(values)
    return matrix


def _squares(places: list[tuple[int, int]], cell: int, shade: int) -> str:
    path = "".join(f"M{x} {y}h{cell}v{cell}h-{cell}z" for x, y in places)
    return f'<path d="{path}" fill="#{shade:02x}{shade:02x}{shade:02x}"/>'


def heat_maps(maps: dict[str, list[int]], order: list[int], cell: int = 8) -> str:
    """For each name the share of an expert's collaboration (row) that another has (column), in 16 shades: white is none
    and black is a quarter or more. order: the experts as they are to be drawn.
    """
    side, gap, top = cell * len(order), 24, 24
    parts = []
    for at, (name, pairs) in enumerate(maps.items()):
        left = gap + at * (side + gap)
        parts.append(_text(left + side / 2, top - 8, name, "middle"))
        matrix = square_of(pairs)
        by_shade: dict[int, list[tuple[int, int]]] = {}
        for row, a in enumerate(order):
            total = sum(matrix[a]) or 1
            for column, b in enumerate(order):
                darkness = round(15 * min(1.0, 4 * matrix[a][b] / total))
                if darkness:
                    place = (left + column * cell, top + row * cell)
                    by_shade.setdefault(255 - 17 * darkness, []).append(place)
        parts += [_squares(places, cell, shade) for shade, places in sorted(by_shade.items())]
        parts.append(f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="#888"/>')
    return svg(gap + len(maps) * (side + gap), top + side + 12, parts)
