"""A model file that says which part of a picture its answer rests on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnlite.data import Compose, Preprocessing, decode
from nnlite.data.decode import decode_array
from nnlite.errors import ConfigError, DataError, ModelError
from nnlite.graph import GraphModule
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.onnx import load
from nnlite.ops import ArrayType
from nnlite.transfer import attribute as maps
from nnlite.transfer.metadata import choose_preprocessing, classes_of, task_of
from nnlite.transfer.overlay import colours_of, overlay, scaled
from nnlite.transfer.targets import targets_named

NOISE = 99.0
"""Percentile at which integrated gradients are cut for drawing: single pixels would darken the rest."""


@dataclass(frozen=True)
class Attribution:
    """A picture as the model saw it, what the model said, and a map of what that rests on."""

    method: str
    class_index: int
    class_name: str
    score: float
    """The class's probability; of a regression the number."""
    picture: Array
    """uint8 [H,W,3]: resized, cropped, not yet normalised; one channel three times, a fourth left out."""
    values: Array
    """float32 [H,W]: Grad-CAM at least 0; shares of the score; losses of probability."""
    note: str
    """What there is to say about the figure, in one line."""

    def overlay(self) -> Array:
        """The map drawn over the picture, uint8 [H,W,3]; in two colours where it has two signs."""
        if self.method == "gradcam":
            return overlay(self.picture, scaled(self.values))
        share = scaled(self.values, NOISE if self.method == "ig" else 100.0)
        return overlay(self.picture, share, signed=True)


@dataclass(frozen=True)
class Seen:
    """A picture that the model was shown, for more than one map of it."""

    picture: Array
    """uint8 [H,W,C], as :class:`Attribution` has it before grey and a fourth channel are dealt with."""
    x: Array
    """The same prepared, float32 [1,C,H,W]."""
    scores: Array
    """[1,classes]"""
    feature_map: Array | None
    """What Grad-CAM looks at by default, where there is such a map."""


