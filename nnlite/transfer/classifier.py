"""Evaluating and predicting with a model file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnlite.data import Loader, Preprocessing, Sample, open_dataset
from nnlite.data.folder import EXTENSIONS
from nnlite.device import CPU, use
from nnlite.errors import DataError, ModelError
from nnlite.graph import Plan
from nnlite.layout import Array
from nnlite.onnx import load
from nnlite.transfer.inference import Progress, run_over, silent
from nnlite.transfer.metadata import choose_preprocessing, classes_of, task_of
from nnlite.transfer.targets import Targets, targets_named

RESHAPING = {"reshape", "flatten", "squeeze", "identity", "dropout"}
"""What may follow a softmax; before operator set 13 the softmax itself is read with a reshape behind."""


@dataclass(frozen=True)
class Classifier:
    """A model ready to be shown pictures: compiled, with its preprocessing and the names of its outputs."""

    path: str
    run: Plan
    preprocessing: Preprocessing
    preprocessing_reason: str
    classes: tuple[str, ...] | None
    """Of classes, labels or numbers."""
    probabilities: bool
    """True when the model itself ends in a softmax."""
    task: str = "single"

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        preprocessing: str | None = None,
        size: int | None = None,
        device: str = CPU,
    ) -> Classifier:
        """Read a model file, to be run on ``device`` (see ``Tensor.to``).

        Raises ModelError when it is no classifier of pictures, DeviceError where there is no such device.
        """
        where = use(device)  # before anything is read
        module = load(path)
        chosen = choose_preprocessing(module, path, name=preprocessing, size=size)
        names = classes_of(module)
        if len(module.graph.outputs) != 1:
            names_of_all = ", ".join(module.outputs)
            raise ModelError(
                f"{path}: has {len(module.outputs)} outputs ({names_of_all}), but a classifier has one"
            )
        last = module.graph.outputs[0].node
        while last is not None and last.op.name in RESHAPING and last.inputs[0] is not None:
            last = last.inputs[0].node
        ends_in_softmax = last is not None and last.op.name == "softmax"
        return cls(
            str(path), module.compile(device=where), chosen.preprocessing, chosen.reason,
            None if names is None else tuple(names), ends_in_softmax, task_of(module),
        )  # fmt: skip

    def scores(self, images: Array) -> Array:
        """Probabilities, or numbers, [N,K] of prepared pictures [N,C,H,W]."""
        outputs = self.run(images)
        if outputs.ndim != 2:
            raise ModelError(f"{self.path}: the output has shape {list(outputs.shape)}, not [N,classes]")
        return outputs.astype(np.float64) if self.probabilities else self.targets(outputs).scores(outputs)

    def targets(self, outputs: Array) -> Targets:
        """What the model gives, with names for the columns of ``outputs`` [N,K]."""
        count = outputs.shape[1]
        names = self.classes if self.classes and len(self.classes) == count else None
        return targets_named(self.task, names or [f"class {i}" for i in range(count)])


def run_views(
    classifier: Classifier,
    samples: Sequence[Sample],
    *,
    tta: bool = False,
    flip: bool = True,
    batch_size: int = 32,
    workers: int = 2,
    on_bad_image: Literal["fail", "skip"] = "fail",
    what: str = "evaluate",
    progress: Progress = silent,
) -> tuple[Array, Array, Array, Loader]:
    """Scores [M,K], labels and places of ``samples``, and the loader, which knows what was skipped.

    ``tta``: the mean of the scores of :meth:`nnlite.data.Preprocessing.test_time`.
    """
    preprocessing = classifier.preprocessing
    views = preprocessing.test_time(flip=flip) if tta else (preprocessing.evaluation(),)
    total: Array | None = None
    for view in views:
        loader = Loader(
            samples, view, batch_size, workers=workers, on_bad_image=on_bad_image,
            at_least=preprocessing.decode_hint(), cache_bytes=256 << 20 if tta else 0,
            channels=preprocessing.planes,
        )  # fmt: skip
        scores, labels, places = run_over(classifier.scores, loader, 0, what, progress)
        total = scores if total is None else total + scores
    assert total is not None
    return total / len(views), labels, places, loader


def evaluate(
    path: str | Path,
    data: str | Path,
    *,
    preprocessing: str | None = None,
    size: int | None = None,
    validation: float = 0.25,
    seed: int = 0,
    task: str = "auto",
    images: str | Path | None = None,
    batch_size: int = 32,
    workers: int = 2,
    on_bad_image: Literal["fail", "skip"] = "fail",
    everything: bool = False,
    tta: bool = False,
    flip: bool = True,
    device: str = CPU,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Metrics of a model on the held-out pictures of a data set, or on ``everything`` in it.

    The data's classes must be the model's, matched by name where the model has names. ``tta`` averages
    over several views of each picture. Raises ModelError or DataError that says what does not fit.
    """
    classifier = Classifier.open(path, preprocessing=preprocessing, size=size, device=device)
    data_set = open_dataset(data, validation=validation, seed=seed, task=task, images=images)
    if data_set.task != classifier.task:
        raise DataError(f"{data}: is a {data_set.task} task, but {path} was made for {classifier.task}")
    samples = (*data_set.train, *data_set.validation) if everything else data_set.validation
    scores, labels, _, loader = run_views(
        classifier, samples, tta=tta, flip=flip, batch_size=batch_size, workers=workers,
        on_bad_image=on_bad_image, progress=progress,
    )  # fmt: skip
    names = match_classes(classifier, data_set.classes, scores.shape[1])
    order = [names.index(name) for name in data_set.classes]
    if data_set.task == "single":
        known = np.asarray(order)[labels]
    else:
        known = np.zeros((len(labels), len(names)), labels.dtype)
        known[:, order] = labels
        if data_set.task == "regression" and len(order) < len(names):
            raise ModelError(f"{path}: predicts {', '.join(names)}, but {data} has not all of them")
    report = targets_named(data_set.task, names).report(known, scores)
    report["preprocessing"] = classifier.preprocessing.to_dict() | {"from": classifier.preprocessing_reason}
    report["split"] = "all" if everything else data_set.split
    report["tta"] = tta
    report["skipped"] = [{"path": str(s.path), "reason": s.reason} for s in loader.skipped]
    return report


