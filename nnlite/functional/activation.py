"""Activations."""

from __future__ import annotations

from nnlite.errors import ShapeError
from nnlite.ops import OPS
from nnlite.ops.activation import SELU_ALPHA, SELU_GAMMA
from nnlite.tensors import Tensor, apply


def relu(x: Tensor) -> Tensor:
    """max(x, 0)."""
    return apply(OPS["relu"], x)


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)."""
    return apply(OPS["clamp"], x, minimum=0.0, maximum=6.0)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return apply(OPS["sigmoid"], x)


def tanh(x: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return apply(OPS["tanh"], x)


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """exp(x) / sum exp(x) along ``dim``."""
    return apply(OPS["softmax"], x, axis=dim)


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """x - log sum exp(x) along ``dim``."""
    return apply(OPS["log_softmax"], x, axis=dim)


def softmin(x: Tensor, dim: int = -1) -> Tensor:
    """exp(-x) / sum exp(-x) along ``dim``."""
    return softmax(-x, dim)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """X where x > 0, else negative_slope · x."""
    return apply(OPS["leaky_relu"], x, negative_slope=negative_slope)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """X where x > 0, else weight · x; weight [1] or, for x [N,C,...], [C]."""
    if weight.ndim == 1 and weight.size > 1:
        if x.ndim < 2 or x.shape[1] != weight.size:
            raise ShapeError(f"prelu: weight has {weight.size} slopes but x {list(x.shape)} other channels")
        weight = weight.reshape(-1, *[1] * (x.ndim - 2))
    return apply(OPS["prelu"], x, weight)


def elu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """X where x > 0, else alpha · (exp(x) - 1)."""
    return apply(OPS["elu"], x, alpha=alpha)


def selu(x: Tensor) -> Tensor:
    """Scaled elu, which keeps mean 0 and variance 1 from layer to layer."""
    return apply(OPS["selu"], x, alpha=SELU_ALPHA, gamma=SELU_GAMMA)


def celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    """max(x, 0) + min(0, alpha · (exp(x / alpha) - 1))."""
    return apply(OPS["celu"], x, alpha=alpha)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """X times the normal distribution function of x; ``approximate`` "tanh" is the faster formula."""
    return apply(OPS["gelu"], x, approximate=approximate)


def silu(x: Tensor) -> Tensor:
    """X · sigmoid(x), also called swish."""
    return apply(OPS["silu"], x)


def mish(x: Tensor) -> Tensor:
    """X · tanh(softplus(x))."""
    return apply(OPS["mish"], x)


def hardswish(x: Tensor) -> Tensor:
    """X · min(max(x + 3, 0), 6) / 6."""
    return apply(OPS["hardswish"], x)


def hardsigmoid(x: Tensor) -> Tensor:
    """min(max(x / 6 + 1/2, 0), 1)."""
    return apply(OPS["hardsigmoid"], x, alpha=1 / 6, beta=0.5)


def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """min(max(x, min_val), max_val)."""
    return apply(OPS["clamp"], x, minimum=min_val, maximum=max_val)


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """ln(1 + exp(beta · x)) / beta, x itself where beta · x > threshold."""
    return apply(OPS["softplus"], x, beta=beta, threshold=threshold)


def logsigmoid(x: Tensor) -> Tensor:
    """ln sigmoid(x), without overflow."""
    return apply(OPS["log_sigmoid"], x)


def softsign(x: Tensor) -> Tensor:
    """X / (1 + |x|)."""
    return apply(OPS["softsign"], x)


def tanhshrink(x: Tensor) -> Tensor:
    """X - tanh(x)."""
    return x - tanh(x)


def hardshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """X where |x| > lambd, else 0."""
    return apply(OPS["shrink"], x, lambd=lambd, bias=0.0)


def softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    """X moved by lambd towards 0, and 0 where |x| ≤ lambd."""
    return apply(OPS["shrink"], x, lambd=lambd, bias=lambd)


def threshold(x: Tensor, threshold: float, value: float) -> Tensor:
    """X where x > threshold, else value."""
    return apply(OPS["threshold"], x, threshold=threshold, value=value)


def glu(x: Tensor, dim: int = -1) -> Tensor:
    """a · sigmoid(b) for the two halves a, b of x along ``dim``."""
    if not -x.ndim <= dim < x.ndim or x.shape[dim] % 2:
        raise ShapeError(f"glu: axis {dim} of x {list(x.shape)} must be of even size")
    half, axes = x.shape[dim] // 2, (dim,)
    a = apply(OPS["slice"], x, starts=(0,), ends=(half,), axes=axes, steps=(1,))
    b = apply(OPS["slice"], x, starts=(half,), ends=(2 * half,), axes=axes, steps=(1,))
    return a * sigmoid(b)
