"""Gradients and parameters seen as one: clipping, and flattening to a vector and back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nnlite.errors import ConfigError, ShapeError, TrainingError
from nnlite.layout import Array
from nnlite.nn.parameter import Parameter
from nnlite.nn.reparametrise import spectral_norm, weight_norm
from nnlite.tensors import Tensor

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "parameters_to_vector",
    "spectral_norm",
    "vector_to_parameters",
    "weight_norm",
]


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    listed = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad for p in listed if p.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> float:
    """Shrink all gradients together until their norm, as one vector, is at most ``max_norm``.

    Returns the norm before. Raises TrainingError for an infinite or undefined norm if asked to.
    Source: Pascanu et al. 2013, arXiv:1211.5063; torch.nn.utils.clip_grad_norm_.
    """
    if not norm_type > 0:
        raise ConfigError(f"clip_grad_norm_: norm_type={norm_type} must be above 0")
    gradients = _gradients(parameters)
    norms = [float(np.linalg.norm(g.array.ravel(order="K"), norm_type)) for g in gradients]
    total = float(np.linalg.norm(norms, norm_type)) if norms else 0.0
    if error_if_nonfinite and not np.isfinite(total):
        raise TrainingError(f"clip_grad_norm_: the norm of the gradients is {total}; lower the learning rate")
    factor = max_norm / (total + 1e-6)
    if not factor >= 1:
        for gradient in gradients:
            array = gradient.writable()
            array *= array.dtype.type(factor)
    return total


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of every gradient to ±``clip_value``."""
    for gradient in _gradients(parameters):
        array = gradient.writable()
        np.clip(array, -clip_value, clip_value, out=array)


def parameters_to_vector(parameters: Iterable[Parameter]) -> Array:
    """All elements of all parameters, row-major, one after another."""
    return np.concatenate([p.array.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Array, parameters: Iterable[Parameter]) -> None:
    """The inverse of :func:`parameters_to_vector`; ShapeError when the sizes differ."""
    listed = list(parameters)
    total = sum(p.size for p in listed)
    if vec.shape != (total,):
        raise ShapeError(f"vector_to_parameters: {list(vec.shape)} must be [{total}], all elements")
    start = 0
    for parameter in listed:
        parameter.assign(vec[start : start + parameter.size].reshape(parameter.shape))
        start += parameter.size
