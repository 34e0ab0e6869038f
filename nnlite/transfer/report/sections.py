"""The parts of the page, each made from what the run folder says; empty where it says nothing."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

from nnlite.metrics import reliability
from nnlite.transfer.report.html import Child, Html, element, facts, scrolling, section, table
from nnlite.transfer.report.record import RunRecord
from nnlite.transfer.report.svg import Line, line_chart, reliability_diagram

MOST_CLASSES = 40
"""A confusion matrix of more classes is a list of its largest cells."""
MOST_LISTED = 25
BINS = 15
"""As in metrics.json."""
OTHERS = ("scratch",)
"""Phases of the history that are not the tuned network's."""


def percent(value: float) -> str:
    """A share with one digit."""
    return f"{value:.1%}"


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Where the true share lies in 95 of 100 cases, of ``count`` pictures (Wilson 1927, score interval)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e6:.0f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


# --------------------------------------------------------------------------------------- at a glance


def headline(run: RunRecord) -> list[Html]:
    """The figures that everybody asks for first."""
    m = run.metrics
    tiles = []
    if run.task == "single":
        low, high = wilson(m["accuracy"], m["pictures"])
        tiles.append((percent(m["accuracy"]), "accuracy", f"{low:.0%} to {high:.0%} in 95 of 100 cases"))
    else:
        tiles.append((f"{m['quality']['value']:.3f}", str(m["quality"]["name"]), ""))
    if "macro" in m:
        tiles.append((f"{m['macro']['f1']:.3f}", "macro F1", "mean over classes"))
    if run.task == "single":
        tiles.append((percent(_reliability(m).ece), "calibration error", "expected, ECE"))
    tiles.append((str(m["pictures"]), "held-out pictures", f"one is {1 / m['pictures']:.1%} of all"))
    total = duration(m["seconds"]["total"])
    tiles.append((duration(m["seconds"]["tuning"]), "to tune", f"{total} with the rest"))
    if peak := run.environment.get("peak_memory"):
        tiles.append((size(peak), "memory", "at the worst moment"))
    return [
        element("div", element("b", value), element("span", name), element("span", more), class_="tile")
        for value, name, more in tiles
    ]


def subject(run: RunRecord) -> Html:
    """What was trained on what."""
    m, config = run.metrics, run.config
    names = run.names
    split = {"folders": "by its folders", "file": "by its file", "seed": f"by the seed {config.get('seed')}"}
    some = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
    prepared = m["preprocessing"]
    return section(
        "What was trained on what",
        facts([
            ("Network", Path(str(m["model"])).name),
            ("Pictures", str(m["data"])),
            (f"{len(names)} {run.kind}", some),
            ("Split", f"{m['train_pictures']} to train, {m['pictures']} held out, "
                      f"{split.get(str(m['split']), str(m['split']))}"),
            ("Trained", _trained(run)),
            ("Input", f"{prepared['size'][0]} x {prepared['size'][1]} pixels; preprocessing "
                      f"{prepared.get('from', '')}"),
            ("Left out", _left_out(m.get("skipped") or [])),
        ]),
        name="subject",
    )  # fmt: skip


def _trained(run: RunRecord) -> str:
    """Phases and their epochs, as the history has them."""
    counts: dict[str, int] = {}
    for row in run.history:
        if row["phase"] not in OTHERS:
            counts[str(row["phase"])] = counts.get(str(row["phase"]), 0) + 1
    listed = ", then ".join(f"{name} for {count} epochs" for name, count in counts.items())
    recipe = run.metrics.get("recipe") or {"unfreeze": run.config.get("unfreeze")}
    return f"{listed}; unfrozen: {recipe['unfreeze']}"


def _left_out(skipped: list[dict[str, Any]]) -> Child:
    if not skipped:
        return None
    listed = [element("li", f"{Path(str(s['path'])).name}: {s['reason']}") for s in skipped[:MOST_LISTED]]
    return element(
        "details",
        element("summary", f"{len(skipped)} pictures that could not be read"),
        element("ul", listed),
    )


# --------------------------------------------------------------------------------------- comparisons


