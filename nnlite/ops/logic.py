"""Comparison, logic and choice. Truth values carry no gradient; ``where`` passes it to what it chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.layout import Array, as_array
from nnlite.node import Node
from nnlite.ops.elementwise import broadcast_shape, unbroadcast
from nnlite.ops.record import (
    ArrayType,
    Context,
    ErrorSample,
    Needs,
    OnnxNode,
    OnnxWriter,
    Op,
    Sample,
    register,
)

BOOL = np.dtype(np.bool_)
DOUBLE = 11
"""ONNX's code of double precision."""


def _rule(name: str, kinds: str, operands: int) -> Callable[..., ArrayType]:
    def rule(*types: ArrayType) -> ArrayType:
        if any(t.dtype.kind not in kinds for t in types) or len({t.dtype for t in types}) != 1:
            listed = " and ".join(str(t.dtype) for t in types)
            wanted = "truth values" if kinds == "b" else "numbers of one type"
            raise DTypeError(f"{name}: operands are {listed} but must be {wanted}; convert with astype")
        return ArrayType(broadcast_shape(name, *(t.shape for t in types)), BOOL)

    return rule


def _comparison_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(3)
    yield Sample(rng.integers(0, 3, (2, 3, 4)) * 0.5, rng.integers(0, 3, (3, 1)) * 0.5)
    yield Sample(rng.integers(0, 3, (2, 3)), rng.integers(0, 3, (2, 3)))


def _logic_samples() -> Iterator[Sample]:
    a, b = np.array([[True, False], [True, False]]), np.array([True, True, False, False]).reshape(2, 2)
    yield Sample(a, b)
    yield Sample(a, np.array([True]))


def read_isinf(n: OnnxNode) -> Any:
    """Infinite, of both signs or of one."""
    x, either = n.inputs[0], n.emit("isinf", n.inputs[0])
    dtype = "float64" if n.kind(0) == DOUBLE else "float32"
    for sign, comparison in (("detect_negative", "greater_equal"), ("detect_positive", "less")):
        if not n.attribute(sign, 1):
            side = n.emit(comparison, x, n.emit("full", shape=(), value=0, dtype=dtype))
            either = n.emit("logical_and", either, side)
    return either


def _register(name: str, symbol: str, function: Callable[..., Array], onnx: str, source: str) -> None:
    unary, logic = name in ("logical_not", "isnan", "isinf"), name.startswith("logical")
    kinds = "b" if logic else "f" if unary else "fiub" if name in ("equal", "not_equal") else "fiu"
    operand = np.array([[True, False]]) if logic else np.array([[1.0, np.nan, -np.inf]])
    samples = (lambda: [Sample(operand)]) if unary else _logic_samples if logic else _comparison_samples
    strings = np.array(["a"])

    def errors() -> Iterator[ErrorSample]:
        yield ErrorSample(DTypeError, "operands are", *[strings] * (1 if unary else 2))
        if not unary:
            operands = [np.ones(n, BOOL if logic else np.float64) for n in (3, 4)]
            yield ErrorSample(ShapeError, "do not broadcast", *operands)

    def read(n: OnnxNode) -> Any:
        return n.emit(name, *n.inputs)

    def write(w: OnnxWriter, node: Node) -> str:
        if name == "not_equal":
            return w.add("Not", [w.add("Equal", node.inputs)])
        return w.add(onnx, node.inputs)

    register(
        Op(
            name=name,
            formula=f"y = {symbol}, elementwise with broadcasting, as truth values",
            gradient="none: truth values carry no gradient",
            source=source,
            shape=_rule(name, kinds, 1 if unary else 2),
            forward=lambda ctx, *operands: function(*operands),
            backward=None,
            samples=samples,
            errors=errors,
            reads={} if name == "not_equal" else {onnx: read_isinf if name == "isinf" else read},
            writes=write,
        )
    )


for _name, _symbol, _function, _onnx, _version in (
    ("equal", "a = b", np.equal, "Equal", 13), ("not_equal", "a ≠ b", np.not_equal, "Equal", 13),
    ("less", "a < b", np.less, "Less", 13), ("less_equal", "a ≤ b", np.less_equal, "LessOrEqual", 16),
    ("greater", "a > b", np.greater, "Greater", 13),
    ("greater_equal", "a ≥ b", np.greater_equal, "GreaterOrEqual", 16),
    ("logical_and", "a and b", np.logical_and, "And", 7), ("logical_or", "a or b", np.logical_or, "Or", 7),
    ("logical_xor", "either a or b", np.logical_xor, "Xor", 7),
    ("logical_not", "not x", np.logical_not, "Not", 1), ("isnan", "x is not a number", np.isnan, "IsNaN", 20),
    ("isinf", "x is infinite", np.isinf, "IsInf", 20),
):  # fmt: skip
    _register(_name, _symbol, _function, _onnx, f"ONNX {_onnx}-{_version}; torch.{_name}")

# ----------------------------------------------------------------------------------------- where


def where_shape(condition: ArrayType, a: ArrayType, b: ArrayType) -> ArrayType:
    if condition.dtype != BOOL:
        raise DTypeError(f"where: the condition is {condition.dtype} but must be truth values; compare first")
    if a.dtype != b.dtype or a.dtype.kind not in "fiub":
        raise DTypeError(f"where: a is {a.dtype} and b {b.dtype}; they must have one type, use astype")
    return ArrayType(broadcast_shape("where", condition.shape, a.shape, b.shape), a.dtype)


def where_forward(ctx: Context, condition: Array, a: Array, b: Array) -> Array:
    ctx.save(condition)
    ctx.values["shapes"] = a.shape, b.shape
    return as_array(np.where(condition, a, b))


def where_backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
    assert ctx.saved is not None and ctx.saved[0] is not None
    condition, zero = ctx.saved[0], np.zeros((), gy.dtype, like=gy)
    a_shape, b_shape = ctx.values["shapes"]
    ga = unbroadcast(np.where(condition, gy, zero), a_shape) if needs[1] else None
    gb = unbroadcast(np.where(condition, zero, gy), b_shape) if needs[2] else None
    return None, ga, gb


def where_samples() -> Iterator[Sample]:
    condition = np.arange(6).reshape(2, 3) % 2 == 0
    yield Sample(condition, (2, 3), (2, 3))
    yield Sample(condition, (4, 1, 3), ())
    yield Sample(condition, np.arange(6).reshape(2, 3), np.array([9]), gradcheck=False)


def where_errors() -> Iterator[ErrorSample]:
    condition = np.array([True, False])
    yield ErrorSample(DTypeError, "must be truth values", (2,), (2,), (2,))
    yield ErrorSample(DTypeError, "must have one type", condition, (2,), np.array([1, 2]))
    yield ErrorSample(ShapeError, "do not broadcast", condition, (2,), (3,))


def _read_where(n: Any) -> Any:
    return n.emit("where", *n.inputs)


register(
    Op(
        name="where",
        formula="y = a where the condition is true, else b, elementwise with broadcasting",
        gradient="ga = gy where the condition is true, gb = gy where it is not; none for the condition",
        source="ONNX Where-16; torch.where",
        shape=where_shape,
        forward=where_forward,
        backward=where_backward,
        samples=where_samples,
        errors=where_errors,
        reads={"Where": _read_where},
        writes=lambda w, node: w.add("Where", node.inputs),
    )
)
