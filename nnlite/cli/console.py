"""What a person sees when something is done: tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnlite.transfer import FinetuneResult

MOST_LISTED = 10
"""Findings of one kind that are spelled out."""


SPLITS = {
    "all": "all that there are",
    "folders": "those of the validation folder",
    "file": "those that the file holds out; --all takes all",
    "seed": "those that the seed holds out; --all takes all",
}
"""Which pictures an evaluation looked at."""


def table(rows: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """Rows (the first is the header) in aligned columns; columns in ``right`` are right-aligned."""
    aligned = set(right)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for number, row in enumerate(rows):
        cells = [
            c.rjust(w) if i in aligned else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        if number == 0:
            lines.append("  ".join("─" * width for width in widths))
    return "\n".join(lines)


def prediction_lines(result: dict[str, Any]) -> str:
    """One picture and what a model says of it."""
    lines = [result["picture"]]
    if "error" in result:
        return f"{result['picture']}\n  skipped: {result['error']}"
    for entry in result.get("classes", ()):
        lines.append(f"  {entry['probability']:7.2%}  {entry['class']}")
    for entry in result.get("labels", ()):
        lines.append(f"  {entry['probability']:7.2%}  {'*' if entry['applies'] else ' '} {entry['label']}")
    for entry in result.get("numbers", ()):
        lines.append(f"  {entry['value']:12.6g}  {entry['name']}")
    return "\n".join(lines)


def finetune_table(result: FinetuneResult) -> str:
    """Quality beside the baselines, figures of each class, files."""
    report = result.metrics
    count, quality = report["pictures"], report["quality"]

    def said(value: float) -> str:
        return f"{value:6.1%}" if quality["name"] == "accuracy" else f"{value:6.3f}"

    rows = [["on the same held-out pictures", quality["name"], "seconds"]]
    rows.append(["fine-tuned network", said(quality["value"]), f"{report['seconds']['tuning']:.1f}"])
    known = report.get("baselines", {})
    if known:
        probe, scratch, majority = known["probe"], known["scratch"], known["majority"]
        linear = "ridge" if report["task"] == "regression" else "logistic"
        rows.append(
            [f"{linear} regression on frozen features", said(probe["quality"]), f"{probe['seconds']:.1f}"]
        )
        trained = f"small CNN from scratch, {scratch['presentations']} presentations"
        rows.append([trained, said(scratch["quality"]), f"{scratch['seconds']:.1f}"])
        rows.append([majority["name"], said(majority["quality"]), ""])
    lines = ["", table(rows, right=(1, 2)), "", per_class_table(report), ""]
    if report["task"] == "single":
        lines.append(f"{count} held-out pictures: one picture is {1 / count:.1%} of accuracy.")
    if report["skipped"]:
        lines.append(
            f"{len(report['skipped'])} pictures could not be read and were skipped; see metrics.json."
        )
    lines.append(f"model    {result.out}")
    lines.append(f"run      {result.run_dir} (metrics.json, config.json, history.jsonl, tuned.onnx)")
    if (result.run_dir / "report.html").exists():
        lines.append(f"report   {result.run_dir / 'report.html'}")
    return "\n".join(lines)


def range_table(report: dict[str, Any]) -> str:
    """Some of the rates that were tested, and the one to take."""
    points = report["points"]
    rows = [["learning rate", "loss"]]
    rows += [[f"{rate:.1e}", f"{loss:.3f}"] for rate, loss in points[:: max(1, len(points) // 12)]]
    flag = "--head-learning-rate" if report["phase"] == "head" else "--learning-rate"
    said = f"the loss falls most steeply at {flag} {report['suggestion']:.1e}"
    return table(rows, right=(0, 1)) + f"\n\n{said}"


def compare_table(report: dict[str, Any]) -> str:
    """Baselines and recipes over the seeds, each with mean and spread."""
    compared = report["compare"]
    count = max(len(entry["values"]) for entry in compared.values())
    rows = [[f"{count} seeds, the same split", report["quality"]["name"], "spread"]]
    for name in ("majority", "scratch", "probe", "partial", "full"):
        rows.append([name, f"{compared[name]['mean']:.3f}", f"{compared[name]['spread']:.3f}"])
    return "\n" + table(rows, right=(1, 2))


def per_class_table(report: dict[str, Any]) -> str:
    """Figures of every class, label or number, and their averages."""
    if report["task"] == "regression":
        rows = [["number", "MAE", "RMSE", "R²"]]
        for entry in report["numbers"]:
            rows.append([entry["name"], *(f"{entry[key]:.4g}" for key in ("mae", "rmse", "r2"))])
        return table(rows, right=(1, 2, 3))
    multi = report["task"] == "multi"
    rows = [["label" if multi else "class", "precision", "recall", "F1", "pictures"]]
    for entry in report["labels" if multi else "classes"]:
        figures = [f"{entry[key]:.3f}" for key in ("precision", "recall", "f1")]
        rows.append([entry["name"], *figures, str(entry["support"])])
        if multi:
            rows[-1].append(f"{entry['average_precision']:.3f}")
    for name in ("macro", "micro") if multi else ("macro", "weighted"):
        figures = [f"{report[name][key]:.3f}" for key in ("precision", "recall", "f1")]
        rows.append([f"({name} average)", *figures, str(report["pictures"])])
        if multi:
            rows[-1].append(f"{report['mean_average_precision']:.3f}" if name == "macro" else "")
    if multi:
        rows[0].append("average precision")
    return table(rows, right=range(1, len(rows[0])))


def metrics_table(report: dict[str, Any]) -> str:
    """Overall and per-class figures of an evaluation."""
    if report["task"] == "single":
        k = report["top_k"]["k"]
        overall = (
            f"accuracy {report['accuracy']:.1%}, top-{k} {report['top_k']['accuracy']:.1%}, "
            f"log loss {report['log_loss']:.3f}"
        )
    elif report["task"] == "multi":
        overall = (
            f"mean average precision {report['mean_average_precision']:.3f}, "
            f"every label right {report['exact']:.1%}"
        )
    else:
        overall = f"MAE {report['mae']:.4g}, RMSE {report['rmse']:.4g}, R² {report['r2']:.3f}"
    head = f"{overall}, {report['pictures']} pictures ({SPLITS[report['split']]})"
    origin = f"preprocessing {report['preprocessing']['from']}"
    if report["tta"]:
        origin += "; scores averaged over views"
    skipped = [f"{len(report['skipped'])} pictures skipped"] if report["skipped"] else []
    return "\n".join([head, origin, *skipped, "", per_class_table(report)])


def inspect_table(report: dict[str, Any]) -> str:
    """A model file at a glance."""

    def sizes(entry: dict[str, Any]) -> str:
        listed = ", ".join("?" if s is None else str(s) for s in entry["shape"])
        return f"{entry['name']} {entry['type']} [{listed}]"

    producer = report["producer"] or "an unnamed producer"
    lines = [
        f"{report['file']}: ONNX operator set {report['opset']}, from {producer}",
        *(f"input   {sizes(entry)}" for entry in report["inputs"]),
        *(f"output  {sizes(entry)}" for entry in report["outputs"]),
    ]
    if report["classes"]:
        lines.append(f"classes {', '.join(report['classes'])}")
    if report["parameters"] is not None:
        lines.append(f"{report['parameters']:,} parameters, {report['buffers']:,} other constants")
    if report["macs"] is not None:
        lines.append(f"{report['macs']:,} multiply-accumulates for one input {report['at']}")
    counts = [["operator", "count"], *[[name, str(n)] for name, n in report["operators"].items()]]
    lines += ["", table(counts, right=(1,))]
    if report["cut_points"]:
        rows = [["cut point", "shape", "MACs before", "MACs after", "parameters after"]]
        for cut in report["cut_points"]:
            shape = "x".join(map(str, cut["shape"]))
            figures = [f"{cut[key]:,}" for key in ("macs_before", "macs_after", "parameters_after")]
            rows.append([cut["name"], shape, *figures])
        lines += ["", table(rows, right=(2, 3, 4))]
    if report["problems"]:
        lines += ["", f"{len(report['problems'])} nodes are not supported:"]
        lines += [f"  {p['op_type']} ({p['node']}): {p['reason']}" for p in report["problems"]]
    if report["note"]:
        lines += ["", report["note"]]
    return "\n".join(lines)


def data_table(report: dict[str, Any]) -> str:
    """What a folder of pictures holds and what is wrong with it."""
    if report["numbers"]:
        rows = [["number", "least", "mean", "most", "deviation"]]
        keys = ("least", "mean", "most", "deviation")
        rows += [[entry["name"], *(f"{entry[key]:.4g}" for key in keys)] for entry in report["numbers"]]
    else:
        rows = [["class", "train", "validation"]]
        rows += [[e["name"], str(e["train"]), str(e["validation"])] for e in report["classes"]]
    split = {"folders": "by its folders", "file": "by the file", "seed": "by the seed"}[report["split"]]
    lines = [
        f"{report['folder']}: {report['pictures']} pictures, split {split}",
        "",
        table(rows, right=range(1, len(rows[0]))),
        "",
    ]
    if report["sizes"]:
        sizes = (f"{name} {h} x {w}" for name, (h, w) in report["sizes"].items())
        lines.append(f"height x width  {', '.join(sizes)}")
    for name in ("formats", "modes"):
        listed = ", ".join(f"{kind} {count}" for kind, count in report[name].items())
        lines.append(f"{name:<14}  {listed}")
    lines.append(f"turned by EXIF  {report['turned']}")
    for level in ("errors", "warnings"):
        lines += ["", f"{len(report[level])} {level}"]
        for kind in dict.fromkeys(entry["kind"] for entry in report[level]):
            texts = [entry["text"] for entry in report[level] if entry["kind"] == kind]
            lines += [f"  {kind}: {text}" for text in texts[:MOST_LISTED]]
            if len(texts) > MOST_LISTED:
                lines.append(f"  {kind}: and {len(texts) - MOST_LISTED} more; --json lists them all")
    if "sheet" in report:
        lines += ["", f"augmented pictures in {report['sheet']}"]
    return "\n".join(lines)


def plan_table(report: dict[str, Any]) -> str:
    """The steps of a compiled model."""
    rows = [["step", "op", "kernel", "result", "KB", "ms", "GFLOP/s"]]
    for step in report["steps"]:
        shape = "x".join(map(str, step["shape"]))
        rate = "" if step["gflops"] is None else f"{step['gflops']:.0f}"
        kilobytes, milliseconds = f"{step['bytes'] / 1024:.0f}", f"{1e3 * step['seconds']:.3f}"
        rows.append([step["name"], step["op"], step["variant"], shape, kilobytes, milliseconds, rate])
    memory, total = report["memory"], sum(step["seconds"] for step in report["steps"])
    head = f"{report['nodes']} nodes, {len(report['steps'])} steps for inputs {report['at']}"
    megabytes = {key: f"{value / 2**20:.1f} MB" for key, value in memory.items()}
    return "\n".join(
        [
            f"{report['file']}: {head}",
            "", table(rows, right=(4, 5, 6)), "",
            f"{1e3 * total:.1f} ms, the least of several runs for each step",
            f"memory {megabytes['planned']} in one block, {megabytes['unplanned']} without planning, "
            f"{megabytes['peak']} at the worst moment; weights {megabytes['constants']}, "
            f"as kernels read them {megabytes['prepared']}",
            f"largest difference from the unfused network {report['largest_relative_difference']:.1e} of "
            "the largest output",
        ]
    )  # fmt: skip


def backends_table(report: dict[str, Any]) -> str:
    """Backends in order of preference."""
    rows = [["backend", "available", ""]]
    for entry in report["backends"]:
        rows.append([entry["name"], "no" if entry["reason"] else "yes", entry["reason"] or entry["detail"]])
    return table(rows) + f"\n\n{report['threads']} threads; requested backend: {report['requested']}"
