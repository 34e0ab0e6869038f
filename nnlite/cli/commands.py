"""The verbs and their options. Each body imports what it needs, so that ``--help`` stays quick."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from nnlite import __version__
from nnlite.cli.imports import collected_later
from nnlite.cli.options import option_of, options_of, was_told
from nnlite.transfer.config import FinetuneConfig

if TYPE_CHECKING:
    from nnlite.graph.plan import Precision

JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines instead of a table.")
QUIET = click.option("--quiet", is_flag=True, help="No progress, no remarks: the result alone.")
TTA = click.option("--tta", is_flag=True, help="Average over views: whole and closer, as is and mirrored.")
# What several commands share with fine-tuning means the same in all of them.
PREPROCESSING, SIZE, WORKERS, ON_BAD_IMAGE, SEED, BATCH, DEVICE = (
    option_of(FinetuneConfig, name)
    for name in ("preprocessing", "size", "workers", "on_bad_image", "seed", "batch_size", "device")
)
VALIDATION, TASK, IMAGES, AUGMENT, FLIP = (
    option_of(FinetuneConfig, name) for name in ("validation", "task", "images", "augment", "flip")
)


def _show(content: Any, as_json: bool, table: Callable[[Any], str]) -> None:
    click.echo(json.dumps(content, indent=2) if as_json else table(content))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nnlite")  # also where nothing is installed
def nnlite() -> None:
    """Fine-tune, evaluate and inspect vision models in ONNX files."""


@nnlite.command()
@click.argument("model", metavar="MODEL", required=False)
@click.argument("data", metavar="DATA", required=False)
@click.option("--config", "config_file", metavar="FILE", help="Options from a TOML file; flags override it.")
@options_of(FinetuneConfig)
@click.option("--compare", "compared", is_flag=True, help="Every baseline and recipe beside it.")
@click.option("--seeds", type=int, default=1, show_default=True, help="How many --compare takes.")
@QUIET
@JSON
def finetune(
    as_json: bool, quiet: bool, config_file: str | None, compared: bool, seeds: int, **options: Any
) -> None:
    """Tune MODEL (an ONNX file) on DATA (a folder with one folder of pictures per class,
    a CSV, COCO or YOLO file, or an .npz of arrays).

    The head is trained on the frozen network, then the last stages with it; the result is compared
    with the majority class, a regression on the frozen features and a small network trained from
    scratch, all on the same held-out pictures.
    """
    with collected_later():
        from nnlite.cli.progress import Bars
        from nnlite.memory import frugal_malloc
        from nnlite.transfer import compare
        from nnlite.transfer import finetune as run
        from nnlite.transfer.config_file import make_config, read_options

    frugal_malloc()
    told = {name: value for name, value in options.items() if was_told(name)}
    config = make_config((read_options(config_file) if config_file else {}) | told, config_file or "")
    callbacks = [Bars(quiet=as_json or quiet)]
    if seeds != 1 and not compared:
        raise click.UsageError("--seeds is for --compare")
    result = compare(config, seeds, callbacks=callbacks) if compared else run(config, callbacks=callbacks)
    _show_run(result, as_json)


@nnlite.command()
@click.argument("run_dir", metavar="RUN")
@QUIET
@JSON
def resume(as_json: bool, quiet: bool, run_dir: str) -> None:
    """Go on with an interrupted fine-tuning, bit for bit; RUN is its folder."""
    from nnlite.cli.progress import Bars
    from nnlite.memory import frugal_malloc
    from nnlite.transfer import resume as run

    frugal_malloc()
    _show_run(run(run_dir, callbacks=[Bars(quiet=as_json or quiet)]), as_json)


@nnlite.command("lr-find")
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA")
@click.option("--low", type=float, default=1e-6, show_default=True, help="The rate to begin with.")
@click.option("--high", type=float, default=1.0, show_default=True, help="The rate to end with.")
@click.option("--steps", type=int, default=60, show_default=True, help="Steps in between.")
@click.option("--plot", metavar="FILE", help="Draw the curve as SVG.")
@options_of(
    FinetuneConfig, without=("out", "run_dir", "baselines", "checkpoint_minutes", "fold", "calibrate")
)
@QUIET
@JSON
def lr_find(
    as_json: bool, quiet: bool, low: float, high: float, steps: int, plot: str | None, **options: Any
) -> None:
    """How the loss of the recipe's last phase answers to the learning rate, and which one to take."""
    from pathlib import Path

    from nnlite.cli.console import range_table
    from nnlite.cli.progress import Bars
    from nnlite.files import write_atomically
    from nnlite.transfer.range_test import find_learning_rate, to_svg

    callbacks = [Bars(quiet=as_json or quiet)]
    result = find_learning_rate(
        FinetuneConfig(**options), low=low, high=high, steps=steps, callbacks=callbacks
    )
    if plot is not None:
        write_atomically(Path(plot), to_svg(result).encode())
    _show(result.to_dict(), as_json, range_table)


