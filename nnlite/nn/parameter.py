"""Parameters and buffers: the tensors that a module keeps from one step to the next."""

from __future__ import annotations

from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from nnlite import autograd, memory
from nnlite.device import is_array, moved, on_host, resolve, to_host
from nnlite.errors import ShapeError
from nnlite.layout import Array
from nnlite.node import Value
from nnlite.ops import ArrayType
from nnlite.tensors import Tensor


class State(Tensor):
    """A tensor that owns its memory and counts the changes made to it.

    Arrays with more than two axes are stored channels-last, so that kernels take them as they are.
    ``writable`` is the one way to change them: a tape, a plan or a cache that used the old
    ones sees by ``version`` that it is stale.

    Where ``constant`` says that the array ``data`` never changes (it is a view of a file), :meth:`forget`
    gives the memory of elements back that nobody changed.
    """

    __slots__ = ("_source",)

    def __init__(self, data: Any, requires_grad: bool = False, *, constant: bool = False) -> None:
        self._source: Array | None = data if constant else None
        source = data._array if isinstance(data, Tensor) else data if is_array(data) else np.asarray(data)
        dtype = source.dtype
        if dtype == np.float64 and not isinstance(data, (np.ndarray, np.generic, Tensor)):
            dtype = np.dtype(np.float32)  # Python numbers
        super().__init__(_copy(source, dtype), _value=Value(type=ArrayType(source.shape, dtype)))
        self.requires_grad = requires_grad

    def __getattr__(self, name: str) -> Any:
        # Python asks here only for what is not there, such as elements that were forgotten.
        if name != "_array" or self._source is None:
            return super().__getattribute__(name)  # raises
        self._array = _copy(self._source, self._source.dtype)
        return self._array

    def forget(self) -> None:
        """Give the elements' memory back where they are those of a constant array, unchanged.

        They are copied again when they are asked for again.
        """
        if self._source is not None and not self.version:
            with suppress(AttributeError):  # not there
                del self._array

    @property
    def at_rest(self) -> Array:
        """The elements where they lie, for who looks at few of them: forgotten ones in their source."""
        # Asked of super(), an attribute that is not there stays so.
        forgotten = self._source is not None and not hasattr(super(), "_array")
        return self._source if forgotten else self.array  # type: ignore[return-value]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self._type.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type."""
        return self._type.dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements there are."""
        return prod(self.shape)

    @property
    def _type(self) -> ArrayType:
        assert self._value is not None and self._value.type is not None
        return self._value.type

    @property
    def version(self) -> int:
        """How often the elements were changed."""
        assert self._value is not None
        return self._value.version

    def assign(self, data: Any) -> None:
        """Replace all elements; ShapeError unless ``data`` has the same shape."""
        source = data._array if isinstance(data, Tensor) else data if is_array(data) else np.asarray(data)
        if source.shape != self.shape:
            raise ShapeError(f"assign: a tensor of shape {list(self.shape)} cannot hold {list(source.shape)}")
        if type(source) is not type(self._array):
            source = moved(source, self.device)
        self.writable()[...] = source

    def move(self, device: str) -> None:
        """Put the elements, and the gradient, on ``device`` (see :meth:`Tensor.to`), for good.

        It stays the same object, so that optimisers go on; who used the elements sees a new version.
        """
        name = resolve(device)
        if name == self.device:
            return
        self._array = moved(self._array, name)
        assert self._value is not None
        self._value.version += 1
        if self._value.grad is not None:
            self._value.grad = moved(self._value.grad, name)

    @property
    def array(self) -> Array:
        """A read-only view of the elements, which shows later changes; on a GPU CuPy's array itself."""
        if not on_host(self._array):
            return self._array
        view: Array = self._array.view()
        view.flags.writeable = False
        return view

    def detach(self) -> Tensor:
        """A tensor over a read-only view of the same elements, off the tape."""
        return Tensor(self.array)

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return type(self)(Tensor(self._array), self.requires_grad)

    def __reduce__(self) -> Any:
        # Pickle would forget the memory order; the constructor restores it, in the machine's memory.
        return type(self), (to_host(self._array).copy("C"), self.requires_grad)


def _copy(source: Array, dtype: np.dtype[Any]) -> Array:
    """The elements as a state has them: aligned, channels-last."""
    array = memory.empty(source.shape, dtype, like=source)
    array[...] = source
    return array


class Parameter(State):
    """A tensor to be learned: it requires gradients unless it is frozen.

    ``data`` (array, tensor, nested lists) is copied. Raises DTypeError unless it is floating-point.
    """

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True, *, constant: bool = False) -> None:
        super().__init__(data, requires_grad, constant=constant)
        autograd.check_differentiable(self.dtype)

    def __repr__(self) -> str:
        return f"Parameter({super().__repr__()})"


class Buffer(State):
    """A tensor that a module measures or is given, saved with its parameters but never learned."""

    __slots__ = ()