def match_classes(classifier: Classifier, folder_classes: Sequence[str], outputs: int) -> list[str]:
    """The model's class names, each of the folder's among them; ModelError otherwise."""
    names = list(classifier.classes or ())
    if not names and len(folder_classes) == outputs:
        return list(folder_classes)  # by number: the folder's names in alphabetical order
    if not names:
        raise ModelError(
            f"{classifier.path}: has {outputs} classes without names, but the folder has "
            f"{len(folder_classes)}; evaluate a model that nnlite has tuned on these classes"
        )
    if len(names) != outputs:
        raise ModelError(f"{classifier.path}: names {len(names)} classes but has {outputs} outputs")
    if unknown := [name for name in folder_classes if name not in names]:
        raise ModelError(
            f"{classifier.path}: does not know the folder's classes {', '.join(unknown[:5])}; "
            f"it knows {', '.join(names[:10])}"
        )
    return names


def pictures_in(paths: Sequence[str | Path]) -> list[Path]:
    """The pictures at ``paths``: files as they are, folders with everything below them, sorted by name.

    Hidden files and links are passed over in folders. Raises DataError for a folder without pictures.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            below for below in path.rglob("*")
            if below.suffix.lower() in EXTENSIONS and below.is_file() and not below.is_symlink()
            and not any(part.startswith(".") for part in below.relative_to(path).parts)
        )  # fmt: skip
        if not inside:
            raise DataError(f"{path}: no pictures; known extensions are {' '.join(sorted(EXTENSIONS))}")
        found += inside
    return found


KEYS = {"single": "classes", "multi": "labels", "regression": "numbers"}
"""What the entries of a prediction are called."""


def predict(
    classifier: Classifier,
    pictures: Sequence[str | Path],
    top: int = 5,
    *,
    tta: bool = False,
    flip: bool = True,
    batch_size: int = 32,
    workers: int = 2,
    on_bad_image: Literal["fail", "skip"] = "fail",
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """For each picture its best classes or labels with probabilities, or its numbers.

    A picture that cannot be read raises DataError with its name, or with ``on_bad_image="skip"`` has an
    ``error`` instead.
    """
    samples = [Sample(Path(picture)) for picture in pictures]
    scores, _, places, loader = run_views(
        classifier, samples, tta=tta, flip=flip, batch_size=batch_size, workers=workers,
        on_bad_image=on_bad_image, what="predict", progress=progress,
    )  # fmt: skip
    targets = classifier.targets(scores)
    rows = {int(place): row for place, row in zip(places, scores, strict=True)}
    reasons = {skipped.path: skipped.reason for skipped in loader.skipped}
    return [
        {"picture": str(picture), KEYS[classifier.task]: targets.said(rows[place], top)}
        if place in rows
        else {"picture": str(picture), "error": reasons[Path(picture)]}
        for place, picture in enumerate(pictures)
    ]


def predictions_csv(classifier: Classifier, results: Sequence[dict[str, Any]]) -> str:
    """Predictions as text for a CSV file, which lists pictures as ``open_dataset`` reads them.

    Columns: path, label, probability; or path, labels (separated by ;) and the probability of each; or
    path and the numbers. What was skipped has empty cells.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    key = KEYS[classifier.task]
    first: list[dict[str, Any]] = next((result[key] for result in results if key in result), [])
    names = sorted(entry["label"] for entry in first) if key == "labels" else []
    names = [entry["name"] for entry in first] if key == "numbers" else names
    columns = {"classes": ["label", "probability"], "labels": ["labels", *names], "numbers": names}
    writer.writerow(["path", *columns[key]])
    for result in results:
        said = result.get(key)
        if said is None:
            row = [""] * len(columns[key])
        elif key == "classes":
            row = [said[0]["class"], f"{said[0]['probability']:.6f}"]
        elif key == "labels":
            chance = {entry["label"]: f"{entry['probability']:.6f}" for entry in said}
            row = [";".join(n for n in names if float(chance[n]) >= 0.5), *(chance[name] for name in names)]
        else:
            row = [f"{entry['value']:.9g}" for entry in said]
        writer.writerow([result["picture"], *row])
    return text.getvalue()