def _show_run(result: Any, as_json: bool) -> None:
    from nnlite.cli.console import compare_table, finetune_table

    def tables(content: dict[str, Any]) -> str:
        several = [compare_table(content)] if "compare" in content else []
        return "\n".join([finetune_table(result), *several])

    files = {"out": str(result.out), "run_dir": str(result.run_dir)}
    _show({**result.metrics, **files}, as_json, tables)


@nnlite.command()
@click.argument("model", metavar="MODEL")
@click.argument("data", metavar="DATA")
@PREPROCESSING
@SIZE
@VALIDATION
@TASK
@IMAGES
@SEED
@BATCH
@DEVICE
@WORKERS
@ON_BAD_IMAGE
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All pictures of DATA: for a folder that nothing was trained on.",
)
@TTA
@FLIP
@JSON
def eval(as_json: bool, model: str, data: str, **options: Any) -> None:
    """Metrics of MODEL on the held-out pictures of DATA: its val folder, else what the seed holds out."""
    from nnlite.cli.console import metrics_table
    from nnlite.cli.progress import Bars
    from nnlite.transfer import evaluate

    report = evaluate(model, data, progress=Bars(quiet=as_json).on_batches, **options)
    _show(report, as_json, metrics_table)


@nnlite.command()
@click.argument("model", metavar="MODEL")
@click.argument("pictures", nargs=-1, required=True, metavar="PICTURE...")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes per picture.")
@click.option("--csv", "csv_file", metavar="FILE", help="Write a line for each picture to a CSV file.")
@PREPROCESSING
@SIZE
@TTA
@FLIP
@BATCH
@DEVICE
@WORKERS
@ON_BAD_IMAGE
@JSON
def predict(
    as_json: bool, model: str, pictures: tuple[str, ...], top: int, csv_file: str | None,
    preprocessing: str | None, size: int | None, device: str, **options: Any,
) -> None:  # fmt: skip
    """The best classes of MODEL for each PICTURE, with probabilities.

    A folder means all pictures below it.
    """
    with collected_later():
        from nnlite.cli.console import prediction_lines
        from nnlite.cli.progress import Bars
        from nnlite.transfer import Classifier
        from nnlite.transfer import predict as run
        from nnlite.transfer.classifier import pictures_in, predictions_csv

    bars = Bars(quiet=as_json)
    classifier = Classifier.open(model, preprocessing=preprocessing, size=size, device=device)
    many = top if csv_file is None else max(top, len(classifier.classes or ()), 1)
    results = run(classifier, pictures_in(pictures), many, progress=bars.on_batches, **options)
    if csv_file is not None:
        from pathlib import Path

        from nnlite.files import write_atomically

        write_atomically(Path(csv_file), predictions_csv(classifier, results).encode())
        bars.on_message(f"{len(results)} pictures in {csv_file}")
        if not as_json:
            return
    _show(results, as_json, lambda rows: "\n".join(map(prediction_lines, rows)))


@nnlite.command()
@click.argument("model", metavar="MODEL")
@click.argument("picture", metavar="PICTURE")
@click.option(
    "--method",
    type=click.Choice(["gradcam", "ig", "occlusion"]),
    default="gradcam",
    show_default=True,
    help="Grad-CAM, integrated gradients, or covering part after part.",
)
@click.option(
    "--out", default="attribution.png", show_default=True, metavar="FILE", help="Where the map is drawn."
)
@click.option(
    "--class", "target", metavar="NAME", help="Name or number of the class.  [default: the model's answer]"
)
@click.option("--at", metavar="NAME", help="The feature map for Grad-CAM, where it is not found.")
@click.option("--baseline", default=0, show_default=True, metavar="GREY", help="Where ig starts: 0 is black.")
@click.option("--steps", default=64, show_default=True, help="Points of ig's integral.")
@click.option("--patch", type=int, metavar="PIXELS", help="Side of what is covered.  [default: a fifth]")
@click.option("--stride", type=int, metavar="PIXELS", help="Pixels between windows.  [default: half a patch]")
@PREPROCESSING
@SIZE
@JSON
def attribute(as_json: bool, **options: Any) -> None:
    """Draw over PICTURE which part of it speaks for the class that MODEL sees."""
    from nnlite.cli.attribute import attribution_lines, run

    _show(run(**options), as_json, attribution_lines)


@nnlite.command()
@click.argument("run", metavar="RUN")
@click.option("--out", metavar="FILE", help="Where to write it.  [default: report.html in RUN]")
@click.option("--pictures/--no-pictures", default=True, show_default=True, help="Show pictures with maps.")
@JSON
def report(as_json: bool, run: str, out: str | None, pictures: bool) -> None:
    """Write report.html of the run folder RUN again, from its metrics, history and configuration."""
    from nnlite.transfer.report import write_report

    path = write_report(run, pictures=pictures, out=out)
    _show({"report": str(path)}, as_json, lambda content: content["report"])


