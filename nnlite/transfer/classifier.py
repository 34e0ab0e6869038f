"""Evaluating and predicting with a model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnlite import metrics
from nnlite.data import Loader, Preprocessing, decode, open_dataset
from nnlite.errors import DataError, ModelError
from nnlite.graph import Plan
from nnlite.layout import Array
from nnlite.onnx import load
from nnlite.transfer.inference import Progress, run_over, silent, softmax
from nnlite.transfer.metadata import choose_preprocessing, classes_of

RESHAPING = {"reshape", "flatten", "squeeze", "identity", "dropout"}
"""What may follow a softmax; before operator set 13 the softmax itself is read with a reshape behind."""


@dataclass(frozen=True)
class Classifier:
    """A model ready to classify pictures: compiled, with its preprocessing and the names of its classes."""

    path: str
    run: Plan
    preprocessing: Preprocessing
    preprocessing_reason: str
    classes: tuple[str, ...] | None
    probabilities: bool
    """True when the model itself ends in a softmax."""

    @classmethod
    def open(
        cls, path: str | Path, *, preprocessing: str | None = None, size: int | None = None
    ) -> Classifier:
        """Read a model file; ModelError when it is no classifier of pictures."""
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
            str(path), module.compile(), chosen.preprocessing, chosen.reason,
            None if names is None else tuple(names), ends_in_softmax,
        )  # fmt: skip

    def scores(self, images: Array) -> Array:
        """Probabilities [N,classes] of prepared pictures [N,3,H,W]."""
        outputs = self.run(images)
        if outputs.ndim != 2:
            raise ModelError(f"{self.path}: the output has shape {list(outputs.shape)}, not [N,classes]")
        return outputs.astype(np.float64) if self.probabilities else softmax(outputs)

    def name(self, index: int) -> str:
        """The class's name, or its number where the model has no names."""
        return self.classes[index] if self.classes else f"class {index}"


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
    progress: Progress = silent,
) -> dict[str, Any]:
    """Metrics of a model on the held-out pictures of a data set, or on ``everything`` in it.

    The folder's classes must be the model's, matched by name where the model has names. Raises
    ModelError or DataError that says what does not fit.
    """
    classifier = Classifier.open(path, preprocessing=preprocessing, size=size)
    folder = open_dataset(data, validation=validation, seed=seed, task=task, images=images)
    samples = (*folder.train, *folder.validation) if everything else folder.validation
    loader = Loader(
        samples, classifier.preprocessing.evaluation(), batch_size,
        workers=workers, on_bad_image=on_bad_image,
    )  # fmt: skip
    scores, labels, _ = run_over(classifier.scores, loader, 0, "evaluate", progress)
    names = match_classes(classifier, folder.classes, scores.shape[1])
    order = [names.index(name) for name in folder.classes]
    report = metrics.report(np.asarray(order)[labels], scores, names)
    report["preprocessing"] = classifier.preprocessing.to_dict() | {"from": classifier.preprocessing_reason}
    report["split"] = "all" if everything else folder.split
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


def predict(classifier: Classifier, pictures: Sequence[str | Path], top: int = 5) -> list[dict[str, Any]]:
    """For each picture its best classes with probabilities; DataError names a bad picture."""
    result = []
    transform = classifier.preprocessing.evaluation()
    for picture in pictures:
        if not Path(picture).is_file():
            raise DataError(f"{picture}: no such picture")
        scores = classifier.scores(transform(decode(picture))[None])[0]
        best = np.argsort(-scores, kind="stable")[:top]
        ranked = [{"class": classifier.name(int(i)), "probability": float(scores[i])} for i in best]
        result.append({"picture": str(picture), "classes": ranked})
    return result
