"""The array of the stand-in for CuPy, and how NumPy's functions reach it; see ``fake_cupy.py``."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from fake_cupy_device import Device, State, charge, poison

API: dict[str, str] = json.loads(Path(__file__).with_name("cupy_api.json").read_text())
AT = {"add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor"}
METHODS = {"at": AT, "reduce": {"add", "multiply"}, "accumulate": {"add", "multiply"}, "reduceat": {"add"}}
HOST = {"array", "asarray", "asanyarray"}  # the functions that are there to copy from the host
SCALARS = (bool, int, float, complex, np.generic)


def wrap(result: Any) -> Any:
    """NumPy's results as CuPy would have them: arrays without axes where NumPy has scalars."""
    if isinstance(result, (np.ndarray, np.generic)):
        host = np.asarray(result)
        if isinstance(result, np.generic) or result.base is None:
            charge(host.nbytes)
        return ndarray(host)
    if isinstance(result, (tuple, list)):
        return type(result)(map(wrap, result)) if type(result) in (tuple, list) else tuple(map(wrap, result))
    return result


def unwrap(item: Any, name: str) -> Any:
    """The hosts of arrays, wherever they stand among arguments; an array of NumPy is refused."""
    if isinstance(item, ndarray):
        return item._host
    if isinstance(item, np.ndarray) and name not in HOST:
        raise TypeError(f"cupy.{name}: Unsupported type {type(item)}")
    if isinstance(item, (tuple, list)):
        return type(item)(unwrap(one, name) for one in item)
    if isinstance(item, slice) and any(isinstance(i, ndarray) for i in (item.start, item.stop, item.step)):
        raise TypeError("slice indices must be integers: CuPy's arrays have no __index__")
    return item


