"""What can run here: for people (``nnlite backends``) and for bug reports."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from nnlite import threads
from nnlite.kernels.native import native_info
from nnlite.kernels.select import BACKENDS, requested_backend, unavailable


def processor_name() -> str:
    """The model's name where the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _detail(backend: str) -> str:
    if backend == "reference":
        return f"NumPy {np.__version__}"
    if backend.startswith("numba"):
        from nnlite.kernels.numba_cpu.launch import numba_info

        return numba_info()
    info = native_info() if backend == "native" else None
    if info is None:
        return ""
    return f"instruction set {info.isa} (usable here: {', '.join(info.usable_isas)})"


def describe_backends() -> dict[str, Any]:
    """Every backend in order of preference with the reason why it is not available, and the threads."""
    rows = [{"name": name, "reason": unavailable(name), "detail": _detail(name)} for name in BACKENDS]
    return {"backends": rows, "threads": threads.get_num_threads(), "requested": requested_backend()}
