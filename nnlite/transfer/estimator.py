"""Fine-tuning with scikit-learn's manners: fit, predict, score; scikit-learn itself is not needed."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nnlite import onnx
from nnlite.data import Loader, Sample
from nnlite.errors import ConfigError, DataError, DTypeError, ModelError, NnliteError, ShapeError
from nnlite.layout import Array
from nnlite.transfer.classifier import Classifier
from nnlite.transfer.config import FinetuneConfig
from nnlite.transfer.inference import run_over
from nnlite.transfer.metadata import metadata_of
from nnlite.transfer.run import finetune

ESTIMATOR_KEY = "nnlite.estimator"
OWN = ("model", "data", "images", "task", "out", "run_dir")
"""Options that follow from the arguments of ``fit``."""
DEFAULTS: dict[str, Any] = {"validation": 0.1, "baselines": False, "report": False}
"""Where these differ from a run on the command line: what is fitted is all that is wanted."""
BATCH = 16


class NotFittedError(NnliteError, ValueError, AttributeError):
    """Something was asked of an estimator that has learned nothing yet."""


class ImageClassifier:
    """A pretrained network that learns to tell pictures apart.

    model: an ONNX file. options: any of ``nnlite finetune``'s by its name (``epochs``, ``unfreeze``, ...),
    as :class:`~nnlite.transfer.FinetuneConfig` describes them; they are checked by :meth:`fit`.
    ``validation`` (0.1) of every class is held out of training and only reported.

    Every option is an attribute, too. Pictures X are uint8 [N,H,W,C] (C 1, 3 or 4) or [N,H,W], or a
    sequence of N paths; labels y are N numbers or texts. After fitting, ``classes_`` holds the labels in
    order, ``history_`` a record per epoch, ``metrics_`` the figures on what was held out and ``onnx_`` the
    tuned model's bytes.

    Works in scikit-learn's ``clone``, ``cross_val_score``, ``GridSearchCV`` and pipelines.
    """

    _estimator_type = "classifier"

    def __init__(self, model: str | os.PathLike[str], **options: Any) -> None:
        known = _options()
        if unknown := [name for name in options if name not in known]:
            raise ConfigError(f"ImageClassifier: no option {unknown[0]!r}; known are {', '.join(known)}")
        self.model = model
        self.__dict__.update({**known, **options})

    # ------------------------------------------------------------------------------- parameters

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """All options by name; ``deep`` changes nothing."""
        return {"model": self.model, **self._options()}

    def set_params(self, **params: Any) -> ImageClassifier:
        """Change options; ConfigError for an unknown one."""
        self.__dict__.update(ImageClassifier(**{**self.get_params(), **params}).__dict__)
        return self

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _options()}

    def _changed(self) -> dict[str, Any]:
        """Options that differ from their defaults."""
        return {name: value for name, value in self._options().items() if value != _options()[name]}

    def __repr__(self) -> str:
        changed = "".join(f", {name}={value!r}" for name, value in self._changed().items())
        return f"ImageClassifier({self.model!r}{changed})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of an estimator; it is loaded when it does."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(two_d_array=False, three_d_array=True),
        )

    def __sklearn_is_fitted__(self) -> bool:
        """Whether :meth:`fit` has been called."""
        return hasattr(self, "onnx_")

    # --------------------------------------------------------------------------------- learning

    def fit(self, X: Any, y: ArrayLike) -> ImageClassifier:
        """Tune the model on pictures X and labels y, from its file anew.

        Raises ShapeError, DTypeError or DataError for pictures or labels that cannot be used, ConfigError
        for an option out of range.
        """
        labels = np.asarray(y)
        samples = _samples(X)
        if labels.shape != (len(samples),):
            raise ShapeError(f"fit: y has shape {list(labels.shape)} but X holds {len(samples)} pictures")
        try:
            classes, places = np.unique(labels, return_inverse=True)
        except TypeError as error:
            raise DataError(f"fit: the labels in y cannot be put in order: {error}") from None
        names = [str(c) for c in classes.tolist()]
        if len(classes) < 2 or len(set(names)) < len(names):
            raise DataError(f"fit: y must hold at least two classes with different names, not {names}")
        with tempfile.TemporaryDirectory(prefix="nnlite-") as folder:
            data, options = _write(Path(folder), samples, places, names)
            out = Path(folder) / "tuned.onnx"
            given = {**self._options(), **options, "task": "single"}
            result = finetune(
                FinetuneConfig(
                    str(self.model), str(data), out=str(out), run_dir=str(Path(folder) / "run"), **given
                )
            )
            self.onnx_ = out.read_bytes()
        self.classes_ = classes
        self.history_, self.metrics_ = result.history, result.metrics
        self._ready: Classifier | None = None
        return self

    # ------------------------------------------------------------------------------- predicting

    def predict_proba(self, X: Any) -> Array:
        """Probabilities float64 [N,classes], in the order of ``classes_``."""
        classifier = self._classifier()
        assert classifier.classes is not None
        samples = _samples(X)
        transform = classifier.preprocessing.evaluation()
        loader = Loader(samples, transform, BATCH, workers=self._options()["workers"], cache_bytes=0)
        scores, _, _ = run_over(classifier.scores, loader, 0, "predict")
        return scores[:, [classifier.classes.index(str(c)) for c in self.classes_.tolist()]]

    def predict(self, X: Any) -> Array:
        """The most probable class of each picture, [N], as it stood in y."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])

    def score(self, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """The share of pictures that are predicted as y says, each counted ``sample_weight`` times."""
        right = self.predict(X) == np.asarray(y)
        return float(np.average(right, weights=None if sample_weight is None else np.asarray(sample_weight)))

    def _classifier(self) -> Classifier:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError("this ImageClassifier has learned nothing yet; call fit first")
        if self._ready is None:
            with tempfile.TemporaryDirectory(prefix="nnlite-") as folder:
                path = Path(folder) / "tuned.onnx"
                path.write_bytes(self.onnx_)
                self._ready = Classifier.open(path)
        return self._ready

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes: the model as bytes, compiled again where it is used."""
        return {name: value for name, value in self.__dict__.items() if name != "_ready"} | {"_ready": None}

    # ------------------------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tuned model as an ONNX file that ``nnlite`` and other engines read, and :meth:`load`."""
        self._classifier()
        known = {"model": str(self.model), "options": self._changed(), "classes": self.classes_.tolist()}
        try:
            text = json.dumps(known)
        except TypeError:
            raise ConfigError(f"save: classes of type {self.classes_.dtype} cannot be written") from None
        onnx.save(onnx.load(self.onnx_), Path(path), metadata={ESTIMATOR_KEY: text})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ImageClassifier:
        """Read what :meth:`save` wrote; ModelError when it is something else. ``history_`` is not kept."""
        text = metadata_of(onnx.load(Path(path))).get(ESTIMATOR_KEY)
        if text is None:
            raise ModelError(f"{path}: was not written by ImageClassifier.save; read it with Classifier.open")
        try:
            known = json.loads(text)
            result = cls(str(known["model"]), **known["options"])
            result.classes_ = np.array(known["classes"])
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise ModelError(f"{path}: its metadata {ESTIMATOR_KEY} is damaged: {error}") from None
        result.onnx_, result._ready = Path(path).read_bytes(), None
        names = result._classifier().classes or ()
        if result.classes_.ndim != 1 or sorted(map(str, result.classes_.tolist())) != sorted(names):
            raise ModelError(f"{path}: its metadata {ESTIMATOR_KEY} names other classes than the model")
        return result


def _options() -> dict[str, Any]:
    """Every option and its default here."""
    defaults = {field.name: field.default for field in fields(FinetuneConfig) if field.name not in OWN}
    return {**defaults, **DEFAULTS}


def _samples(X: Any) -> list[Sample]:
    """Pictures as the loader takes them."""
    if isinstance(X, np.ndarray) and X.dtype.kind not in "OUS":
        if X.ndim not in (3, 4) or X.size == 0:
            raise ShapeError(f"X has shape {list(X.shape)} but must be [N,H,W,C] or [N,H,W], not empty")
        if X.dtype != np.uint8:
            raise DTypeError(f"X is {X.dtype} but pictures are uint8, 0 .. 255")
        return [Sample(Path("X"), 0, row=row, pixels=pixels) for row, pixels in enumerate(X)]
    if isinstance(X, (str, os.PathLike)) or not isinstance(X, (Sequence, np.ndarray)) or not len(X):
        raise DTypeError("X must be pictures, uint8 [N,H,W,C], or a sequence of paths, not empty")
    try:
        return [Sample(Path(path).absolute(), 0) for path in X]
    except TypeError:
        raise DTypeError(f"X holds {type(X[0]).__name__}, but must hold paths or be one array") from None


def _write(
    folder: Path, samples: Sequence[Sample], places: Array, names: Sequence[str]
) -> tuple[Path, dict[str, Any]]:
    """The pictures as a data set that a run can open, and the options that go with it."""
    if samples[0].pixels is not None:
        data = folder / "data.npz"
        pixels = np.stack([sample.pixels for sample in samples if sample.pixels is not None])
        np.savez(data, x=pixels, y=places.astype(np.int64), classes=np.array(names))
        return data, {}
    root = os.path.commonpath([sample.path.parent for sample in samples])
    data = folder / "data.csv"
    with data.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows(
            [os.path.relpath(sample.path, root), names[place]]
            for sample, place in zip(samples, places, strict=True)
        )
    return data, {"images": root}
