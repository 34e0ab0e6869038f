"""Where arrays live: NumPy's in the machine's memory ("cpu"), CuPy's on an NVIDIA GPU ("cuda").

Ops are written once, in NumPy's words. Its functions hand CuPy's arrays to CuPy's function of the same name
(NEP 13 and 18), and those that make an array out of nothing are told where by ``like=`` (NEP 35). So an op
never asks where it runs; whoever has to know asks here, and CuPy is imported here when it is first used.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np

from nnlite.errors import ConfigError, DeviceError, OutOfMemoryError
from nnlite.layout import Array

CPU = "cpu"


# ------------------------------------------------------------------------------- is there a GPU?


@cache
def missing_driver() -> str | None:
    """None when the NVIDIA driver finds a GPU, else what is missing. Asks the driver, in milliseconds."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "this machine has no NVIDIA driver (libcuda)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return "the NVIDIA driver finds no GPU"
    return None


def why_unavailable() -> str | None:
    """None when arrays can live on a GPU, else what is missing: the driver, a GPU, or CuPy."""
    if reason := missing_driver():
        return reason
    if "cupy" not in sys.modules and find_spec("cupy") is None:
        return "CuPy is not installed; pip install nnlite[cuda12], or nnlite[cuda13] for CUDA 13"
    return None


def is_available() -> bool:
    """Whether ``to("cuda")`` works here."""
    return why_unavailable() is None


def device_count() -> int:
    """How many GPUs there are: 0 without a driver or CuPy."""
    return int(cupy_module().cuda.runtime.getDeviceCount()) if is_available() else 0


def cupy_module() -> ModuleType:
    """CuPy, imported when it is first asked for."""
    return import_module("cupy")


def resolve(device: str) -> str:
    """``device`` by its full name: "cpu", or "cuda:0" for "cuda" and, where there is a GPU, for "auto".

    Raises ConfigError for another name, DeviceError that says what is missing where there is no such GPU.
    """
    if device == CPU or (device == "auto" and not is_available()):
        return CPU
    known = re.fullmatch(r"auto|cuda(?::(\d+))?", str(device))
    if known is None:
        raise ConfigError(f"device={device!r} must be 'cpu', 'cuda', 'cuda:<number>' or 'auto'")
    if reason := why_unavailable():
        raise DeviceError(f"device {device!r} cannot be used: {reason}; use device 'cpu'")
    number, count = int(known[1] or 0), device_count()
    if number >= count:
        raise DeviceError(f"device {device!r} does not exist: there are {count}, numbered from 0")
    return f"cuda:{number}"


def use(device: str) -> str:
    """Make ``device`` the one in use, and return its full name; raises what :func:`resolve` raises.

    CuPy computes on the GPU in use, "cuda:0" at first, in each thread. Only who has several needs this.
    """
    name = resolve(device)
    if name != CPU:
        cupy_module().cuda.Device(int(name.partition(":")[2])).use()
    return name


def describe(device: str) -> str:
    """A device, as :func:`resolve` names it, with its model and memory: ``cuda:0 (NVIDIA H100, 80 GB)``."""
    if device == CPU:
        return CPU
    known = cupy_module().cuda.runtime.getDeviceProperties(int(device.partition(":")[2]))
    return f"{device} ({known['name'].decode()}, {known['totalGlobalMem'] / 1e9:.0f} GB)"


# ----------------------------------------------------------------------------- where is an array?


def array_module(array: Any) -> ModuleType:
    """The module whose array it is: ``numpy`` or ``cupy``."""
    return np if isinstance(array, (np.ndarray, np.generic)) else sys.modules["cupy"]


def is_array(data: Any) -> bool:
    """Whether ``data`` is an array of NumPy, or of CuPy where that was imported."""
    cupy = sys.modules.get("cupy")
    return isinstance(data, np.ndarray) or (cupy is not None and isinstance(data, cupy.ndarray))


def on_host(array: Any) -> bool:
    """Whether it is NumPy's: an array, or the scalar that NumPy has for one without axes."""
    return isinstance(array, (np.ndarray, np.generic))


def device_of(array: Any) -> str:
    """Where an array lives: "cpu", "cuda:0", ..."""
    return CPU if isinstance(array, (np.ndarray, np.generic)) else f"cuda:{array.device.id}"


