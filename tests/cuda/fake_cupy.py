"""A stand-in for CuPy, over NumPy, for machines without a GPU: what its arrays refuse, these refuse.

An array here is no ``np.ndarray`` and does not become one: ``np.asarray(x)`` raises as with CuPy, and so
does whatever mixes it with an array of NumPy. NumPy's functions reach it by the same protocols
(``__array_ufunc__``, ``__array_function__``), and only those that CuPy has, with parameters that CuPy's have:
``cupy_api.json`` lists what CuPy 13.6 and 14 share. What CuPy copies to the GPU silently (lists of
indices aside) is refused here, because it would hide a copy in every step. New memory is filled with NaN.

It shows that Python code is clean of hidden copies and of functions that CuPy lacks. It shows nothing about
kernels, streams or speed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from fake_cupy_array import API, AT, asarray, call, check_at, ndarray, plain_index, unwrap
from fake_cupy_device import Device, Event, OutOfMemoryError, Pool, State, Stream


class ElementwiseKernel:
    """As ``cupy.ElementwiseKernel``, of one type T: the expression as the C++ compiler has it, in a loop."""

    def __init__(self, in_params: str, out_params: str, operation: str, name: str) -> None:
        self.names = [part.split()[-1] for part in f"{in_params}, {out_params}".split(",")]
        self.written = len(out_params.split(","))
        self.operation = operation
        self.loops: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        assert len(args) == len(self.names)
        arrays = [isinstance(a, ndarray) for a in args]
        hosts = [unwrap(a, "ElementwiseKernel") for a in args]
        dtype = next(h.dtype for h, is_array in zip(hosts, arrays, strict=True) if is_array)
        size = max(h.size for h, is_array in zip(hosts, arrays, strict=True) if is_array)
        for host, is_array in zip(hosts, arrays, strict=True):
            assert not is_array or (host.dtype == dtype and host.size == size and host.flags.c_contiguous)
        loop = self.loops.get((tuple(arrays), dtype))
        if loop is None:
            loop = self.loops[tuple(arrays), dtype] = self._compile(arrays, dtype)
        real = ctypes.c_float if dtype == np.float32 else ctypes.c_double
        loop(
            size,
            *(
                h.ctypes.data_as(ctypes.c_void_p) if i else real(h)
                for h, i in zip(hosts, arrays, strict=True)
            ),
        )

    def _compile(self, arrays: list[bool], dtype: Any) -> Any:
        ends = zip(self.names, arrays, strict=True)
        head = ", ".join(f"T {'*_' if is_array else ''}{name}" for name, is_array in ends)
        inputs = [n for n, a in zip(self.names[: -self.written], arrays, strict=False) if a]
        outputs = self.names[-self.written :]
        text = "#include <cmath>\nusing namespace std;\ntypedef " + (
            "float" if dtype == np.float32 else "double"
        )
        text += f' T;\nextern "C" void run(long n, {head}) {{\n    for (long i = 0; i < n; ++i) {{\n        '
        text += " ".join([*(f"T {n} = _{n}[i];" for n in inputs), *(f"T {n};" for n in outputs)])
        text += (
            f" {self.operation};\n        " + " ".join(f"_{n}[i] = {n};" for n in outputs) + "\n    }\n}\n"
        )
        folder = Path(tempfile.gettempdir()) / f"nnlite-elementwise-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        library = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
        if not library.exists():
            source, unfinished = library.with_suffix(".cpp"), library.with_suffix(f".{os.getpid()}")
            source.write_text(text)
            compiler = shlex.split(os.environ.get("CXX") or "c++")
            command = [*compiler, "-std=c++17", "-O1", "-Wall", "-Wno-unused", "-Werror", "-shared", "-fPIC"]
            subprocess.run([*command, str(source), "-o", str(unfinished)], check=True)
            unfinished.rename(library)
        return ctypes.CDLL(str(library)).run


class Function:
    """``cupy.add``, and what it has besides being called."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return call(self.name, args, kwargs)

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        if self.name not in AT:
            raise NotImplementedError(f"`cupy_{self.name}.at` is not supported yet")
        check_at(self.name, a)
        getattr(np, self.name).at(a._host, plain_index(indices), unwrap(b, "at"))


def module() -> ModuleType:
    """What ``import cupy`` is to give."""
    cupy = ModuleType("cupy")
    for name in API:
        if "." not in name:
            setattr(cupy, name, Function(name))
    pool, pinned = Pool(), Pool()
    streams = SimpleNamespace(
        Device=Device,
        Stream=Stream,
        Event=Event,
        get_elapsed_time=lambda begin, end: (end.at - begin.at) * 1e3,
        get_current_stream=Stream,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=SimpleNamespace(
            getDeviceCount=lambda: State.count,
            getDeviceProperties=lambda number: {"name": b"Stand-in", "totalGlobalMem": 16_000_000_000},
            memGetInfo=lambda: (8_000_000_000, 16_000_000_000),
        ),
        alloc_pinned_memory=lambda size: memoryview(bytearray(size)),
    )
    for name, value in {
        "__version__": "13.6.0",
        "ndarray": ndarray,
        "asarray": asarray,
        "ElementwiseKernel": ElementwiseKernel,
        "asnumpy": lambda a, *rest, **more: a.get() if isinstance(a, ndarray) else np.asarray(a),
        "get_array_module": lambda *args: cupy if any(isinstance(a, ndarray) for a in args) else np,
        "from_dlpack": lambda a, **options: ndarray(np.from_dlpack(a)) if not isinstance(a, ndarray) else a,
        "cuda": streams,
        "get_default_memory_pool": lambda: pool,
        "get_default_pinned_memory_pool": lambda: pinned,
        "float32": np.float32,
        "float64": np.float64,
    }.items():
        setattr(cupy, name, value)
    return cupy


@contextmanager
def installed(monkeypatch: Any, extension: Any = None) -> Any:
    """Within the block there is a GPU with CuPy, or so it seems; ``extension`` stands in for nnlite._cuda."""
    from nnlite import device

    select = import_module("nnlite.kernels.select")
    forget = select.forget
    # Imported before anything is changed: they would keep what they import from nnlite.device for good.
    backends = {
        name: import_module(f"nnlite.kernels.{select._MODULES.get(name, name)}")
        for name in select.DEVICES["cuda"]
    }

    State.limit, State.used, State.to_device, State.to_host = None, 0, 0, 0
    State.count, State.in_use = 1, 0
    monkeypatch.setitem(sys.modules, "cupy", module())
    import_module("nnlite.kernels.cupy_elementwise")._compiled.cache_clear()
    monkeypatch.setattr(device, "missing_driver", lambda: None)
    if extension is not None:
        cuda = import_module("nnlite.kernels.cuda")
        monkeypatch.setattr(cuda, "_load", lambda: (extension, None))
        monkeypatch.setattr(cuda, "_stream", lambda: 0)
        cuda._function.cache_clear()
        cuda._capability.cache_clear()
    for name in backends.keys() - ({"cupy"} if extension is None else {"cupy", "cuda"}):
        monkeypatch.setattr(backends[name], "unavailable", lambda: "its kernels need a GPU")
    forget()
    try:
        yield State
    finally:
        monkeypatch.undo()
        forget()
        if extension is not None:
            cuda._function.cache_clear()
            cuda._capability.cache_clear()
