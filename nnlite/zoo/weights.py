"""Loading pretrained weights into a model of the zoo: names, shapes, heads of another size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from nnlite import nn
from nnlite.errors import ModelError
from nnlite.layout import Array
from nnlite.nn.module import IGNORED
from nnlite.nn.parameter import State
from nnlite.saving import read_safetensors

Weights = str | Path | None
"""A .safetensors or .onnx file; None for random initial values."""
M = TypeVar("M", bound=nn.Module)
SHOWN = 8
"""How many names an error lists of each kind."""


def with_weights(
    model: M,
    weights: Weights,
    *,
    heads: Sequence[str] = (),
    rename: Callable[[str], str] | None = None,
    dropped: tuple[str, ...] = (),
    adapt: Callable[[M], object] | None = None,
) -> M:
    """``model``, with the weights of a file loaded unless that is None; see :func:`load_weights`.

    ``adapt`` is called with the model where names of the file had to be translated.
    """
    if weights is not None:
        translated = load_weights(model, weights, heads=heads, rename=rename, dropped=dropped)
        if translated and adapt is not None:
            adapt(model)
    return model


def load_weights(
    model: nn.Module,
    path: str | Path,
    *,
    heads: Sequence[str] = (),
    rename: Callable[[str], str] | None = None,
    dropped: tuple[str, ...] = (),
) -> list[str]:
    """Load a file's arrays into ``model`` by name: all of them, or none and a ModelError.

    ``heads``: layers that depend on the number of classes; where a file has another number, the layer
    keeps its random initial values and a UserWarning says so. ``rename``: the model's name for a name that
    it does not have. ``dropped``: beginnings of names that the file may have and this model leaves out.
    Returns the file's names that were translated. Raises ModelError that lists missing and unexpected names
    and wrong shapes.
    """
    own: dict[str, State] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    given: dict[str, Array] = {}
    translated: list[str] = []
    for name, array in read_weights(path).items():
        target = name if name in own or rename is None else rename(name)
        if target.split(".")[-1] == IGNORED or (target not in own and target.startswith(dropped)):
            continue
        if target in given:
            raise ModelError(f"{path}: {name} and another array both are {target} of {type(model).__name__}")
        # A fully connected layer may be stored as the convolution that computes the same.
        if target in own and array.ndim == 4 and own[target].shape == (array.shape[0], array[0].size):
            array = array.reshape(own[target].shape)
        given[target] = array
        if target != name:
            translated.append(name)
    kept = [head for head in heads if _other_classes(head, given, own)]
    for head in kept:
        classes, wanted = len(given[f"{head}.weight"]), own[f"{head}.weight"].shape[0]
        warnings.warn(
            f"{path}: {head} has {classes} classes there and {wanted} here; it keeps random initial values",
            UserWarning,
            stacklevel=4,
        )
        given.update({name: own[name].numpy() for name in (f"{head}.weight", f"{head}.bias")})
    if problems := _problems(given, own):
        listed = "\n  ".join(problems)
        raise ModelError(f"{path}: does not fit {type(model).__name__}:\n  {listed}")
    model.load_state_dict(given)
    return translated


def _other_classes(head: str, given: Mapping[str, Array], own: Mapping[str, State]) -> bool:
    """Whether weight and bias of ``head`` differ from the model's in the number of classes alone."""
    names = (f"{head}.weight", f"{head}.bias")
    if not all(name in given and name in own for name in names):
        return False
    weight, bias = (given[name] for name in names)
    same = weight.shape[1:] == own[names[0]].shape[1:] and bias.shape == weight.shape[:1]
    return bool(same and bias.shape != own[names[1]].shape)


def _problems(given: Mapping[str, Array], own: Mapping[str, State]) -> list[str]:
    shapes = [
        f"{name} is {list(given[name].shape)} in the file but {list(tensor.shape)} in the model"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    kinds = {
        "missing": [name for name in own if name not in given],
        "unexpected": [name for name in given if name not in own],
        "wrong shape": shapes,
    }
    return [f"{len(names)} {kind}: {_shortened(names)}" for kind, names in kinds.items() if names]


def _shortened(names: Iterable[str]) -> str:
    listed = list(names)
    more = f", and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def read_weights(path: str | Path) -> dict[str, Array]:
    """All arrays of a .safetensors file, or the initialisers of an .onnx file, by name.

    Of an ONNX file single numbers and integers are left out: those are constants of formulas. Raises
    ModelError when the file cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".safetensors":
        return read_safetensors(path)[0]
    if suffix != ".onnx":
        raise ModelError(f"{path}: weights come as .safetensors or .onnx; docs/zoo.md says how to convert")
    from nnlite.onnx.files import parse

    source = parse(path)
    arrays = {tensor.name: array for tensor, array in source.initializers(source.model.graph)}
    return {name: a for name, a in arrays.items() if np.issubdtype(a.dtype, np.floating) and a.ndim > 0}
