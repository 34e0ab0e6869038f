"""Elementwise operations: rows of a table, each an expression and its derivatives.

Operands broadcast as in NumPy; a gradient is summed over the axes along which its operand was
stretched. A derivative names the operands (or the output ``y``) that it needs, and only those are
kept until backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnlite.errors import DTypeError, ShapeError
from nnlite.geometry import RELU
from nnlite.layout import Array, as_array
from nnlite.ops.element_types import dtype_of
from nnlite.ops.record import (
    ArrayType,
    Context,
    ErrorSample,
    Needs,
    OnnxNode,
    Op,
    Params,
    Reader,
    Sample,
    Writer,
    register,
)
from nnlite.ops.runs import Kernel, evaluate, named


@dataclass(frozen=True)
class Derivative:
    """∂/∂operand: its text, what it uses, and ``function(gy, *used, **params)``."""

    text: str
    uses: tuple[str, ...]
    function: Callable[..., Array]
    kernel: Kernel | Callable[..., Kernel] | None = None
    """A kernel that computes the same from (gy, *used), for float32 arrays of one shape; or what makes one
    of the params."""


@dataclass(frozen=True)
class Row:
    """One elementwise operation. Operands are named x, or a and b."""

    name: str
    expression: str
    forward: Callable[..., Array]
    derivatives: tuple[Derivative, ...]
    onnx: str
    low: float = -2.0
    high: float = 2.0
    """The interval that test operands are drawn from."""
    kinks: tuple[float, ...] = ()
    """Points without derivative, which test operands avoid."""
    integers: bool = False
    """True when integers are taken too (shape arithmetic in model files)."""
    kernel: Kernel | Callable[..., Kernel] | None = None
    """A kernel that computes the same, for float32 operands of one shape; or what makes one of the params."""


def _kernel(kernel: Kernel | Callable[..., Kernel] | None, params: Params) -> Kernel | None:
    return kernel if kernel is None or isinstance(kernel, Kernel) else kernel(**params)


_KERNELS: dict[str, Kernel | Callable[..., Kernel]] = {}
"""The kernels of the rows that have one, by op."""


def row_kernel(op: str, params: Params) -> Kernel | None:
    """The kernel that computes the row ``op`` with ``params``, or None where it has none."""
    return _kernel(_KERNELS.get(op), params)


def _kernel_names(row: Row, params: Params) -> tuple[str, ...]:
    kernels = [_kernel(one, params) for one in (row.kernel, *(d.kernel for d in row.derivatives))]
    return tuple(sorted({kernel.name for kernel in kernels if kernel is not None}))


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum ``gradient`` over the axes along which an operand of ``shape`` was stretched."""
    if gradient.shape == shape:
        return gradient
    lead = gradient.ndim - len(shape)
    stretched = tuple(
        axis for axis in range(gradient.ndim)
        if axis < lead or (shape[axis - lead] == 1 and gradient.shape[axis] != 1)
    )  # fmt: skip
    total: Array = gradient.sum(axis=stretched, keepdims=True).reshape(shape)
    return total


def broadcast_shape(op: str, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcast of ``shapes``; ShapeError names them when there is none."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = " and ".join(str(list(shape)) for shape in shapes)
        raise ShapeError(
            f"{op}: shapes {listed} do not broadcast; aligned at the right, sizes must be equal or 1"
        ) from None


def _shape_rule(row: Row) -> Callable[..., ArrayType]:
    def rule(*types: ArrayType, **params: Any) -> ArrayType:
        shapes, dtypes = {t.shape for t in types}, {t.dtype for t in types}
        dtype = dtypes.pop() if len(dtypes) == 1 else np.result_type(*dtypes)
        if dtype.kind not in ("fiu" if row.integers else "f"):
            listed = ", ".join(str(t.dtype) for t in types)
            raise DTypeError(f"{row.name}: operands of type {listed} are not taken; convert with astype")
        if len(shapes) == 1:  # most often there is nothing to broadcast, which NumPy takes long to find out
            return ArrayType(shapes.pop(), dtype)
        return ArrayType(broadcast_shape(row.name, *(t.shape for t in types)), dtype)

    return rule


def _make(
    row: Row, names: tuple[str, ...]
) -> tuple[Callable[..., Array], Callable[..., Sequence[Array | None]]]:
    def forward(ctx: Context, *operands: Array, **params: Any) -> Array:
        kernel = _kernel(row.kernel, params)
        y = None if kernel is None else kernel(*operands)
        if y is None:
            y = evaluate(row.forward, *operands, **params)
        if ctx.recording:
            known = dict(zip(names, operands, strict=True)) | {"y": y}
            used = {u for d, need in zip(row.derivatives, ctx.needs, strict=True) if need for u in d.uses}
            ctx.values["saved"] = tuple(sorted(used))
            ctx.values["types"] = tuple((a.shape, a.dtype) for a in operands)
            ctx.save(*(known[name] for name in sorted(used)))
        return y

    def backward(ctx: Context, gy: Array, needs: Needs) -> Sequence[Array | None]:
        assert ctx.saved is not None
        known = dict(zip(ctx.values["saved"], ctx.saved, strict=True))
        result: list[Array | None] = []
        for derivative, need, (shape, dtype) in zip(row.derivatives, needs, ctx.values["types"], strict=True):
            if not need:
                result.append(None)
                continue
            used = [known[name] for name in derivative.uses]
            kernel = _kernel(derivative.kernel, ctx.params)
            gradient = None if kernel is None else kernel(gy, *used)
            if gradient is None:
                gradient = evaluate(derivative.function, gy, *used, **ctx.params)
            result.append(unbroadcast(gradient, shape).astype(dtype, copy=False))
        return result

    return forward, backward


def _operand(row: Row, shape: tuple[int, ...], seed: int) -> Array:
    values = np.random.default_rng(seed).uniform(row.low, row.high, shape)
    for kink in row.kinks:
        near = np.abs(values - kink) < 0.05
        values[near] = kink + 0.1
    return values


def _samples(row: Row, settings: Sequence[Params]) -> Iterator[Sample]:
    if len(row.derivatives) == 1:
        for shape in [(2, 3, 4, 5), (3,), ()]:
            yield Sample(_operand(row, shape, seed=1), **settings[0])
    else:
        for a, b in [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (3, 1)), ((1, 4), (2, 3, 1)), ((2, 3), ())]:
            yield Sample(_operand(row, a, seed=1), _operand(row, b, seed=2), **settings[0])
    for params in settings[1:]:
        yield Sample(*(_operand(row, (2, 6), seed) for seed, _ in enumerate(row.derivatives)), **params)