class Attributor:
    """Explains the answers of one model, picture by picture.

    Raises ModelError where the model is no classifier of pictures.
    """

    def __init__(
        self, module: GraphModule, preprocessing: Preprocessing, classes: list[str] | None = None,
        task: str = "single",
    ) -> None:  # fmt: skip
        self.module = module
        self.preprocessing = preprocessing
        self.classes = classes
        self.task = task
        steps = preprocessing.evaluation().steps
        self._show, self._normalise = Compose(steps[:-1]), steps[-1]
        self._map: Value | None = None
        """The feature map that Grad-CAM looks at, where there is one; the plan gives it beside the scores."""
        with suppress(ModelError):
            self._map = maps.find_map(module, preprocessing.size)
        outputs = [maps.score_value(module), *([] if self._map is None else [self._map])]
        self._plan = module.part(module.graph.inputs, outputs).compile()

    @classmethod
    def open(
        cls, path: str | Path, *, preprocessing: str | None = None, size: int | None = None
    ) -> Attributor:
        """Read a model file; preprocessing and classes as :class:`~nnlite.transfer.Classifier` has them."""
        module = load(path)
        chosen = choose_preprocessing(module, path, name=preprocessing, size=size)
        return cls(module, chosen.preprocessing, classes_of(module), task_of(module))

    def settle(self) -> None:
        """Give back the memory of weights that are in the file as well, which must then stay as it is."""
        one = (self.preprocessing.planes, *self.preprocessing.size)
        self._plan.settle(*([ArrayType((n, *one), np.dtype(np.float32))] for n in (1, 2)))
        self.module.forget()

    def scores(self, images: Array) -> Array:
        """What the model says of prepared pictures [N,C,H,W]: probabilities, or numbers, [N,classes]."""
        return self._said(self._plan(images))

    def _said(self, raw: Array) -> Array:
        raw = raw.reshape(len(raw), -1)
        names = self.classes or [f"class {c}" for c in range(raw.shape[1])]
        return targets_named(self.task, names).scores(raw)

    def look(self, picture: str | Path | Array) -> Seen:
        """Show the model ``picture``: a path, or uint8 [H,W,C].

        It becomes one of the channels that the model takes, as :func:`nnlite.data.decode` has it.
        """
        planes = self.preprocessing.planes
        if isinstance(picture, np.ndarray):
            picture = decode_array(picture, planes)
        elif Path(picture).is_file():
            picture = decode(picture, channels=planes)
        else:
            what = "is a folder; give one picture" if Path(picture).is_dir() else "no such picture"
            raise DataError(f"{picture}: {what}")
        shown = self._show(picture)
        x = self._normalise(shown)[np.newaxis]
        raw, *maps_of_it = self._plan.run(x)
        return Seen(shown, x, self._said(raw), next(iter(maps_of_it), None))

    def attribute(
        self,
        picture: str | Path | Array | Seen,
        method: str = "gradcam",
        *,
        target: str | int | None = None,
        at: str | None = None,
        baseline: int = 0,
        steps: int = 64,
        patch: int | None = None,
        stride: int | None = None,
    ) -> Attribution:
        """Which part of ``picture`` (as :meth:`look` takes it, or what that gave) speaks for ``target``.

        ``target`` is a name or an index, by default the model's own answer. ``method``: ``gradcam``
        (``at`` a feature map's name), ``ig`` (from a picture of grey level ``baseline``, 0 black, in
        ``steps`` steps) or ``occlusion`` (windows of ``patch`` pixels every ``stride``, filled with the
        picture's mean colour). Raises ConfigError for a class or an option that does not exist.
        """
        if method not in maps.METHODS:
            raise ConfigError(f"method={method!r} must be one of {', '.join(maps.METHODS)}")
        seen = picture if isinstance(picture, Seen) else self.look(picture)
        x, p = seen.x, seen.scores[0]
        c = int(p.argmax()) if target is None else self._index(target, len(p))
        if method == "gradcam":
            value, known = self._map, seen.feature_map
            if value is None or at is not None:
                value, known = maps.find_map(self.module, self.preprocessing.size, at), None
            small = maps.grad_cam(self.module, x, [c], at=value, maps=known)
            values = maps.enlarge(small, x.shape[2:])[0]
            note = f"feature map {value.name!r}, {small.shape[1]} x {small.shape[2]}"
            if not small.any():
                note += ", where nothing speaks for this class"
        elif method == "ig":
            values, note = self._integrated(x, c, seen.picture.shape, baseline, steps)
        else:
            fill = self._normalise(_mean_colour(seen.picture))[:, 0, 0]
            options: dict[str, Any] = dict(patch=patch, stride=stride, fill=fill, whole=seen.scores)
            values = maps.occlusion(self.scores, x, [c], **options)[0]
            note = f"covering what is around a pixel costs up to {values.max():.3f} of the score"
        return Attribution(method, c, self._name(c), float(p[c]), colours_of(seen.picture), values, note)

    def _integrated(
        self, x: Array, c: int, shape: tuple[int, ...], grey: int, steps: int
    ) -> tuple[Array, str]:
        if not 0 <= grey <= 255:
            raise ConfigError(f"baseline={grey} must be a grey level, 0 (black) to 255 (white)")
        start = self._normalise(np.full(shape, grey, np.uint8))
        shares = maps.integrated_gradients(self.module, x, [c], baseline=start, steps=steps)[0]
        scores = self._plan(np.stack([x[0], start])).reshape(2, -1)[:, c]
        change, total = float(scores[0] - scores[1]), float(shares.sum(dtype=np.float64))
        note = f"shares sum to {total:.3f}; the score rose by {change:.3f} from the baseline ({steps} steps)"
        return shares.sum(axis=0), note

    def _index(self, target: str | int, count: int) -> int:
        names = self.classes or []
        if isinstance(target, str) and target in names:
            return names.index(target)
        if isinstance(target, int) or target.isdecimal():
            if int(target) < count:
                return int(target)
            raise ConfigError(f"class {target} is not in 0 .. {count - 1}")
        known = f"it knows {', '.join(names[:10])}" if names else "its classes have numbers only"
        raise ConfigError(f"the model has no class {target!r}; {known}")

    def _name(self, c: int) -> str:
        if self.classes is None:
            return f"class {c}"
        if c >= len(self.classes):
            raise ModelError(f"the model names {len(self.classes)} classes but has an output {c}")
        return self.classes[c]


def _mean_colour(picture: Array) -> Array:
    """One pixel [1,1,C] of the picture's mean colour: nothing that a covered part would add."""
    return np.asarray(np.rint(picture.mean(axis=(0, 1), keepdims=True)), np.uint8)