def check_one_device(what: str, arrays: Iterable[Any]) -> None:
    """DeviceError, which names ``what``, unless all arrays (None is none) live on one device."""
    found = dict.fromkeys(device_of(array) for array in arrays if array is not None)
    if len(found) > 1:
        listed = [device_of(array) for array in arrays if array is not None]
        raise DeviceError(
            f"{what}: its operands are on {', '.join(listed)}, and one op computes on one device; "
            f"move them with .to({next(name for name in found if name != CPU)!r}) or .to('cpu')"
        )


# --------------------------------------------------------------------------------------- moving


def dense(array: Any) -> tuple[Any, list[int]]:
    """``array`` with its axes in the order of memory, and the axes that undo it."""
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    return array.transpose(order), sorted(range(array.ndim), key=order.__getitem__)


def to_host(array: Any) -> Array:
    """``array`` in NumPy's memory, in the same memory order; itself where it is there already."""
    if on_host(array):
        return np.asarray(array)
    ordered, back = dense(array)
    host: Array = ordered.get().transpose(back)
    return host


def moved(array: Any, device: str) -> Array:
    """``array`` on ``device`` (as :func:`resolve` names it), in the same memory order; itself if it is there.

    Raises OutOfMemoryError when the device has no room for it.
    """
    if device_of(array) == device:
        same: Array = array
        return same
    host = to_host(array)
    if device == CPU:
        return host
    cupy = cupy_module()
    ordered, back = dense(host)
    with cupy.cuda.Device(int(device.partition(":")[2])):
        try:
            there: Array = cupy.asarray(ordered, order="C").transpose(back)
        except MemoryError as error:
            raise out_of_memory(f"moving {host.dtype}{list(host.shape)} to {device}", error) from error
    return there


def from_dlpack(data: Any) -> Array:
    """An array over the memory of ``data``, which exports DLPack: NumPy's or CuPy's, as its device says.

    Raises DeviceError for memory of neither, or of a GPU without CuPy.
    """
    kind, _ = data.__dlpack_device__()
    if kind in _DLPACK_HOST:
        array: Array = np.from_dlpack(data)
        return array
    if kind not in _DLPACK_CUDA:
        raise DeviceError(
            f"asarray: memory of DLPack's device type {kind} cannot be used; copy it to the CPU"
        )
    return _interchange().from_dlpack(data)  # type: ignore[no-any-return]


def from_cuda_interface(data: Any) -> Array:
    """A CuPy array over memory that has a ``__cuda_array_interface__``; DeviceError without CuPy."""
    return _interchange().asarray(data)  # type: ignore[no-any-return]


_DLPACK_HOST, _DLPACK_CUDA = (1, 3), (2, 13)  # kDLCPU, kDLCUDAHost; kDLCUDA, kDLCUDAManaged


def _interchange() -> ModuleType:
    if reason := why_unavailable():
        raise DeviceError(f"asarray: the array lies on a GPU, which cannot be used: {reason}")
    return cupy_module()


# --------------------------------------------------------------------------------- out of memory


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB"


def out_of_memory(what: str, error: MemoryError) -> OutOfMemoryError:
    """What to raise in place of ``error``: how much was asked for, how much is in use, what to change."""
    if isinstance(error, OutOfMemoryError):
        return error
    text = f"{what}: out of memory ({str(error).rstrip('.') or 'no reason given'})"
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(error, cupy.cuda.memory.OutOfMemoryError):
        with suppress(Exception):  # the driver may not answer any more, and this is to be told all the same
            free, total = cupy.cuda.runtime.memGetInfo()
            pool = cupy.get_default_memory_pool()
            text += (
                f"; the GPU has {_gigabytes(total)}, {_gigabytes(free)} of them free; nnlite uses "
                f"{_gigabytes(pool.used_bytes())} and keeps {_gigabytes(pool.free_bytes())} for reuse"
            )
    return OutOfMemoryError(
        f"{text}; use smaller batches (--batch-size, or --retry-smaller that splits them) or smaller pictures"
    )


def release() -> None:
    """Give the memory that CuPy keeps for reuse back to the driver; nothing without CuPy."""
    if (cupy := sys.modules.get("cupy")) is not None:
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()


def synchronize() -> None:
    """Wait until the GPU has done all that was asked of it; nothing without CuPy."""
    if (cupy := sys.modules.get("cupy")) is not None:
        cupy.cuda.get_current_stream().synchronize()