def _errors(row: Row, params: Params) -> Iterator[ErrorSample]:
    strings = np.array(["a"])
    operands = len(row.derivatives)
    yield ErrorSample(DTypeError, "not taken", *[strings] * operands, **params)
    if operands == 2:
        yield ErrorSample(ShapeError, "do not broadcast", (2, 3), (4,), **params)


def _reader(name: str) -> Reader:
    return lambda n: n.emit(name, *n.inputs)


def _variadic_reader(name: str) -> Reader:
    """Max and Min take any number of operands: one is itself, several are taken two by two."""

    def read(n: OnnxNode) -> Any:
        result = n.inputs[0]
        for other in n.inputs[1:]:
            result = n.emit(name, result, other)
        return result

    return read


def read_pow(n: OnnxNode) -> Any:
    """The result has the base's type; an integer exponent must not widen float32 to float64."""
    base, exponent = n.inputs
    codes = [kind for kind in (n.kind(0), n.kind(1)) if kind is not None]
    if len(codes) < 2:
        raise n.refuse("the element types of its inputs are not known")
    kinds = [dtype_of(code) for code in codes]
    first, second = (np.dtype(np.float32) if "float16" in kind.name else kind for kind in kinds)
    if first == second:
        return n.emit("pow", base, exponent)
    if first.kind == "f":
        return n.emit("pow", base, n.emit("cast", exponent, dtype=first.name))
    wide = [n.emit("cast", operand, dtype="float64") for operand in (base, exponent)]
    return n.emit("cast", n.emit("pow", *wide), dtype=first.name)


_READERS = {"maximum": _variadic_reader("maximum"), "minimum": _variadic_reader("minimum"), "pow": read_pow}


def register_row(
    row: Row,
    *,
    settings: Sequence[Params] = ({},),
    check: Callable[..., None] | None = None,
    refused: Sequence[ErrorSample] = (),
    samples: Callable[[], Iterable[Sample]] | None = None,
    source: str = "",
    reads: Mapping[str, Reader] | None = None,
    writes: Writer | None = None,
) -> Op:
    """Make a record of a row.

    ``settings`` are the params to test it with; ``check(**params)`` raises for bad ones, of which
    ``refused`` holds samples. Without ``reads`` and ``writes`` it is the ONNX operator of the row's name.
    """
    if row.kernel is not None:
        _KERNELS[row.name] = row.kernel
    names = ("x",) if len(row.derivatives) == 1 else ("a", "b")
    forward, backward = _make(row, names)
    gradients = "; ".join(f"g{n} = {d.text}" for n, d in zip(names, row.derivatives, strict=True))
    types = _shape_rule(row)

    def shape(*operands: ArrayType, **params: Any) -> ArrayType:
        if check is not None:
            check(**params)
        return types(*operands)

    return register(
        Op(
            name=row.name,
            formula=f"y = {row.expression}, elementwise with broadcasting",
            gradient=gradients,
            source=source or f"ONNX {row.onnx}",
            elementwise=True,
            shape=shape,
            forward=forward,
            backward=backward,
            samples=samples or (lambda: _samples(row, settings)),
            errors=lambda: [*_errors(row, settings[0]), *refused],
            reads={row.onnx: _READERS.get(row.name) or _reader(row.name)} if reads is None else reads,
            writes=writes or (lambda w, node: w.add(row.onnx, node.inputs)),
            kernels=_kernel_names(row, settings[0]),
        )
    )


