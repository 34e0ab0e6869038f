"""Tables and a roofline plot of measured rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log, log10

from nnlite.bench.machine import Machine
from nnlite.bench.row import Row

WIDTH, HEIGHT, MARGIN = 860, 520, 70


def geometric_mean(values: Iterable[float]) -> float:
    """(Π v)^(1/n)."""
    listed = list(values)
    return exp(sum(map(log, listed)) / len(listed))


def machine_line(machine: Machine) -> str:
    """The machine in one line."""
    flops = "" if machine.flops is None else f", FMA ceiling {machine.flops / 1e9:.0f} GFLOP/s"
    bandwidth = f", memory {machine.bytes / 1e9:.1f} GB/s"
    return f"{machine.processor}, {machine.isa}, {machine.threads} threads{flops}{bandwidth}"


def table_rows(rows: Sequence[Row]) -> list[list[str]]:
    """Header and cells: case, kernel, variant, milliseconds, rates, ratios."""
    sides = list(dict.fromkeys(side for row in rows for side in row.ratios))
    header = ["case", "what", "by", "ms", "GFLOP/s", "GB/s", "roofline", *[f"{side} / own" for side in sides]]
    cells = [header]
    for row in rows:
        own = next(iter(row.seconds.values()))
        cells.append([
            row.name, row.what, row.variant, f"{own * 1000:.3f}", f"{row.gflops:.0f}",
            "" if row.gbytes is None else f"{row.gbytes:.1f}",
            "" if row.roofline is None else f"{row.roofline:.0%}",
            *[f"{row.ratios[side]:.2f}" if side in row.ratios else "" for side in sides],
        ])  # fmt: skip
    return cells


def summary(rows: Sequence[Row]) -> list[list[str]]:
    """Geometric mean of every ratio, by group and kernel."""
    sides = list(dict.fromkeys(side for row in rows for side in row.ratios))
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.group, row.what), []).append(row)
    cells = [["group", "what", "cases", *[f"{side} / own, geometric mean" for side in sides]]]
    for (group, what), members in groups.items():
        means = []
        for side in sides:
            ratios = [row.ratios[side] for row in members if side in row.ratios]
            means.append(f"{geometric_mean(ratios):.2f}" if ratios else "")
        cells.append([group, what, str(len(members)), *means])
    return cells


def roofline_svg(rows: Sequence[Row], machine: Machine) -> str:
    """Rates over operations per byte, both logarithmic, under the machine's two ceilings."""
    points = [(row.gflops / row.gbytes, row.gflops, row) for row in rows if row.gbytes]
    if not points or machine.flops is None:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="40"><text x="10" y="25">' \
               "nothing to plot</text></svg>\n"  # fmt: skip
    peak, bandwidth = machine.flops / 1e9, machine.bytes / 1e9
    x_low, x_high = min(p[0] for p in points) / 2, max(max(p[0] for p in points), peak / bandwidth) * 2
    y_low, y_high = min(p[1] for p in points) / 2, max(max(p[1] for p in points), peak) * 1.6

    def at(x: float, y: float) -> tuple[float, float]:
        fx = (log10(x) - log10(x_low)) / (log10(x_high) - log10(x_low))
        fy = (log10(y) - log10(y_low)) / (log10(y_high) - log10(y_low))
        return MARGIN + fx * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - fy * (HEIGHT - 2 * MARGIN)

    ridge = peak / bandwidth
    start = max(x_low, y_low / bandwidth)
    corners = [at(start, start * bandwidth), at(ridge, peak), at(x_high, peak)]
    roof = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    colours = ("#2563eb", "#dc2626", "#16a34a", "#9333ea", "#d97706", "#0891b2", "#64748b", "#be185d")
    groups = list(dict.fromkeys(row.group for _, _, row in points))
    marks = []
    for x, y, row in points:
        px, py = at(x, y)
        colour = colours[groups.index(row.group) % len(colours)]
        title = f"{row.name}, {row.what}: {y:.0f} GFLOP/s, {x:.1f} FLOP/byte"
        marks.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4.5" fill="{colour}"><title>{title}</title></circle>'
        )
    legend = [
        f'<circle cx="{WIDTH - 150}" cy="{HEIGHT - 200 + 18 * i}" r="4.5" '
        f'fill="{colours[i % len(colours)]}"/>'
        f'<text x="{WIDTH - 140}" y="{HEIGHT - 196 + 18 * i}">{group}</text>'
        for i, group in enumerate(groups)
    ]
    ticks = []
    for value in (10.0**e for e in range(-3, 6)):
        if x_low < value < x_high:
            px, py = at(value, y_low)
            ticks.append(f'<text x="{px:.0f}" y="{py + 18:.0f}" text-anchor="middle">{value:g}</text>')
        if y_low < value < y_high:
            px, py = at(x_low, value)
            ticks.append(f'<text x="{px - 8:.0f}" y="{py + 4:.0f}" text-anchor="end">{value:g}</text>')
    box = f'x="{MARGIN}" y="{MARGIN}" width="{WIDTH - 2 * MARGIN}" height="{HEIGHT - 2 * MARGIN}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" '
        'font-size="12"><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{MARGIN}" y="30" font-size="15">{machine_line(machine)}</text>',
        f'<rect {box} fill="none" stroke="#ccc"/>',
        f'<polyline points="{roof}" fill="none" stroke="#111" stroke-width="1.5"/>',
        *marks, *legend, *ticks,
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 20}" text-anchor="middle">'
        "operations per byte (direct algorithm)</text>",
        f'<text x="20" y="{HEIGHT / 2}" transform="rotate(-90 20 {HEIGHT / 2})" '
        'text-anchor="middle">GFLOP/s</text>',
        "</svg>", "",
    ])  # fmt: skip
