"""Tensor: an array, its place on the tape, and arithmetic."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from nnlite import autograd
from nnlite.device import (
    device_of,
    from_cuda_interface,
    from_dlpack,
    is_array,
    moved,
    on_host,
    resolve,
    to_host,
)
from nnlite.errors import DeviceError, DTypeError, GradientError, OperandError, ShapeError
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.ops import OPS, Op
from nnlite.ops.basic_index import index_steps
from nnlite.ops.element_types import dtype_named
from nnlite.ops.reduce import normalise_axes


class Tracer(Protocol):
    """Whoever wants to see every op that is applied (``nnlite.graph.trace``)."""

    def record(
        self,
        op: Op,
        inputs: Sequence[Tensor | None],
        params: dict[str, Any],
        outputs: Sequence[Tensor],
    ) -> None:
        """Called after ``op`` has run."""


tracer: contextvars.ContextVar[Tracer | None] = contextvars.ContextVar("nnlite_tracer", default=None)


class Tensor:
    """An n-dimensional array that remembers how it was computed.

    ``array`` is one of NumPy, or of CuPy on a GPU. Raises DTypeError when ``requires_grad`` is set on
    anything but floating-point numbers.
    """

    __slots__ = ("__weakref__", "_array", "_value")
    __array_ufunc__ = None  # so that ``numpy_array * tensor`` asks the tensor

    def __init__(self, array: Array, requires_grad: bool = False, *, _value: Value | None = None) -> None:
        self._array = array
        self._value = _value
        if requires_grad:
            self.requires_grad = True

    # ---------------------------------------------------------------------------- attributes

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes, [N,C,H,W] for pictures."""
        shape: tuple[int, ...] = self._array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type."""
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self._array.size

    @property
    def device(self) -> str:
        """Where its elements are: "cpu", "cuda:0", ..."""
        return device_of(self._array)

    @property
    def is_leaf(self) -> bool:
        """True unless an op that can be differentiated computed it."""
        return self._value is None or self._value.node is None

    @property
    def requires_grad(self) -> bool:
        """Whether operations on it are recorded for backward."""
        return self._value is not None and self._value.requires_grad

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        if not self.is_leaf:
            raise GradientError("requires_grad can be set on leaf tensors only; use detach() first")
        if flag:
            autograd.check_differentiable(self.dtype)
            if self._value is None:
                self._value = Value(type=None)
        if self._value is not None:
            self._value.requires_grad = flag

    @property
    def grad(self) -> Tensor | None:
        """Accumulated gradient of a leaf, or None."""
        if self._value is None or self._value.grad is None:
            return None
        return Tensor(self._value.grad)

    @grad.setter
    def grad(self, gradient: Tensor | None) -> None:
        if self._value is None:
            self._value = Value()
        if gradient is not None and gradient.shape != self.shape:
            raise ShapeError(f"grad has shape {list(gradient.shape)} but the tensor {list(self.shape)}")
        self._value.grad = None if gradient is None else gradient._array

    # ------------------------------------------------------------------------- to and from

    def to(self, device: str) -> Tensor:
        """The tensor on "cpu", "cuda", "cuda:<number>", or "auto"; itself where it is there already.

        Gradients flow back to where it came from. Raises ConfigError for an unknown name, DeviceError that
        says what is missing where there is no such device, OutOfMemoryError when it has no room.
        """
        name = resolve(device)
        return self if name == self.device else apply(OPS["to_device"], self, device=name)

    def numpy(self) -> Array:
        """The array itself, without a copy; a read-only view where a change would falsify gradients.

        Raises DeviceError for a tensor on a GPU: ``.to("cpu")`` copies it.
        """
        if not on_host(self._array):
            raise DeviceError(f"numpy(): the tensor is on {self.device}; copy it with .to('cpu') first")
        return self.array

    @property
    def array(self) -> Array:
        """As :meth:`numpy`, and on a GPU CuPy's array itself, which has no read-only views: do not write."""
        if not self.requires_grad or not on_host(self._array):
            return self._array
        view: Array = self._array.view()
        view.flags.writeable = False
        return view

    def writable(self) -> Array:
        """The array itself, to be changed in place at once; who used the old elements sees the change."""
        if self._value is not None:
            self._value.version += 1
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False and dtype is not None and np.dtype(dtype) != self.dtype:
            raise ValueError(f"{self.dtype} cannot become {dtype} without a copy")
        return np.array(self.numpy(), dtype=dtype) if copy else np.asarray(self.numpy(), dtype=dtype)

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise GradientError("a tensor that requires gradients cannot be exported; use detach()")
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()

    @property
    def __cuda_array_interface__(self) -> Any:
        # Only what lies on a GPU has it: who asks for it with hasattr must get the truth.
        if on_host(self._array):
            raise AttributeError("only a tensor on a GPU has a __cuda_array_interface__")
        if self.requires_grad:
            raise GradientError("a tensor that requires gradients cannot be exported; use detach()")
        return getattr(self._array, "__cuda_array_interface__")  # noqa: B009 - mypy sees NumPy's type

    def item(self) -> float | int | bool:
        """The only element as a Python number; ShapeError when there are several."""
        if self.size != 1:
            raise ShapeError(f"item() needs one element but the tensor has shape {list(self.shape)}")
        number: float | int | bool = self._array.item()
        return number

    def detach(self) -> Tensor:
        """The same array, off the tape."""
        return Tensor(self._array)

    def astype(self, dtype: Any) -> Tensor:
        """Elements converted to ``dtype``; gradients are converted back."""
        return apply(OPS["cast"], self, dtype=dtype_named(dtype).name)

    # ----------------------------------------------------------------------------- backward

    def backward(
        self,
        gradient: Tensor | Array | None = None,
        retain_graph: bool = False,
        *,
        ready: Callable[[Value], None] | None = None,
    ) -> None:
        """Add d self / d leaf (times ``gradient``) to the ``grad`` of every leaf that requires it.

        A scalar needs no ``gradient``. ``ready`` is called with each leaf as soon as its gradient is
        complete (:meth:`nnlite.optim.Optimizer.step_in_backward`). Raises GradientError when nothing was
        recorded, when the shapes differ, or on a second call without ``retain_graph``.
        """
        value = _recorded(self, "backward")
        autograd.backward([value], [_seed(self, gradient)], retain_graph, ready)

    # --------------------------------------------------------------------------- arithmetic

    def __add__(self, other: Any) -> Tensor:
        return apply(OPS["add"], self, operand(other, self))

    def __radd__(self, other: Any) -> Tensor:
        return apply(OPS["add"], operand(other, self), self)

    def __sub__(self, other: Any) -> Tensor:
        return apply(OPS["sub"], self, operand(other, self))

    def __rsub__(self, other: Any) -> Tensor:
        return apply(OPS["sub"], operand(other, self), self)

    def __mul__(self, other: Any) -> Tensor:
        return apply(OPS["mul"], self, operand(other, self))

    def __rmul__(self, other: Any) -> Tensor:
        return apply(OPS["mul"], operand(other, self), self)

    def __truediv__(self, other: Any) -> Tensor:
        return apply(OPS["div"], self, operand(other, self))

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply(OPS["div"], operand(other, self), self)

    def __pow__(self, other: Any) -> Tensor:
        return apply(OPS["pow"], self, operand(other, self))

    def __rpow__(self, other: Any) -> Tensor:
        return apply(OPS["pow"], operand(other, self), self)

    def __matmul__(self, other: Any) -> Tensor:
        return apply(OPS["matmul"], self, operand(other, self))

    def __rmatmul__(self, other: Any) -> Tensor:
        return apply(OPS["matmul"], operand(other, self), self)

    def __neg__(self) -> Tensor:
        return apply(OPS["neg"], self)

    def __getitem__(self, index: Any) -> Tensor:
        result = self
        for name, params in index_steps(self.shape, index if isinstance(index, tuple) else (index,)):
            result = apply(OPS[name], result, **params)
        return result

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    # -------------------------------------------------------------------------------- shape

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements in row-major order with another shape; one size may be -1."""
        return apply(OPS["reshape"], self, shape=_sizes(shape))

    def permute(self, *axes: int | Sequence[int]) -> Tensor:
        """Axes in another order."""
        return apply(OPS["transpose"], self, axes=_sizes(axes))

    def transpose(self, axis0: int, axis1: int) -> Tensor:
        """Two axes exchanged, as in PyTorch."""
        axes = list(range(self.ndim))
        for axis in (axis0, axis1):
            normalise_axes("transpose", (axis,), self.ndim)
        axes[axis0], axes[axis1] = axes[axis1], axes[axis0]
        return apply(OPS["transpose"], self, axes=tuple(axes))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Axes start_dim..end_dim merged into one."""
        return apply(OPS["flatten"], self, start=start_dim, end=end_dim)

    # ------------------------------------------------------------------------------- reduce

    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Sum over ``dim`` (all axes by default)."""
        return apply(OPS["sum"], self, axes=_axes(dim), keepdims=keepdim)

    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Mean over ``dim`` (all axes by default)."""
        return apply(OPS["mean"], self, axes=_axes(dim), keepdims=keepdim)

    def max(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Largest element over ``dim``; the gradient goes to the largest, shared among ties."""
        return apply(OPS["max"], self, axes=_axes(dim), keepdims=keepdim)

    def __len__(self) -> int:
        return len(self._array)

    def __repr__(self) -> str:
        text = np.array2string(to_host(self._array), separator=", ", prefix="tensor(")
        flags = "" if on_host(self._array) else f", device={self.device}"
        flags += ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}, dtype={self.dtype}{flags})"


def _sizes(values: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    if len(values) == 1 and not isinstance(values[0], (int, np.integer)):
        return tuple(int(v) for v in values[0])
    return tuple(int(v) for v in values)  # type: ignore[arg-type]


def _axes(dim: int | Sequence[int] | None) -> tuple[int, ...] | None:
    return None if dim is None else (int(dim),) if isinstance(dim, (int, np.integer)) else tuple(dim)


# ------------------------------------------------------------------------------------ creation


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False, device: str | None = None) -> Tensor:
    """A new tensor with a copy of ``data`` (array, nested lists, number).

    Python floats become float32; arrays keep their type unless ``dtype`` says otherwise. It lies on
    ``device`` (see :meth:`Tensor.to`); by default where ``data`` does.
    """
    source = data._array if isinstance(data, Tensor) else data
    if is_array(source):
        array = source.astype(source.dtype if dtype is None else dtype)
    else:
        array = np.array(source, dtype=dtype)
    if (
        dtype is None
        and array.dtype == np.float64
        and not is_array(source)
        and not isinstance(source, np.generic)
    ):
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"tensor: elements of type {array.dtype} are not numbers")
    return Tensor(array if device is None else moved(array, resolve(device)), requires_grad)


def asarray(data: Any) -> Tensor:
    """A tensor over the memory of ``data`` where that is possible.

    Arrays of NumPy and CuPy, whatever exports DLPack (PyTorch, JAX), and what has a
    ``__cuda_array_interface__`` (Numba), are taken without a copy, on the CPU and on a GPU.
    """
    if isinstance(data, Tensor):
        return data
    if is_array(data):
        return Tensor(data)
    if hasattr(data, "__dlpack__"):
        return Tensor(from_dlpack(data))
    if hasattr(data, "__cuda_array_interface__"):
        return Tensor(from_cuda_interface(data))
    return Tensor(np.asarray(data))


def operand(data: Any, like: Tensor) -> Tensor:
    """``data`` as the other operand of an operation with ``like``; Python numbers take its type."""
    if isinstance(data, Tensor):
        return data
    if isinstance(data, (bool, int)) or (isinstance(data, float) and like.dtype.kind == "f"):
        # np.asarray(..., like=) costs NumPy half a microsecond that only a GPU needs.
        if on_host(like._array):
            return Tensor(np.asarray(data, like.dtype))
        return Tensor(np.full_like(like._array, data, like.dtype, "C", shape=()))
    return beside(data, like)


def beside(data: Any, like: Tensor) -> Tensor:
    """``data`` as a tensor where ``like`` is: an array of NumPy is copied there, a Tensor stays as it is."""
    if isinstance(data, Tensor):
        return data
    array = data if is_array(data) else np.asarray(data)
    return Tensor(array if on_host(like._array) else moved(array, like.device))


# ----------------------------------------------------------------------------------- operation


def apply_many(op: Op, *operands: Tensor | None, **params: Any) -> tuple[Tensor, ...]:
    """Apply ``op`` and return all its outputs; OperandError for an operand that is no Tensor."""
    for i, operand in enumerate(operands):
        if operand is not None and not isinstance(operand, Tensor):
            raise OperandError(
                f"{op.name}: operand {i} is a {type(operand).__name__}, not a Tensor; use nl.tensor(...)"
            )
    arrays = [None if t is None else t._array for t in operands]
    values = [None if t is None else t._value for t in operands]
    results, result_values = autograd.apply(op, arrays, values, params)
    outputs = tuple(Tensor(a, _value=v) for a, v in zip(results, result_values, strict=True))
    if (active := tracer.get()) is not None:
        active.record(op, operands, params, outputs)
    return outputs


def apply(op: Op, *operands: Tensor | None, **params: Any) -> Tensor:
    """Apply ``op`` and return its first output."""
    return apply_many(op, *operands, **params)[0]


# ----------------------------------------------------------------------------------- gradients


def _recorded(tensor: Tensor, what: str) -> Value:
    if tensor._value is None or not tensor._value.requires_grad:
        raise GradientError(
            f"{what}: the tensor does not depend on anything that requires gradients; "
            "set requires_grad=True on an input, and do not compute it under no_grad()"
        )
    return tensor._value


def _seed(tensor: Tensor, gradient: Tensor | Array | None) -> Array:
    if gradient is not None:
        array = gradient._array if isinstance(gradient, Tensor) else gradient
        array = array if is_array(array) else np.asarray(array)
        if array.shape != tensor.shape:
            raise GradientError(
                f"backward: the gradient has shape {list(array.shape)} "
                f"but the output has {list(tensor.shape)}"
            )
        return array.astype(tensor.dtype, copy=False)
    if tensor.size != 1:
        raise GradientError(
            f"backward: an output of shape {list(tensor.shape)} needs an explicit gradient; "
            "only a scalar has an obvious one"
        )
    return np.ones_like(tensor._array, tensor.dtype, "C", shape=tensor.shape)


def _listed(tensors: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Array | Sequence[Tensor | Array | None] | None = None,
    retain_graph: bool = False,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of ``outputs`` with respect to ``inputs``, without touching any ``grad``.

    Returns sum_i grad_outputs[i]^T d outputs[i] / d input for each input, None for an unused one.
    Raises GradientError for an unused input unless ``allow_unused``, and for ``create_graph``:
    gradients here are first order.
    """
    if create_graph:
        raise GradientError("grad: create_graph=True asks for second-order gradients; nnlite has none")
    roots, targets = _listed(outputs), _listed(inputs)
    if grad_outputs is None or isinstance(grad_outputs, Tensor) or is_array(grad_outputs):
        grad_outputs = [grad_outputs] * len(roots) if grad_outputs is None else [grad_outputs]  # type: ignore[list-item]
    if len(grad_outputs) != len(roots):
        raise GradientError(f"grad: {len(roots)} outputs but {len(grad_outputs)} grad_outputs")
    seeds = [_seed(t, g) for t, g in zip(roots, grad_outputs, strict=True)]
    wanted = [_recorded(t, f"grad: input {i}") for i, t in enumerate(targets)]
    values = [_recorded(t, f"grad: output {i}") for i, t in enumerate(roots)]
    found = autograd.gradients(values, seeds, wanted, retain_graph)
    result = tuple(Tensor(found[v]) if v in found else None for v in wanted)
    for i, gradient in enumerate(result):
        if gradient is None and not allow_unused:
            raise GradientError(f"grad: input {i} is not used by the outputs; pass allow_unused=True")
    return result
