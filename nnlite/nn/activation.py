"""Activations as modules; formulas and sources stand in the op records (``nnlite/ops/activation.py``).

``inplace`` is taken for PyTorch's sake and changes nothing.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nnlite import functional as F
from nnlite.nn.module import Module
from nnlite.nn.parameter import Parameter
from nnlite.tensors import Tensor


class _Activation(Module):
    _options: ClassVar[tuple[str, ...]] = ()

    def extra_repr(self) -> str:
        """Options, for repr."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in self._options)


class LeakyReLU(_Activation):
    """x where x > 0, else negative_slope · x."""

    _options = ("negative_slope",)

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.leaky_relu(x, self.negative_slope)


class ELU(_Activation):
    """x where x > 0, else alpha · (exp(x) - 1)."""

    _options = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.elu(x, self.alpha)


class SELU(_Activation):
    """Scaled ELU: keeps mean 0 and variance 1 from layer to layer."""

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.selu(x)


class CELU(_Activation):
    """max(x, 0) + min(0, alpha · (exp(x / alpha) - 1))."""

    _options = ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.celu(x, self.alpha)


class GELU(_Activation):
    """x times the normal distribution function of x; ``approximate``: "none" or "tanh"."""

    _options = ("approximate",)

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.gelu(x, self.approximate)


class SiLU(_Activation):
    """x · sigmoid(x)."""

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.silu(x)


class Mish(_Activation):
    """x · tanh(softplus(x))."""

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.mish(x)


class Hardswish(_Activation):
    """x · min(max(x + 3, 0), 6) / 6."""

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.hardswish(x)


class Hardsigmoid(_Activation):
    """min(max(x / 6 + 1/2, 0), 1)."""

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.hardsigmoid(x)


class Hardtanh(_Activation):
    """min(max(x, min_val), max_val)."""

    _options = (
        "min_val",
        "max_val",
    )

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        self.min_val, self.max_val = min_val, max_val

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.hardtanh(x, self.min_val, self.max_val)


class Softplus(_Activation):
    """ln(1 + exp(beta · x)) / beta, x itself where beta · x > threshold."""

    _options = (
        "beta",
        "threshold",
    )

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta, self.threshold = beta, threshold

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.softplus(x, self.beta, self.threshold)


class LogSigmoid(_Activation):
    """ln sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.logsigmoid(x)


class Softsign(_Activation):
    """x / (1 + |x|)."""

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.softsign(x)


class Tanhshrink(_Activation):
    """x - tanh(x)."""

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.tanhshrink(x)


class Hardshrink(_Activation):
    """x where |x| > lambd, else 0."""

    _options = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = lambd

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.hardshrink(x, self.lambd)


class Softshrink(_Activation):
    """x moved by lambd towards 0, and 0 where |x| ≤ lambd."""

    _options = ("lambd",)

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = lambd

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.softshrink(x, self.lambd)


class Threshold(_Activation):
    """x where x > threshold, else value."""

    _options = (
        "threshold",
        "value",
    )

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        self.threshold, self.value = threshold, value

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.threshold(x, self.threshold, self.value)


class GLU(_Activation):
    """a · sigmoid(b) for the two halves a, b of x along ``dim``."""

    _options = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.glu(x, self.dim)


class LogSoftmax(_Activation):
    """x - ln Σ exp(x) along axis ``dim``."""

    _options = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.log_softmax(x, self.dim)


class Softmin(_Activation):
    """exp(-x) / Σ exp(-x) along axis ``dim``."""

    _options = ("dim",)

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.softmin(x, self.dim)


class PReLU(_Activation):
    """x where x > 0, else weight · x; the slope is learned, one for all or one per channel."""

    _options = ("num_parameters",)

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.num_parameters = num_parameters
        self.weight = Parameter(np.full(num_parameters, init, np.float32))

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.prelu(x, self.weight)


class Softmax2d(_Activation):
    """exp(x) / Σ exp(x) over the channels of x [N,C,H,W]."""

    def forward(self, x: Tensor) -> Tensor:
        """The formula above."""
        return F.softmax(x, -3)
