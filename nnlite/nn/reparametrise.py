"""Weights that are computed from others before each forward: weight_norm and spectral_norm."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnlite import functional as F
from nnlite import random
from nnlite.errors import ConfigError
from nnlite.layout import Array
from nnlite.nn.convolution1d import ConvTranspose1d
from nnlite.nn.layers import ConvTranspose2d
from nnlite.nn.module import Module
from nnlite.nn.parameter import Buffer, Parameter
from nnlite.tensors import Tensor


def _take(op: str, module: Module, name: str) -> Parameter:
    weight = vars(module).get(name)
    if not isinstance(weight, Parameter):
        raise ConfigError(f"{op}: {type(module).__name__} has no parameter named {name}")
    delattr(module, name)
    return weight


def _norm(v: Tensor, dim: int | None) -> Tensor:
    axes = None if dim is None else tuple(i for i in range(v.ndim) if i != dim % v.ndim)
    return F.sqrt((v * v).sum(axes, keepdim=True))


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """weight = weight_g · weight_v / ‖weight_v‖, the norm over all axes but ``dim`` (None: over all).

    Source: Salimans and Kingma 2016, arXiv:1602.07868; torch.nn.utils.weight_norm.
    """
    weight = _take("weight_norm", module, name)
    length = _norm(weight.detach(), dim)
    setattr(module, f"{name}_g", Parameter(length.reshape() if dim is None else length))
    setattr(module, f"{name}_v", Parameter(weight))

    def before(owner: Any, args: Any) -> None:
        v, g = getattr(owner, f"{name}_v"), getattr(owner, f"{name}_g")
        setattr(owner, name, v * (g / _norm(v, dim)))

    module.register_forward_pre_hook(before)
    before(module, ())
    return module


def _unit(vector: Array, eps: float) -> Array:
    unit: Array = vector / max(float(np.linalg.norm(vector)), eps)
    return unit


def spectral_norm(
    module: Module,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> Module:
    """weight = weight_orig / σ, σ its largest singular value as a matrix with ``dim`` first.

    ``dim`` is that of the outputs unless it is given: 1 for transposed convolutions, else 0.

    σ = uᵀ W v is followed by ``n_power_iterations`` steps v = Wᵀu / ‖Wᵀu‖, u = Wv / ‖Wv‖ in each forward
    while training; u and v count as constants in backward.
    Source: Miyato et al. 2018, arXiv:1802.05957; torch.nn.utils.spectral_norm.
    """
    weight = _take("spectral_norm", module, name)
    if dim is None:
        dim = int(isinstance(module, (ConvTranspose1d, ConvTranspose2d)))
    axes = (dim, *(i for i in range(weight.ndim) if i != dim))
    rows, columns = weight.shape[dim], weight.size // weight.shape[dim]
    generator = random.generator()
    setattr(module, f"{name}_orig", Parameter(weight))
    for suffix, size in (("u", rows), ("v", columns)):
        unit = _unit(generator.standard_normal(size), eps)
        setattr(module, f"{name}_{suffix}", Buffer(unit.astype(weight.dtype)))

    def before(owner: Any, args: Any) -> None:
        original = getattr(owner, f"{name}_orig")
        u, v = getattr(owner, f"{name}_u"), getattr(owner, f"{name}_v")
        if owner.training and not owner.frozen:
            matrix = original.array.transpose(axes).reshape(rows, columns)
            left, right = u.array, v.array
            for _ in range(n_power_iterations):
                right = _unit(matrix.T @ left, eps)
                left = _unit(matrix @ right, eps)
            u.assign(left)
            v.assign(right)
        pair = Tensor(np.outer(u.array, v.array))  # uᵀ W v = Σ W · (u vᵀ)
        flat = original.permute(*axes).reshape(rows, columns)
        setattr(owner, name, original / (flat * pair).sum())

    module.register_forward_pre_hook(before)
    before(module, ())
    return module
