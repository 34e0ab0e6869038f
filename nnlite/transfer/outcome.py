"""What a run ends in: the file, its metrics as read anew, the baselines beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnlite import onnx
from nnlite.layout import Array
from nnlite.transfer import baselines
from nnlite.transfer.classifier import Classifier
from nnlite.transfer.inference import run_over
from nnlite.transfer.job import Job
from nnlite.transfer.metadata import to_metadata
from nnlite.transfer.targets import as_exported
from nnlite.transfer.views import Views

SCRATCH_EPOCHS = 20
"""Of the network from scratch, where the tuned one had none."""


def export(job: Job, path: Path) -> None:
    """Write the model as it is now, with preprocessing and classes."""
    preprocessing = job.chosen.preprocessing
    declared = job.module.origin.outline.graph.input
    name = job.module.inputs[0]
    sizes = next(onnx.declared_sizes(entry) for entry in declared if entry.name == name)
    planes, size = preprocessing.planes, preprocessing.size
    changed = sizes[2:] not in ((None, None), size) or sizes[1] not in (None, planes)
    with as_exported(job.targets, job.module, job.head, job.temperature):
        onnx.save(
            job.module, path,
            metadata=to_metadata(preprocessing, job.folder.classes, job.folder.task),
            input_sizes=[["N", planes, *size]] if changed else None, fold=job.config.fold,
        )  # fmt: skip


def evaluate_file(job: Job, path: Path) -> dict[str, Any]:
    """Metrics of the file that was written, read anew: what is reported is what was exported."""
    classifier = Classifier.open(path, device=job.device)
    job.settle(classifier.run)
    loader = job.loader(job.folder.validation, False)
    scores, labels, indices = run_over(classifier.scores, loader, 0, "evaluate", job.callbacks.on_batches)
    report = job.targets.report(labels, scores)
    report["model"], report["data"] = job.config.model, job.config.data
    report["recipe"] = job.recipe.to_dict()
    report["train_pictures"] = len(job.folder.train)
    report["split"] = job.folder.split
    report["preprocessing"] = job.chosen.preprocessing.to_dict() | {"from": job.chosen.reason}
    report["predictions"] = [
        {"picture": job.folder.validation[i].name, **_predicted(job.folder.task, label, s)}
        for i, label, s in zip(indices, labels, scores, strict=True)
    ]
    return report


def _predicted(task: str, known: Any, scores: Array) -> dict[str, Any]:
    """One prediction beside the truth, as plain JSON types."""
    if task == "single":
        return {"label": int(known), "predicted": int(scores.argmax()), "probability": float(scores.max())}
    key = "values" if task == "regression" else "labels"
    return {key: [float(value) for value in known], "predicted": [float(value) for value in scores]}


def run_baselines(job: Job, features: Views) -> dict[str, Any]:
    """What a tuned network must beat, on the same split."""
    config = job.config
    train, held = features.plain[:2], features.held[:2]
    job.say("baselines on the same split")
    result: dict[str, Any] = {"majority": job.targets.baseline(train[1], held[1])}
    result["probe"] = baselines.probe(job.targets, *train, *held)
    if not job.holding.scratch:
        return result
    presentations = sum(record.pictures for record in job.history) or SCRATCH_EPOCHS * len(job.folder.train)
    result["scratch"] = baselines.from_scratch(
        job.folder, job.targets, presentations,
        batch_size=config.batch_size, seed=config.seed, workers=config.workers,
        on_bad_image=config.on_bad_image, progress=job.callbacks.on_batches, on_epoch=job.record,
    )  # fmt: skip
    return result
