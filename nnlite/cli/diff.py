"""``nnlite diff`` as text."""

from __future__ import annotations

from typing import Any

from nnlite.cli.console import table

PARTS = ("tensors", "nodes", "inputs", "outputs", "metadata")


def diff_table(report: dict[str, Any]) -> str:
    """Counts of every part, then what changed, line by line."""
    rows = [["", "same", "changed", "added", "removed"]]
    for part in PARTS:
        counts = report[part]
        sizes = [len(counts[key]) for key in ("changed", "added", "removed")]
        rows.append([part, str(counts["same"]), *map(str, sizes)])
    lines = [table(rows, right=range(1, 5))]
    if report["opset"]:
        lines.append(f"operator sets {report['opset']['was']} -> {report['opset']['is']}")
    for part in PARTS:
        lines += [f"  {part[:-1]} {entry['name']}: {_change(entry)}" for entry in report[part]["changed"]]
        for key in ("added", "removed"):
            lines += [f"  {part[:-1]} {name}: {key}" for name in report[part][key]]
    if report["same"]:
        lines.append("the models are the same")
    elif len(lines) == 1:
        lines.append("the models differ in functions or sparse tensors")
    return "\n".join(lines)


def _change(entry: dict[str, Any]) -> str:
    if "parts" in entry:
        return f"{entry['operator']}: {', '.join(entry['parts'])}"
    if entry.get("what") == "values":
        share = "" if entry["relative"] is None else f" ({entry['relative']:.2%} of the greatest element)"
        return f"{entry['elements']} of {entry['of']} elements, by up to {entry['greatest']:.4g}{share}"
    if "was" in entry:
        return f"{entry['was']} -> {entry['is']}"
    return str(entry["what"])
