"""``nnlite bench``: measure, show, write."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from nnlite.bench import bench, describe_machine
from nnlite.bench.report import machine_line, roofline_svg, summary, table_rows
from nnlite.bench.run import available_peers
from nnlite.cli.console import table
from nnlite.errors import ConfigError
from nnlite.files import write_atomically


def run(
    kind: str,
    against: Sequence[str],
    backends: Sequence[str],
    match: str,
    repeats: int,
    json_file: str | None,
    plot: str | None,
) -> None:
    """Measure the cases of ``kind`` and print a table; progress goes to the error stream."""
    if not backends:
        raise ConfigError("--backend: name at least one backend, or auto")

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    if kind == "memory":
        run_memory(against, match, json_file, say)
        return
    machine = describe_machine()
    click.echo(machine_line(machine))
    rows = []
    for row in bench(
        kind, machine, against=against, backends=backends, repeats=repeats, match=match, say=say
    ):
        rows.append(row)
        if sys.stderr.isatty():
            say(f"{row.name} {row.what}: {row.gflops:.0f} GFLOP/s")
    if not rows:
        raise ConfigError(f"--match {match!r}: no case of {kind} has this in its name")
    cells = table_rows(rows)
    click.echo("\n" + table(cells, right=range(3, len(cells[0]))))
    if any(row.ratios for row in rows):
        cells = summary(rows)
        click.echo("\n" + table(cells, right=range(2, len(cells[0]))))
    if json_file:
        content = {"machine": machine.to_dict(), "rows": [row.to_dict() for row in rows]}
        write_atomically(Path(json_file), (json.dumps(content, indent=2) + "\n").encode())
    if plot:
        write_atomically(Path(plot), roofline_svg(rows, machine).encode())


def run_memory(against: Sequence[str], match: str, json_file: str | None, say: Callable[[str], None]) -> None:
    """How far training steps let a process grow, as a table."""
    from nnlite.bench.footprint import measure_memory

    rows = list(measure_memory(available_peers(against, say), match))
    if not rows:
        raise ConfigError(f"--match {match!r}: no training case has this in its name")
    sides, peers = list(rows[0].growth), list(rows[0].ratios)
    cells = [["case", *[f"{side}, MB" for side in sides], *[f"{peer} / own" for peer in peers]]]
    for row in rows:
        megabytes = [f"{size / 1e6:.0f}" for size in row.growth.values()]
        cells.append([row.name, *megabytes, *[f"{ratio:.2f}" for ratio in row.ratios.values()]])
    click.echo(table(cells, right=range(1, len(cells[0]))))
    if json_file:
        content = {"rows": [row.to_dict() for row in rows]}
        write_atomically(Path(json_file), (json.dumps(content, indent=2) + "\n").encode())
