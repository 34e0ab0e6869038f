"""Charts as SVG within the page: they take their colours from it, light or dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from nnlite.metrics import ReliabilityBin
from nnlite.transfer.report.html import Html, element

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 28, 54


@dataclass(frozen=True)
class Line:
    """A named line of points (x, y); where y is None it has a gap."""

    name: str
    kind: str
    """Class of its colour in the style sheet."""
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Axes:
    """Numbers to places on the canvas."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where the point (x, y) is drawn."""
        (x0, x1), (y0, y1) = self.x, self.y
        across = (x - x0) / ((x1 - x0) or 1)
        up = (y - y0) / ((y1 - y0) or 1)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def frame(
        self, x_ticks: Iterable[float], y_ticks: Iterable[float], x_name: str, y_name: str = ""
    ) -> list[Html]:
        """Grid, numbers and names."""
        parts = []
        for value in y_ticks:
            px, py = self.at(self.x[0], value)
            parts.append(element("line", x1=px, y1=py, x2=WIDTH - RIGHT, y2=py, class_="grid"))
            parts.append(element("text", f"{value:g}", x=px - 7, y=py + 4, text_anchor="end"))
        for value in x_ticks:
            px, py = self.at(value, self.y[0])
            parts.append(element("line", x1=px, y1=py, x2=px, y2=py + 5, class_="axis"))
            parts.append(element("text", f"{value:g}", x=px, y=py + 21, text_anchor="middle"))
        (px, py), right = self.at(self.x[0], self.y[0]), WIDTH - RIGHT
        parts.append(element("line", x1=px, y1=py, x2=right, y2=py, class_="axis"))
        parts.append(element("text", x_name, x=right, y=HEIGHT - 6, text_anchor="end", class_="name"))
        if y_name:
            parts.append(element("text", y_name, x=LEFT, y=TOP - 10, class_="name"))
        return parts


def canvas(parts: Iterable[Html], title: str, description: str, name: str) -> Html:
    """An SVG that fills the column, with words for those who do not see it."""
    return element(
        "svg",
        element("title", title, id=f"{name}-name"),
        element("desc", description, id=f"{name}-says"),
        parts,
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", id=name,
        aria_labelledby=f"{name}-name {name}-says",
    )  # fmt: skip


def line_chart(
    lines: Sequence[Line],
    title: str,
    x_name: str,
    y_name: str,
    name: str,
    *,
    y_range: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> Html:
    """Lines over a common axis; ``marks`` are named places on x where something begins."""
    known = [(x, y) for line in lines for x, y in line.points if y is not None]
    if not known:
        return Html("")
    xs, ys = [x for x, _ in known], [y for _, y in known]
    y_ticks = ticks(*(y_range or (min(ys), max(ys))))
    axes = Axes((min(xs), max(max(xs), min(xs) + 1)), (y_ticks[0], y_ticks[-1]))
    parts = axes.frame(whole_ticks(*axes.x), y_ticks, x_name)
    for x, label in marks:
        px, _ = axes.at(x, axes.y[0])
        parts.append(element("line", x1=px, y1=TOP - 8, x2=px, y2=HEIGHT - BOTTOM, class_="mark"))
        parts.append(element("text", label, x=px + 5, y=TOP - 10, class_="name"))
    for line in lines:
        places = [(x, y, *axes.at(x, y)) for x, y in line.points if y is not None]
        points = " ".join(f"{px:.1f},{py:.1f}" for *_, px, py in places)
        parts.append(element("polyline", points=points, class_=f"line {line.kind}"))
        for x, y, px, py in places:
            title_of = element("title", f"{line.name}, {x_name} {x:g}: {y:.4g}")
            parts.append(element("circle", title_of, cx=px, cy=py, r=3, class_=f"dot {line.kind}"))
    last = [f"{line.name} ends at {end:.4g}" for line in lines if (end := _last(line)) is not None]
    legend = [
        element("li", element("span", class_=f"key {line.kind}", aria_hidden="true"), line.name)
        for line in lines
    ]
    chart = canvas(parts, title, f"{y_name} over {x_name}. {'; '.join(last)}.", name)
    return element("figure", element("figcaption", title), chart, element("ul", legend, class_="legend"))


def _last(line: Line) -> float | None:
    return next((y for _, y in reversed(line.points) if y is not None), None)


def reliability_diagram(bins: Sequence[ReliabilityBin], name: str = "reliability-chart") -> Html:
    """Accuracy of every bin of confidence as a bar beside the diagonal on which it should end."""
    axes = Axes((0, 1), (0, 1))
    steps = [0, 0.2, 0.4, 0.6, 0.8, 1]
    parts = axes.frame(steps, steps, "confidence", "accuracy")
    pictures = sum(one.count for one in bins)
    for one in bins:
        if not one.count:
            continue
        left, top = axes.at(one.low, one.accuracy)
        right, bottom = axes.at(one.high, 0)
        says = element(
            "title",
            f"confidence {one.low:.2f} to {one.high:.2f}: {one.count} of {pictures} pictures, "
            f"{one.accuracy:.1%} right, {one.confidence:.1%} sure",
        )
        strength = 0.25 + 0.75 * one.count / max(b.count for b in bins)
        box = dict(x=left + 1, width=right - left - 2, fill_opacity=strength)
        parts.append(element("rect", says, y=top, height=bottom - top, class_="bar", **box))
        px, py = axes.at(one.confidence, one.accuracy)
        parts.append(element("circle", cx=px, cy=py, r=3.5, class_="dot held"))
    (x0, y0), (x1, y1) = axes.at(0, 0), axes.at(1, 1)
    parts.append(element("line", x1=x0, y1=y0, x2=x1, y2=y1, class_="mark"))
    filled = [one for one in bins if one.count]
    words = "; ".join(
        f"{b.count} pictures {b.confidence:.0%} sure are {b.accuracy:.0%} right" for b in filled
    )
    return canvas(parts, "Reliability diagram", words, name)


# ---------------------------------------------------------------------------------------- ticks


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, about so many."""
    if high <= low:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = next(f * power for f in (1, 2, 2.5, 5, 10) if f * power >= rough * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


def whole_ticks(low: float, high: float) -> list[float]:
    """Whole numbers within ``low`` .. ``high``."""
    inside = [n for n in ticks(low, high, 6) if low <= n <= high and n == int(n)]
    return inside or [ceil(low)]
