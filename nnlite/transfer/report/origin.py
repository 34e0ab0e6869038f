"""Where a result comes from and what it is good for: machine, time, hashes, settings, model card."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from nnlite.transfer.report.html import Child, Html, element, facts, section, table
from nnlite.transfer.report.record import RunRecord
from nnlite.transfer.report.sections import duration, percent, quality_of, size

TASKS = {
    "single": "one class per picture",
    "multi": "any number of labels per picture",
    "regression": "numbers from a picture",
}


def machine(run: RunRecord) -> Html:
    """Time and memory, where it ran, with what, and how to do it again."""
    m, known = run.metrics, run.environment
    versions = known.get("versions") or {}
    peak = known.get("peak_memory")
    hashes: list[tuple[str, Child]] = [
        (name, element("code", value)) for name, value in _hashes(run) if value
    ]
    settings = [[str(key), _setting(value)] for key, value in sorted(run.config.items())]
    return section(
        "Time, memory, origin",
        facts([
            ("Tuning", duration(m["seconds"]["tuning"])),
            ("All, with baselines and evaluation", duration(m["seconds"]["total"])),
            ("Time planned", _planned_time(run)),
            ("Peak memory", None if not peak else size(peak)),
            ("Memory planned", _planned_memory(m.get("memory"))),
            ("Processor", _words(known.get("processor"))),
            ("Threads", _words(known.get("threads"))),
            ("Kernels", _words(known.get("kernels"))),
            ("System", _words(known.get("system"))),
            ("Versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
            ("Seed", _words(run.config.get("seed"))),
        ]),
        element("h3", "SHA-256"),
        facts(hashes),
        element(
            "details",
            element("summary", "All settings"),
            table("config.json", ["setting", "value"], settings, name="settings"),
        ),
        name="machine",
    )  # fmt: skip


def _planned_time(run: RunRecord) -> str | None:
    """What the recipe was chosen by, where minutes were allowed."""
    reason = str((run.metrics.get("recipe") or {}).get("reason", ""))
    return None if run.config.get("budget") is None else reason.removeprefix("recipe: ")


def _planned_memory(plan: dict[str, Any] | None) -> str | None:
    """Prediction beside budget and measurement, where memory was limited."""
    if plan is None:
        return None
    text = f"{size(plan['predicted'])} predicted of {size(plan['budget'])} allowed, at the {plan['phase']}"
    if plan.get("measured"):
        text += f"; {size(plan['measured'])} measured, {plan['measured'] / plan['predicted']:.0%} of that"
    return "; ".join([text, *plan["choices"]])


def _words(value: Any) -> str | None:
    return None if value is None else str(value)


def _setting(value: Any) -> Child:
    if value is None:
        return "not set"
    text, home = str(value), str(Path.home())
    # Reports are passed on; the name of somebody's home need not be.
    return element("code", "~" + text[len(home) :] if text.startswith(home + "/") else text)


def _hashes(run: RunRecord) -> list[tuple[str, str | None]]:
    tuned = None
    if run.model.is_file():
        with run.model.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            tuned = digest.hexdigest()
    return [
        ("tuned.onnx", tuned),
        ("the network it began with", _words(run.inputs.get("model"))),
        ("all pictures with their names", _words(run.inputs.get("data"))),
    ]


def model_card(run: RunRecord) -> Html:
    """What somebody must know who is handed the file."""
    m = run.metrics
    names = run.names
    prepared = m["preprocessing"]
    h, w = prepared["size"]
    counted = m[run.kind] if run.task != "regression" else []
    weak = [entry for entry in counted if entry["support"] and entry["recall"] < 0.5]
    few = [entry for entry in counted if entry["support"] < 10]
    limits = [
        f"It answers with its {run.kind} whatever it is shown, also where none of them fits.",
        f"It was checked on {m['pictures']} pictures of the collection that it learned from. Another camera, "
        "place, season or kind of drawing may well be harder; check with pictures of your own: nnlite eval.",
    ]
    if weak:
        listed = ", ".join(f"{e['name']} ({percent(e['recall'])})" for e in weak[:10])
        limits.append(f"It misses more than half of: {listed}.")
    if few:
        limits.append(
            f"{len(few)} of {len(names)} classes have fewer than 10 held-out pictures, which say little."
        )
    limits.append(
        "It inherits rights and biases of the first network and of the pictures; nnlite knows neither."
    )
    measure = str((m.get("quality") or {}).get("name", "accuracy"))
    written = run.model.stat().st_size if run.model.is_file() else None
    return section(
        "Model card",
        facts([
            ("Task", f"{TASKS.get(run.task, run.task)}: {len(names)} {run.kind}"),
            ("File", f"tuned.onnx{'' if written is None else f', {written / 1e6:.1f} MB'}; ONNX"),
            ("Derived from", Path(str(m["model"])).name),
            ("Input", f"[N, {len(prepared['mean'])}, {h}, {w}] {prepared.get('channels', 'RGB')}; "
                      f"(pixel · {prepared['scale']:.6g} - mean) / std, mean {_listed(prepared['mean'])}, "
                      f"std {_listed(prepared['std'])}; stored in the file"),
            ("Quality", f"{measure} {quality_of(m):.3f} on {m['pictures']} held-out pictures"),
            (run.kind.capitalize(), ", ".join(names[:100])),
        ]),
        element("h3", "Limits"),
        element("ul", [element("li", text) for text in limits]),
        name="model-card",
    )  # fmt: skip


def _listed(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