def baselines(run: RunRecord) -> Html:
    """The network beside what it must beat, on the same pictures."""
    m, known = run.metrics, run.metrics.get("baselines") or {}
    if not known:
        return Html("")
    own = quality_of(m)
    rows = [("fine-tuned network", own, m["seconds"]["tuning"])]
    rows += [
        (_baseline_name(name, one, m), quality_of(one), one.get("seconds")) for name, one in known.items()
    ]
    best = max(quality for _, quality, _ in rows[1:])
    says = (
        "better than all of them" if own > best else
        "as good as the best of them" if own == best else "beaten by one of them"
    )  # fmt: skip
    if run.task == "single" and own != best:
        low, high = wilson(own, m["pictures"])
        says += ", but by less than so few pictures can tell apart" if low <= best <= high else ""
    measure = str((m.get("quality") or {}).get("name", "accuracy"))
    body = [
        element(
            "tr",
            element("th", name, scope="row"),
            element("td", _meter(quality), percent(quality) if run.task == "single" else f"{quality:.3f}"),
            element("td", "" if seconds is None else duration(seconds)),
            class_="own" if number == 0 else "others",
        )
        for number, (name, quality, seconds) in enumerate(rows)
    ]
    head = element("tr", [element("th", name, scope="col") for name in ("", measure, "time")])
    caption = element("caption", "On the same held-out pictures")
    inner = element("table", caption, element("thead", head), element("tbody", body), id="baselines-table")
    return section(
        "Beside the baselines",
        element("p", f"The network is {says}."),
        scrolling(inner, "Baselines"),
        name="baselines",
    )


def quality_of(figures: dict[str, Any]) -> float:
    """The one figure by which networks are compared; accuracy where nothing else is said."""
    value = figures.get("quality", figures.get("accuracy"))
    return float(value["value"] if isinstance(value, dict) else value)  # type: ignore[arg-type]


def _baseline_name(name: str, one: dict[str, Any], metrics: dict[str, Any]) -> str:
    if "name" in one:
        return str(one["name"])
    if name == "majority":
        return f"always “{metrics['classes'][one['class']]['name']}”"
    if name == "probe":
        return "logistic regression on frozen features"
    if name == "scratch":
        return f"small network from scratch, {one.get('presentations', '?')} presentations"
    return name


def _meter(share: float) -> Html:
    width = f"width:{100 * min(max(share, 0), 1):.1f}%"
    return element("span", element("i", style=width), class_="meter", aria_hidden="true")


# ------------------------------------------------------------------------------------------- curves


def curves(run: RunRecord) -> Html:
    """Loss and accuracy by epoch, of training and of held-out pictures."""
    rows = [row for row in run.history if row["phase"] not in OTHERS]
    if not rows:
        return Html("")
    starts = [
        (n + 0.5, str(row["phase"])) for n, row in enumerate(rows)
        if n == 0 or row["phase"] != rows[n - 1]["phase"]
    ]  # fmt: skip
    marks = [(max(x, 1.0), name) for x, name in starts]

    def lines(key: str) -> list[Line]:
        sides = [Line("training", "train", _points(rows, key))]
        if any(row.get(f"validation_{key}") is not None for row in rows):
            sides.append(Line("held out", "held", _points(rows, f"validation_{key}")))
        return sides

    loss = line_chart(lines("loss"), "Loss", "epoch", "loss", "loss-chart", marks=marks)
    accuracy = line_chart(lines("accuracy"), "Accuracy", "epoch", "accuracy", "accuracy-chart", marks=marks)
    header = ["epoch", "phase", "loss", "accuracy", "held-out loss", "held-out accuracy", "rate", "seconds"]
    numbers = [
        [
            str(n + 1), str(row["phase"]), _number(row["loss"]), _number(row["accuracy"]),
            _number(row.get("validation_loss")), _number(row.get("validation_accuracy")),
            f"{row['learning_rate']:.2g}", f"{row['seconds']:.2f}",
        ]
        for n, row in enumerate(rows)
    ]  # fmt: skip
    return section(
        "Learning curves",
        element(
            "p",
            "Training figures are taken while an epoch goes on, with augmentation and label smoothing; "
            "held-out ones after it, so that they may well be better. Nothing was chosen by them.",
            class_="soft",
        ),
        element("div", loss, accuracy, class_="charts"),
        element(
            "details",
            element("summary", "The same as numbers"),
            table("Every epoch", header, numbers, name="history"),
        ),
        name="curves",
    )


