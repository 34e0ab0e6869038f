"""Elementwise mathematics, comparison and choice."""

from __future__ import annotations

from nnlite.errors import OperandError
from nnlite.ops import OPS
from nnlite.tensors import Tensor, apply, operand


def clamp(x: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """min(max(x, min), max); an absent bound does not bind."""
    return apply(OPS["clamp"], x, minimum=min, maximum=max)


def exp(x: Tensor) -> Tensor:
    """e to the power x."""
    return apply(OPS["exp"], x)


def log(x: Tensor) -> Tensor:
    """Natural logarithm."""
    return apply(OPS["log"], x)


def sqrt(x: Tensor) -> Tensor:
    """Square root."""
    return apply(OPS["sqrt"], x)


def abs(x: Tensor) -> Tensor:
    """Magnitude."""
    return apply(OPS["abs"], x)


def maximum(a: Tensor, b: Tensor | float) -> Tensor:
    """Elementwise larger of two; each gets half the gradient where they are equal."""
    return apply(OPS["maximum"], a, operand(b, a))


def minimum(a: Tensor, b: Tensor | float) -> Tensor:
    """Elementwise smaller of two; each gets half the gradient where they are equal."""
    return apply(OPS["minimum"], a, operand(b, a))


def erf(x: Tensor) -> Tensor:
    """The error function, 2/√π · ∫₀ˣ exp(-t²) dt."""
    return apply(OPS["erf"], x)


def reciprocal(x: Tensor) -> Tensor:
    """1 / x."""
    return apply(OPS["reciprocal"], x)


def sin(x: Tensor) -> Tensor:
    """Sine."""
    return apply(OPS["sin"], x)


def cos(x: Tensor) -> Tensor:
    """Cosine."""
    return apply(OPS["cos"], x)


def tan(x: Tensor) -> Tensor:
    """Tangent."""
    return apply(OPS["tan"], x)


def asin(x: Tensor) -> Tensor:
    """Arc sine."""
    return apply(OPS["asin"], x)


def acos(x: Tensor) -> Tensor:
    """Arc cosine."""
    return apply(OPS["acos"], x)


def atan(x: Tensor) -> Tensor:
    """Arc tangent."""
    return apply(OPS["atan"], x)


def sinh(x: Tensor) -> Tensor:
    """Hyperbolic sine."""
    return apply(OPS["sinh"], x)


def cosh(x: Tensor) -> Tensor:
    """Hyperbolic cosine."""
    return apply(OPS["cosh"], x)


def asinh(x: Tensor) -> Tensor:
    """Inverse hyperbolic sine."""
    return apply(OPS["asinh"], x)


def acosh(x: Tensor) -> Tensor:
    """Inverse hyperbolic cosine."""
    return apply(OPS["acosh"], x)


def atanh(x: Tensor) -> Tensor:
    """Inverse hyperbolic tangent."""
    return apply(OPS["atanh"], x)


def floor(x: Tensor) -> Tensor:
    """Largest integer up to x; its gradient is 0."""
    return apply(OPS["floor"], x)


def ceil(x: Tensor) -> Tensor:
    """Smallest integer from x on; its gradient is 0."""
    return apply(OPS["ceil"], x)


def round(x: Tensor) -> Tensor:
    """Nearest integer, halves to the even one; its gradient is 0."""
    return apply(OPS["round"], x)


def sign(x: Tensor) -> Tensor:
    """1, 0 or -1; its gradient is 0."""
    return apply(OPS["sign"], x)


def isnan(x: Tensor) -> Tensor:
    """Where x is not a number, as truth values."""
    return apply(OPS["isnan"], x)


def rsqrt(x: Tensor) -> Tensor:
    """1 / √x."""
    return reciprocal(sqrt(x))


def square(x: Tensor) -> Tensor:
    """x²."""
    return x * x


def remainder(a: Tensor, b: Tensor | float) -> Tensor:
    """Remainder of a / b with b's sign."""
    return apply(OPS["remainder"], a, operand(b, a))


def fmod(a: Tensor, b: Tensor | float) -> Tensor:
    """Remainder of a / b with a's sign."""
    return apply(OPS["fmod"], a, operand(b, a))


def eq(a: Tensor, b: Tensor | float) -> Tensor:
    """a = b, elementwise, as truth values."""
    return apply(OPS["equal"], a, operand(b, a))


def ne(a: Tensor, b: Tensor | float) -> Tensor:
    """a ≠ b, elementwise, as truth values."""
    return apply(OPS["not_equal"], a, operand(b, a))


def lt(a: Tensor, b: Tensor | float) -> Tensor:
    """a < b, elementwise, as truth values."""
    return apply(OPS["less"], a, operand(b, a))


def le(a: Tensor, b: Tensor | float) -> Tensor:
    """a ≤ b, elementwise, as truth values."""
    return apply(OPS["less_equal"], a, operand(b, a))


def gt(a: Tensor, b: Tensor | float) -> Tensor:
    """a > b, elementwise, as truth values."""
    return apply(OPS["greater"], a, operand(b, a))


def ge(a: Tensor, b: Tensor | float) -> Tensor:
    """a ≥ b, elementwise, as truth values."""
    return apply(OPS["greater_equal"], a, operand(b, a))


def logical_and(a: Tensor, b: Tensor | float) -> Tensor:
    """Both, elementwise, as truth values."""
    return apply(OPS["logical_and"], a, operand(b, a))


def logical_or(a: Tensor, b: Tensor | float) -> Tensor:
    """Either or both, elementwise, as truth values."""
    return apply(OPS["logical_or"], a, operand(b, a))


def logical_xor(a: Tensor, b: Tensor | float) -> Tensor:
    """Exactly one, elementwise, as truth values."""
    return apply(OPS["logical_xor"], a, operand(b, a))


def logical_not(x: Tensor) -> Tensor:
    """True where x is False."""
    return apply(OPS["logical_not"], x)


def where(condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    """a where the condition is true, else b; a number takes the other's type."""
    if not isinstance(a, Tensor):
        if not isinstance(b, Tensor):
            raise OperandError("where: a and b are both numbers; make one of them a tensor")
        a = operand(a, b)
    return apply(OPS["where"], condition, a, operand(b, a))
