"""The page: its parts in order, and the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnlite import __version__
from nnlite.errors import DataError
from nnlite.files import write_atomically
from nnlite.transfer.report import sections
from nnlite.transfer.report.html import Html, element, join, section
from nnlite.transfer.report.origin import machine, model_card
from nnlite.transfer.report.pictures import Gallery, least_confident, most_confident_mistakes
from nnlite.transfer.report.record import RunRecord
from nnlite.transfer.report.style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Whatever a class or a file is called, nothing is run and nothing is fetched."""


def write_report(
    run_dir: str | Path, *, pictures: bool = True, maps: bool = True, out: str | Path | None = None
) -> Path:
    """Write ``report.html`` of a finished run into its folder, or to ``out``; where it was written.

    ``pictures``: show the most confident mistakes and the least confident pictures; ``maps``: and what
    the network looked at, which takes memory. Raises DataError
    when a file of the run is missing or damaged, FileError when the page cannot be written.
    """
    record = RunRecord.read(run_dir)
    path = Path(out) if out is not None else record.path / "report.html"
    write_atomically(path, report_page(record, pictures=pictures, maps=maps).encode())
    return path


def report_page(run: RunRecord, *, pictures: bool = True, maps: bool = True) -> str:
    """The whole page. DataError where the run's files do not say what every run says."""
    try:
        return _page(run, pictures, maps)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise DataError(
            f"{run.path}: metrics.json, config.json or history.jsonl is damaged or of another version "
            f"({type(error).__name__}: {error})"
        ) from error


def _page(run: RunRecord, pictures: bool, maps: bool) -> str:
    name = Path(str(run.config.get("out", "tuned.onnx"))).name
    title = f"{name}, tuned on {Path(str(run.metrics['data'])).name}"
    parts = [
        sections.subject(run),
        sections.baselines(run),
        sections.curves(run),
        sections.per_class(run),
        sections.confusion(run),
        sections.calibration(run),
        _gallery(run, maps) if pictures and run.task == "single" else Html(""),
        machine(run),
        model_card(run),
    ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name_="color-scheme", content="light dark"),
        element("title", title),
        element("style", Html(STYLE)),
    )
    header = element(
        "header",
        element("p", "nnlite, fine-tuning report", class_="soft"),
        element("h1", title),
        element("div", sections.headline(run), class_="tiles"),
    )
    footer = element("footer", f"Written by nnlite {__version__}. This page loads nothing and runs nothing.")
    body = element("body", header, element("main", parts), footer)
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"


def _gallery(run: RunRecord, maps: bool) -> Html:
    rows: list[dict[str, Any]] = run.metrics["predictions"]
    mistakes = most_confident_mistakes(rows)
    unsure = least_confident(rows, mistakes)
    gallery = Gallery(run, maps)
    parts = []
    if gallery.attributor is None:
        parts.append(element("p", f"Without maps: {gallery.without_maps}.", class_="soft"))
    else:
        parts.append(
            element(
                "p",
                "Left: as the network sees it. Middle: Grad-CAM, warm where the last feature map spoke for "
                "the answer. Right: occlusion, red where covering made the answer less likely, blue where "
                "more. A map says where the network looked, not that it was right to.",
                class_="soft",
            )
        )
    for title, chosen in (("The most confident mistakes", mistakes), ("The least confident", unsure)):
        if chosen:
            parts += [element("h3", title), gallery.cards(chosen)]
    return section("Pictures to look at", join(parts), name="pictures")