def _points(rows: list[dict[str, Any]], key: str) -> list[tuple[float, float | None]]:
    return [(n + 1.0, row.get(key)) for n, row in enumerate(rows)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


# ------------------------------------------------------------------------------------------- classes


def per_class(run: RunRecord) -> Html:
    """Precision, recall and F1 of every class, or what there is of labels and numbers."""
    m = run.metrics
    if run.task != "single":
        keys = [key for key in m[run.kind][0] if key != "name"]
        figures_of = [[str(e["name"]), *[f"{e[key]:.4g}" for key in keys]] for e in m[run.kind]]
        header = ["", *[key.replace("_", " ") for key in keys]]
        return section(
            "One by one", table("Held-out pictures", header, figures_of, name="classes"), name="per-class"
        )
    rows: list[list[Child]] = [
        [
            str(entry["name"]), f"{entry['precision']:.3f}", f"{entry['recall']:.3f}",
            [_meter(entry["f1"]), f"{entry['f1']:.3f}"], str(entry["support"]),
        ]
        for entry in m["classes"]
    ]  # fmt: skip
    for name in ("macro", "weighted"):
        figures: list[Child] = [f"{m[name][key]:.3f}" for key in ("precision", "recall", "f1")]
        rows.append([f"{name} average", *figures, str(m["pictures"])])
    return section(
        "Class by class",
        element(
            "p",
            "Precision: how much of what was called so is. Recall: how much of what is was called so. "
            "F1: their harmonic mean.",
            class_="soft",
        ),
        table("Held-out pictures", ["class", "precision", "recall", "F1", "pictures"], rows, name="classes"),
        name="per-class",
    )


def confusion(run: RunRecord) -> Html:
    """What was taken for what."""
    if run.task != "single":
        return Html("")
    names = run.names
    matrix: list[list[int]] = run.metrics["confusion"]
    if len(names) > MOST_CLASSES:
        return section("What was taken for what", _largest(names, matrix), name="confusion")
    head = element(
        "tr", element("th", "is \\ was called", scope="col"), [element("th", n, scope="col") for n in names]
    )
    body = []
    for i, (name, row) in enumerate(zip(names, matrix, strict=True)):
        cells = [_cell(names, i, j, count, sum(row)) for j, count in enumerate(row)]
        body.append(element("tr", element("th", name, scope="row"), cells))
    inner = element(
        "table",
        element("caption", "Row: what a picture shows. Column: what was said. Colour: share of the row."),
        element("thead", head), element("tbody", body),
        class_="matrix", id="confusion-matrix",
    )  # fmt: skip
    return section("What was taken for what", scrolling(inner, "Confusion matrix"), name="confusion")


def _cell(names: list[str], i: int, j: int, count: int, total: int) -> Html:
    share = count / total if total else 0.0
    classes = ["right"] if i == j else []
    classes += ["none"] if not count else ["full"] if share > 0.55 else []
    return element(
        "td", str(count), class_=" ".join(classes) or None, style=f"--a:{share:.2f}",
        title=f"{count} of {total} {names[i]} were called {names[j]}",
    )  # fmt: skip


def _largest(names: list[str], matrix: list[list[int]]) -> Html:
    cells = [
        (count, sum(row), names[i], names[j])
        for i, row in enumerate(matrix) for j, count in enumerate(row) if count and i != j
    ]  # fmt: skip
    cells.sort(key=lambda cell: -cell[0])
    rows = [
        [true, said, str(count), percent(count / total)] for count, total, true, said in cells[:MOST_LISTED]
    ]
    header = ["is", "was called", "pictures", "of that class"]
    return table(f"The most frequent of {len(cells)} confusions", header, rows, name="confusions")


# ------------------------------------------------------------------------------------------ confidence


def _reliability(metrics: dict[str, Any]) -> Any:
    rows = metrics["predictions"]
    return reliability(
        [row["probability"] for row in rows], [row["label"] == row["predicted"] for row in rows], BINS
    )


def _scaled(temperature: dict[str, Any] | None) -> str:
    if temperature is None:
        return ""
    return (
        f" The logits were divided by {temperature['value']:.2f}, which fits {temperature['pictures']} "
        "training pictures that were set aside, none of these."
    )


def calibration(run: RunRecord) -> Html:
    """Whether the network's confidence can be believed."""
    if run.task != "single":
        return Html("")
    found = _reliability(run.metrics)
    pictures = sum(one.count for one in found.bins)
    sure = sum(one.count * one.confidence for one in found.bins) / pictures
    right = sum(one.count * one.accuracy for one in found.bins) / pictures
    leans = "more sure than right" if sure > right else "more right than sure"
    header = ["confidence", "pictures", "mean confidence", "accuracy"]
    rows = [
        [f"{b.low:.1f} to {b.high:.1f}", str(b.count), percent(b.confidence), percent(b.accuracy)]
        for b in found.bins if b.count
    ]  # fmt: skip
    return section(
        "Can its confidence be believed?",
        element(
            "p",
            f"Expected calibration error {percent(found.ece)} over {BINS} bins (Guo et al. 2017). On average "
            f"the network is {percent(sure)} sure and {percent(right)} right: {leans}. A bar that ends on "
            "the dashed line is as right as it is sure; the paler it is, the fewer pictures speak."
            + _scaled(run.metrics.get("temperature")),
        ),
        reliability_diagram(found.bins),
        element(
            "details",
            element("summary", "The same as numbers"),
            table("Bins that hold pictures", header, rows, name="bins"),
        ),
        name="calibration",
    )
