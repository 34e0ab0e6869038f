"""Initial values of parameters, drawn from the sequence that ``nnlite.manual_seed`` starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from nnlite import random
from nnlite.errors import ConfigError
from nnlite.layout import Array
from nnlite.nn.parameter import State

Kind = TypeVar("Kind", bound=State)


def fan_in_uniform(shape: Sequence[int], fan_in: int) -> Array:
    """Uniform in ±1/√fan_in, float32: PyTorch's default for weights and biases.

    It is Kaiming's uniform initialisation with a = √5: √(6 / ((1 + a²) · fan_in)) = 1/√fan_in.
    Source: He et al. 2015, arXiv:1502.01852; torch.nn.Linear.reset_parameters.
    """
    bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
    return random.generator().uniform(-bound, bound, tuple(shape)).astype(np.float32)


# ------------------------------------------------------------------------------ in place, by name


def _fans(tensor: State) -> tuple[int, int]:
    """Inputs and outputs of one unit: weights are [out, in, *kernel]."""
    if tensor.ndim < 2:
        raise ConfigError(f"init: a tensor of shape {list(tensor.shape)} has no fan; it needs two axes")
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that makes up for what a nonlinearity takes from the variance; ConfigError if unknown."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    gains = {"linear": 1.0, "conv1d": 1.0, "conv2d": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "selu": 0.75}
    gains["relu"] = math.sqrt(2)
    if nonlinearity not in gains:
        raise ConfigError(f"calculate_gain: {nonlinearity!r} must be one of leaky_relu, {', '.join(gains)}")
    return gains[nonlinearity]


def uniform_(tensor: Kind, a: float = 0.0, b: float = 1.0) -> Kind:
    """Uniform in [a, b)."""
    tensor.assign(random.generator().uniform(a, b, tensor.shape))
    return tensor


def normal_(tensor: Kind, mean: float = 0.0, std: float = 1.0) -> Kind:
    """Normal with ``mean`` and standard deviation ``std``."""
    tensor.assign(random.generator().normal(mean, std, tensor.shape))
    return tensor


def trunc_normal_(tensor: Kind, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0) -> Kind:
    """Normal, drawn again where it falls outside [a, b]."""
    if not a < b or not std > 0:
        raise ConfigError(f"trunc_normal_: a={a} must lie below b={b}, and std={std} above 0")
    generator = random.generator()
    values = generator.normal(mean, std, tensor.shape)
    for _ in range(1000):
        outside = (values < a) | (values > b)
        if not outside.any():
            break
        values[outside] = generator.normal(mean, std, int(outside.sum()))
    tensor.assign(np.clip(values, a, b))
    return tensor


def constant_(tensor: Kind, val: float) -> Kind:
    """``val`` everywhere."""
    tensor.assign(np.full(tensor.shape, val))
    return tensor


def zeros_(tensor: Kind) -> Kind:
    """0 everywhere."""
    return constant_(tensor, 0.0)


def ones_(tensor: Kind) -> Kind:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def eye_(tensor: Kind) -> Kind:
    """The identity matrix."""
    if tensor.ndim != 2:
        raise ConfigError(f"eye_: a tensor of shape {list(tensor.shape)} is no matrix")
    tensor.assign(np.eye(tensor.shape[0], tensor.shape[1]))
    return tensor


def xavier_uniform_(tensor: Kind, gain: float = 1.0) -> Kind:
    """Uniform in ±gain · √(6 / (fan_in + fan_out)). Source: Glorot and Bengio 2010."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Kind, gain: float = 1.0) -> Kind:
    """Normal with standard deviation gain · √(2 / (fan_in + fan_out)). Source: Glorot and Bengio 2010."""
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))))


def _kaiming_std(tensor: State, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ConfigError(f"init: mode={mode!r} must be 'fan_in' or 'fan_out'")
    fan = _fans(tensor)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def kaiming_uniform_(
    tensor: Kind, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Kind:
    """Uniform in ±gain · √(3 / fan). Source: He et al. 2015, arXiv:1502.01852."""
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: Kind, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Kind:
    """Normal with standard deviation gain / √fan. Source: He et al. 2015, arXiv:1502.01852."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity))


def orthogonal_(tensor: Kind, gain: float = 1.0) -> Kind:
    """gain times a random matrix [shape[0], rest] with orthonormal rows or columns.

    Source: Saxe et al. 2014, arXiv:1312.6120.
    """
    if tensor.ndim < 2:
        raise ConfigError(f"orthogonal_: a tensor of shape {list(tensor.shape)} needs two axes")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    q, r = np.linalg.qr(random.generator().standard_normal((max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))  # or the distribution would not be uniform
    tensor.assign(gain * (q if rows >= columns else q.T).reshape(tensor.shape))
    return tensor
