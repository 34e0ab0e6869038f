"""What a run ends in: the file, its metrics as read anew, the baselines beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnlite import metrics, onnx
from nnlite.transfer import baselines
from nnlite.transfer.classifier import Classifier
from nnlite.transfer.inference import run_over
from nnlite.transfer.job import Job
from nnlite.transfer.metadata import to_metadata
from nnlite.transfer.views import Views


def export(job: Job, path: Path) -> None:
    """Write the model as it is now, with preprocessing and classes."""
    preprocessing = job.chosen.preprocessing
    declared = job.module.origin.outline.graph.input
    name = job.module.inputs[0]
    sizes = next(onnx.declared_sizes(entry) for entry in declared if entry.name == name)
    changed = sizes[2:] not in ((None, None), preprocessing.size)
    onnx.save(
        job.module, path,
        metadata=to_metadata(preprocessing, job.folder.classes),
        input_sizes=[["N", 3, *preprocessing.size]] if changed else None, fold=job.config.fold,
    )  # fmt: skip


def evaluate_file(job: Job, path: Path) -> dict[str, Any]:
    """Metrics of the file that was written, read anew: what is reported is what was exported."""
    classifier = Classifier.open(path)
    loader = job.loader(job.folder.validation, False)
    scores, labels, indices = run_over(classifier.scores, loader, 0, "evaluate", job.callbacks.on_batches)
    report = metrics.report(labels, scores, job.folder.classes)
    report["model"], report["data"] = job.config.model, job.config.data
    report["train_pictures"] = len(job.folder.train)
    report["split"] = job.folder.split
    report["preprocessing"] = job.chosen.preprocessing.to_dict() | {"from": job.chosen.reason}
    names = [job.folder.validation[i].name for i in indices]
    report["predictions"] = [
        {"picture": name, "label": int(label), "predicted": int(s.argmax()), "probability": float(s.max())}
        for name, label, s in zip(names, labels, scores, strict=True)
    ]
    return report


def run_baselines(job: Job, features: Views) -> dict[str, Any]:
    """What a tuned network must beat, on the same split."""
    config, classes = job.config, len(job.folder.classes)
    train, held = features.train[0][:2], features.held[:2]
    job.say("baselines on the same split")
    result: dict[str, Any] = {"majority": baselines.majority(train[1], held[1])}
    result["probe"] = baselines.probe(*train, *held, classes)
    presentations = sum(record.pictures for record in job.history)
    result["scratch"] = baselines.from_scratch(
        job.folder, presentations, batch_size=config.batch_size, seed=config.seed, workers=config.workers,
        on_bad_image=config.on_bad_image, progress=job.callbacks.on_batches, on_epoch=job.record,
    )  # fmt: skip
    return result
