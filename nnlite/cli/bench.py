"""``nnlite bench``: measure, show, write."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from nnlite.bench import bench, describe_machine
from nnlite.bench.report import machine_line, roofline_svg, summary, table_rows
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
