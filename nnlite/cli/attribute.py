"""``nnlite attribute``: a picture with the map over it, and one line about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnlite.data import save_picture
from nnlite.transfer.attributor import Attributor


def run(
    model: str, picture: str, out: str, preprocessing: str | None, size: int | None, **options: Any
) -> dict[str, Any]:
    """Write the overlay to ``out``; what was found as plain JSON types."""
    attributor = Attributor.open(model, preprocessing=preprocessing, size=size)
    found = attributor.attribute(picture, **options)
    save_picture(Path(out), found.overlay())
    return {
        "picture": picture,
        "method": found.method,
        "class": found.class_name,
        "score": found.score,
        "note": found.note,
        "out": out,
    }


def attribution_lines(report: dict[str, Any]) -> str:
    """The same for people."""
    said = f"{report['picture']}: {report['class']!r} {report['score']:.3f}"
    return "\n".join((said, f"  {report['note']}", f"  {report['out']}"))