def stable_sigmoid(x: Array) -> Array:
    # exp of a non-positive number only: no overflow for any x.
    small = np.exp(-np.abs(x))
    result: Array = np.where(x >= 0, 1, small) / (1 + small)
    return result.astype(x.dtype, copy=False)


def _divide(a: Array, b: Array) -> Array:
    if np.result_type(a, b).kind == "f":
        return as_array(a / b)
    # Integers divide towards zero, as in C and ONNX; // would round down.
    quotient = np.abs(a) // np.abs(b)
    return as_array(np.where((a < 0) != (b < 0), -quotient, quotient))


def _share_max(gy: Array, own: Array, other: Array) -> Array:
    # Where both operands are the extreme each gets half, as in PyTorch.
    return as_array(gy * (own == other) * 0.5)


_NEGATE = Kernel("combine", alpha=-1.0)
_PRODUCT = Kernel("multiply")
_RELU = dict(activation=RELU, low=0.0)

_SIGMOID, _TANH = named("sigmoid"), named("tanh")
D = Derivative
ROWS = (
    Row("neg", "-x", np.negative, (D("-gy", (), np.negative, _NEGATE),), "Neg", integers=True,
        kernel=_NEGATE),
    Row("exp", "eˣ", np.exp, (D("gy · y", ("y",), np.multiply),), "Exp"),
    Row("log", "ln x", np.log, (D("gy / x", ("x",), np.divide),), "Log", low=0.2),
    Row("sqrt", "√x", np.sqrt, (D("gy / 2y", ("y",), lambda gy, y: gy * 0.5 / y),), "Sqrt", low=0.2),
    Row("abs", "|x|", np.abs, (D("gy · sign x", ("x",), lambda gy, x: gy * np.sign(x)),), "Abs",
        kinks=(0.0,), integers=True),
    Row("relu", "max(x, 0)", lambda x: np.maximum(x, 0),
        (D("gy where x > 0", ("y",), lambda gy, y: np.where(y <= 0, gy.dtype.type(0), gy),
           Kernel("activation_backward", **_RELU)),),
        "Relu", kinks=(0.0,), kernel=Kernel("combine", **_RELU), integers=True),
    Row("sigmoid", "1 / (1 + e⁻ˣ)", stable_sigmoid,
        (D("gy · y · (1 - y)", ("y",), lambda gy, y: gy * y * (1 - y), _SIGMOID[1]),), "Sigmoid",
        kernel=_SIGMOID[0]),
    Row("tanh", "tanh x", np.tanh,
        (D("gy · (1 - y²)", ("y",), lambda gy, y: gy * (1 - y * y), _TANH[1]),), "Tanh", kernel=_TANH[0]),
    Row("add", "a + b", np.add, (D("gy", (), lambda gy: gy), D("gy", (), lambda gy: gy)), "Add",
        integers=True, kernel=Kernel("combine")),
    Row("sub", "a - b", np.subtract, (D("gy", (), lambda gy: gy), D("-gy", (), np.negative, _NEGATE)), "Sub",
        integers=True, kernel=Kernel("combine", beta=-1.0)),
    Row("mul", "a · b", np.multiply,
        (D("gy · b", ("b",), np.multiply, _PRODUCT), D("gy · a", ("a",), np.multiply, _PRODUCT)), "Mul",
        integers=True, kernel=_PRODUCT),
    Row("div", "a / b", _divide,
        (D("gy / b", ("b",), np.divide), D("-gy · y / b", ("b", "y"), lambda gy, b, y: -gy * y / b)),
        "Div", low=0.3, integers=True),
    Row("pow", "aᵇ", np.power,
        (D("gy · b · aᵇ⁻¹ (0 where b = 0)", ("a", "b"),
           lambda gy, a, b: gy * b * np.power(a, b - (b != 0))),
         D("gy · y · ln a (0 where a = 0)", ("a", "y"),
           lambda gy, a, y: gy * y * np.log(np.where(a == 0, 1, a)))),
        "Pow", low=0.3, integers=True),
    Row("maximum", "max(a, b)", np.maximum,
        (D("gy where a > b, half where equal", ("a", "b"),
           lambda gy, a, b: gy * (a > b) + _share_max(gy, a, b)),
         D("gy where b > a, half where equal", ("a", "b"),
           lambda gy, a, b: gy * (b > a) + _share_max(gy, a, b))), "Max", integers=True),
    Row("minimum", "min(a, b)", np.minimum,
        (D("gy where a < b, half where equal", ("a", "b"),
           lambda gy, a, b: gy * (a < b) + _share_max(gy, a, b)),
         D("gy where b < a, half where equal", ("a", "b"),
           lambda gy, a, b: gy * (b < a) + _share_max(gy, a, b))), "Min", integers=True),
)  # fmt: skip


def read_mean(n: OnnxNode) -> Any:
    total = _variadic_reader("add")(n)
    return n.emit("div", total, n.leaf(np.asarray(len(n.inputs), np.float32)))


_MORE = {"add": {"Add": _reader("add"), "Sum": _variadic_reader("add"), "Mean": read_mean}}
for _row in ROWS:
    register_row(_row, reads=_MORE.get(_row.name))