def call(name: str, args: Any, kwargs: Any) -> Any:
    """``numpy.<name>`` on the hosts, if CuPy has it and takes these parameters."""
    if API[name] != "ufunc":
        allowed = API[name].split()
        if "kwargs" not in allowed and (unknown := set(kwargs) - set(allowed)):
            raise TypeError(f"cupy.{name}() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        if "args" not in allowed and len(args) > len(allowed):
            raise TypeError(f"cupy.{name}() takes {len(allowed)} positional arguments but got {len(args)}")
    elif "where" in kwargs:
        raise TypeError(f"cupy.{name}: wrong arguments where")
    function: Any = np
    for part in name.split("."):
        function = getattr(function, part)
    if name in HOST and args and isinstance(args[0], np.ndarray):
        State.to_device += args[0].nbytes
    result = function(*(unwrap(a, name) for a in args), **{k: unwrap(v, name) for k, v in kwargs.items()})
    out = kwargs.get("out")
    if isinstance(out, tuple):
        out = out[0]
    if isinstance(out, ndarray):
        return out
    if name in HOST | {"ascontiguousarray"} and args and isinstance(args[0], ndarray):
        return args[0] if result is args[0]._host else wrap(result)
    if name in HOST and isinstance(result, np.ndarray) and any(result is a for a in args):
        result = result.copy("K")
    return wrap(poison(result) if name in ("empty", "empty_like") else result)


class ndarray:
    """An array "on the device"; ``_host`` is where its elements are."""

    __module__ = "cupy"
    __slots__ = ("__weakref__", "_host")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray) -> None:
        self._host = host

    # ------------------------------------------------------------------- what NumPy asks of it

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = ufunc.__name__
        if name not in API or any(not isinstance(x, (ndarray, np.ndarray, *SCALARS)) for x in inputs):
            return NotImplemented
        if method in ("__call__", "outer"):
            if method == "outer":
                a, b = (unwrap(x, name) for x in inputs)
                return wrap(ufunc.outer(a, b))
            if unknown := set(kwargs) - {"out", "dtype", "casting", "axes", "axis", "keepdims"}:
                raise TypeError(f"cupy.{name}: wrong arguments {unknown}")
            return call(name, inputs, kwargs)
        if name not in METHODS[method]:
            raise NotImplementedError(f"`cupy_{name}.{method}` is not supported yet")
        if method == "at":
            check_at(name, inputs[0])
        arguments = [x if x is None else unwrap(x, f"{name}.{method}") for x in inputs]
        return wrap(getattr(ufunc, method)(*arguments, **kwargs))

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = ".".join([*function.__module__.split(".")[1:], function.__name__])
        if name not in API or not all(issubclass(t, (ndarray, np.ndarray)) for t in types):
            return NotImplemented
        return call(name, args, kwargs)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        known = dict(self._host.__array_interface__)
        known.pop("descr")
        return {**known, "strides": self._host.strides, "version": 3, "stream": 1}

    def __dlpack__(self, *, stream: Any = None, max_version: Any = None, **options: Any) -> Any:
        return self._host.__dlpack__(max_version=max_version)

    def __dlpack_device__(self) -> Any:
        return (2, 0)  # kDLCUDA

    # ---------------------------------------------------------------------------- attributes

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    strides = property(lambda self: self._host.strides)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    flags = property(lambda self: _Flags(self._host.flags))
    T = property(lambda self: ndarray(self._host.T))
    base = property(lambda self: None if self._host.base is None else ndarray(self._host))
    data = property(lambda self: SimpleNamespace(ptr=self._host.ctypes.data, device_id=0))
    device = property(lambda self: Device(0))

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        return wrap_view(self._host[plain_index(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._host[plain_index(index)] = (
            unwrap(value, "ndarray.__setitem__") if not isinstance(value, np.ndarray) else value
        )

    def __bool__(self) -> bool:
        return bool(self._host)

    def __int__(self) -> int:
        return int(self._host)

    def __float__(self) -> float:
        return float(self._host)

    def __repr__(self) -> str:
        return repr(self._host)

    def __reduce__(self) -> Any:
        return asarray, (self._host,)

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy("K")

    # --------------------------------------------------------------- methods, with CuPy's parameters

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> np.ndarray:
        State.to_host += self.nbytes
        return np.array(self._host, order=order)  # type: ignore[call-overload]

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        assert arr.dtype == self.dtype and arr.shape == self.shape, "CuPy copies bytes"
        State.to_device += arr.nbytes
        self._host[...] = arr

    def item(self) -> Any:
        return self._host.item()

    def tolist(self) -> Any:
        return self._host.tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return self._host.tobytes(order)  # type: ignore[arg-type]

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> Any:
        host = self._host.astype(dtype, order, copy=copy)  # type: ignore[call-overload]
        return self if host is self._host else wrap(host)

    def copy(self, order: str = "C") -> Any:
        return wrap(self._host.copy(order))  # type: ignore[arg-type]

    def view(self, dtype: Any = None, type: Any = None) -> Any:
        return ndarray(self._host.view() if dtype is None else self._host.view(dtype))

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        return wrap_view(self._host.reshape(*unwrap(shape, "reshape"), order=order))  # type: ignore[call-overload]

    def transpose(self, *axes: Any) -> Any:
        return ndarray(self._host.transpose(*axes))

    def swapaxes(self, axis1: int, axis2: int) -> Any:
        return ndarray(self._host.swapaxes(axis1, axis2))

    def squeeze(self, axis: Any = None) -> Any:
        return ndarray(self._host.squeeze(axis))

    def ravel(self, order: str = "C") -> Any:
        return wrap_view(self._host.ravel(order))  # type: ignore[arg-type]

    def flatten(self, order: str = "C") -> Any:
        return wrap(self._host.flatten(order))  # type: ignore[arg-type]

    def fill(self, value: Any) -> None:
        self._host.fill(unwrap(value, "fill"))

    def take(self, indices: Any, axis: Any = None, out: Any = None) -> Any:
        return call("take", (self, indices, axis), {} if out is None else {"out": out})

    def repeat(self, repeats: Any, axis: Any = None) -> Any:
        return wrap(self._host.repeat(repeats, axis))

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        self._host.sort(axis, kind)

    def argsort(self, axis: int = -1, kind: Any = None) -> Any:
        return wrap(self._host.argsort(axis, "stable"))

    def nonzero(self) -> Any:
        return wrap(self._host.nonzero())

    def round(self, decimals: int = 0, out: Any = None) -> Any:
        return wrap(self._host.round(decimals))

    def clip(self, min: Any = None, max: Any = None, out: Any = None) -> Any:
        return call("clip", (self, min, max), {} if out is None else {"out": out})

    def dot(self, b: Any, out: Any = None) -> Any:
        return call("dot", (self, b), {})

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
        return ndarray(self._host.diagonal(offset, axis1, axis2))

    def cumsum(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        return wrap(self._host.cumsum(axis, dtype))

    def cumprod(self, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        return wrap(self._host.cumprod(axis, dtype))


class _Flags:
    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous, self.owndata = (
            flags.c_contiguous,
            flags.f_contiguous,
            flags.owndata,
        )


def wrap_view(result: Any) -> Any:
    """As :func:`wrap`; what may be a view is not charged."""
    return ndarray(np.asarray(result))


def check_at(name: str, array: ndarray) -> None:
    """The types that CuPy 13.6 adds, maximises, ... in place by atomics."""
    if array.dtype.name not in ("int32", "uint32", "uint64", "float32", "float64"):
        raise TypeError(f"cupy.{name}.at does not support {array.dtype}")


def plain_index(index: Any) -> Any:
    """An index as NumPy takes it; TypeError where it holds an array of NumPy."""
    if isinstance(index, np.ndarray) or (
        isinstance(index, tuple) and any(isinstance(one, np.ndarray) for one in index)
    ):
        raise TypeError("an index of NumPy's would be copied to the GPU every time")
    return unwrap(index, "ndarray.__getitem__")


def _reduction(name: str, parameters: tuple[str, ...]) -> Any:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        if unknown := set(kwargs) - set(parameters):
            raise TypeError(f"cupy.ndarray.{name}() got an unexpected keyword argument {unknown}")
        named = dict(zip(parameters, args, strict=False)) | kwargs
        out = named.pop("out", None)
        result = getattr(self._host, name)(**named)
        if out is not None:
            out._host[...] = result
            return out
        return wrap(result)

    return method


for _name in ("sum", "prod", "mean"):
    setattr(ndarray, _name, _reduction(_name, ("axis", "dtype", "out", "keepdims")))
for _name in ("max", "min", "all", "any"):
    setattr(ndarray, _name, _reduction(_name, ("axis", "out", "keepdims")))
for _name in ("argmax", "argmin"):
    setattr(ndarray, _name, _reduction(_name, ("axis", "out", "dtype", "keepdims")))
for _name in ("var", "std"):
    setattr(ndarray, _name, _reduction(_name, ("axis", "dtype", "out", "ddof", "keepdims")))


def _operator(name: str, ufunc: Any) -> None:
    def forward(self: ndarray, other: Any) -> Any:
        return _binary(ufunc, self, other)

    def backward(self: ndarray, other: Any) -> Any:
        return _binary(ufunc, other, self)

    def in_place(self: ndarray, other: Any) -> Any:
        ufunc(self._host, unwrap(other, name), out=self._host, casting="same_kind")
        return self

    setattr(ndarray, f"__{name}__", forward)
    setattr(ndarray, f"__r{name}__", backward)
    setattr(ndarray, f"__i{name}__", in_place)


def _binary(ufunc: Any, a: Any, b: Any) -> Any:
    if any(not isinstance(x, (ndarray, np.ndarray, *SCALARS)) for x in (a, b)):
        return NotImplemented
    return wrap(ufunc(unwrap(a, ufunc.__name__), unwrap(b, ufunc.__name__)))


for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
    "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "matmul": np.matmul,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift,
    "rshift": np.right_shift,
}.items():  # fmt: skip
    _operator(_name, _ufunc)
for _name, _ufunc in {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal,
}.items():  # fmt: skip
    setattr(ndarray, f"__{_name}__", lambda self, other, ufunc=_ufunc: _binary(ufunc, self, other))
for _name, _ufunc in {"neg": np.negative, "abs": np.absolute, "invert": np.invert}.items():
    setattr(ndarray, f"__{_name}__", lambda self, ufunc=_ufunc: wrap(ufunc(self._host)))


def asarray(a: Any, dtype: Any = None, order: Any = None, blocking: bool = False) -> Any:
    """As ``cupy.asarray``: from the host, a copy."""
    if isinstance(a, ndarray):
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)
    State.to_device += np.asarray(a).nbytes
    return wrap(np.array(a, dtype=dtype, order=order or "K"))