@nnlite.command("check-data")
@click.argument("data", metavar="DATA")
@click.option("--show", type=click.IntRange(1), metavar="N", help="Write N augmented pictures to --sheet.")
@click.option("--sheet", default="sheet.png", show_default=True, metavar="FILE", help="Where --show draws.")
@AUGMENT
@FLIP
@SIZE
@VALIDATION
@TASK
@IMAGES
@SEED
@WORKERS
@JSON
def check_data(
    as_json: bool, data: str, show: int | None, sheet: str, augment: str, flip: bool, size: int | None,
    validation: float, task: str, images: str | None, seed: int, workers: int,
) -> None:  # fmt: skip
    """Look for what is wrong with DATA: unreadable, misnamed and tiny pictures, duplicates, leakage.

    A picture that is trained on and validates, or stands in two classes, is an error, as is one that
    cannot be read; the exit status is then 1.
    """
    from nnlite.cli.console import data_table
    from nnlite.cli.progress import Bars
    from nnlite.data import check_data as run
    from nnlite.data import open_dataset

    folder = open_dataset(data, validation=validation, seed=seed, task=task, images=images)
    report = run(folder, workers=workers, progress=Bars(quiet=as_json).show_pictures)
    if show is not None:
        report["sheet"] = _contact_sheet(folder, show, sheet, size or 160, augment, flip, seed)
    _show(report, as_json, data_table)
    if report["errors"]:
        raise SystemExit(1)


def _contact_sheet(
    folder: Any, count: int, sheet: str, size: int, augment: str, flip: bool, seed: int
) -> str:
    from pathlib import Path

    from nnlite.data import Compose, Preprocessing, contact_sheet, save_picture

    training = Preprocessing.named("imagenet", size).training(augment, flip=flip)
    save_picture(Path(sheet), contact_sheet(folder, Compose(training.steps[:-1]), count, seed))
    return sheet


@nnlite.command()
@click.argument("model", metavar="MODEL")
@click.option("--plan", is_flag=True, help="The compiled steps instead: kernels, times, memory.")
@click.option("--batch", type=click.IntRange(1), help="Pictures that the plan is made for.  [default: 1]")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "int8"]),
    default="fp32",
    show_default=True,
    help="Numbers that the plan computes with.",
)
@SIZE
@JSON
def inspect(
    as_json: bool, model: str, plan: bool, batch: int | None, precision: Precision, size: int | None
) -> None:
    """What MODEL holds: operators, parameters, arithmetic, cut points, and what is not supported."""
    from nnlite.cli.console import inspect_table, plan_table
    from nnlite.onnx.inspect import inspect as run
    from nnlite.onnx.inspect import inspect_plan

    if plan:
        _show(inspect_plan(model, size=size, batch=batch, precision=precision), as_json, plan_table)
    else:
        _show(run(model, size=size), as_json, inspect_table)


@nnlite.command()
@click.argument("first", metavar="A.onnx")
@click.argument("second", metavar="B.onnx")
@JSON
def diff(as_json: bool, first: str, second: str) -> None:
    """What differs between two model files: tensors and by how much, nodes, inputs, outputs, metadata.

    The exit status is 0 when they say the same, 1 when they differ.
    """
    from nnlite.cli.diff import diff_table
    from nnlite.onnx.diff import diff as run

    report = run(first, second)
    _show(report, as_json, diff_table)
    if not report["same"]:
        raise SystemExit(1)


@nnlite.command()
@JSON
def backends(as_json: bool) -> None:
    """Which kernels can run here, with what instruction set and threads, and why others cannot."""
    from nnlite.cli.console import backends_table
    from nnlite.kernels import describe_backends

    report = describe_backends()
    _show(report, as_json, backends_table)


@nnlite.command()
@click.argument(
    "kind", default="kernels", type=click.Choice(["kernels", "training", "inference", "threads", "memory"])
)
@click.option("--against", metavar="PEERS", help="Other engines to measure beside: torch,onnxruntime.")
@click.option(
    "--backend", default="auto", show_default=True, metavar="NAMES", help="native,numba,reference or auto."
)
@click.option("--match", default="", metavar="TEXT", help="Only cases whose name or group holds TEXT.")
@click.option(
    "--repeats", type=click.IntRange(3), default=7, show_default=True, help="Measurements per side."
)
@click.option("--json", "json_file", metavar="FILE", help="Write all figures as JSON.")
@click.option("--plot", metavar="FILE", help="Write a roofline plot as SVG.")
def bench(
    kind: str,
    against: str | None,
    backend: str,
    match: str,
    repeats: int,
    json_file: str | None,
    plot: str | None,
) -> None:
    """Measure KIND (kernels, training steps or inference): rates, percent of the roofline, ratios.

    ``threads`` compares all threads with one; ``memory`` says how far training steps let a process grow.

    All sides alternate in this process with the same number of threads; medians. A ratio is the
    peer's time divided by ours, so above 1 nnlite is faster; for PyTorch the better of its two memory
    layouts counts.
    """
    from nnlite.cli.bench import run

    run(kind, _names(against), _names(backend), match, repeats, json_file, plot)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]
