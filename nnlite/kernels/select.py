"""Choosing a kernel variant: before execution, by geometry and element type alone, explainably.

The order of preference is ``native``, ``numba``, ``reference``, and for arrays of CuPy ``cuda``,
``numba-cuda``, ``cupy``. Within a backend the first registered variant that supports the geometry serves. A
backend that was asked for by name (``nl.use_backend``, ``NNLITE_BACKEND``) and cannot serve raises: it is
never replaced silently.
"""

from __future__ import annotations

import contextvars
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from nnlite import memory
from nnlite.errors import BackendError
from nnlite.geometry import Geometry, describe
from nnlite.kernels.spec import VARIANTS, DType, Preparation, Variant
from nnlite.layout import Array

DEVICES = {"cpu": ("native", "numba", "reference"), "cuda": ("cuda", "numba-cuda", "cupy")}
"""The backends for arrays of NumPy (cpu) and of CuPy (cuda), best first."""

BACKENDS = tuple(backend for backends in DEVICES.values() for backend in backends)
"""Every backend. Its module in ``nnlite.kernels`` registers its variants when imported."""

_MODULES = {
    "numba": "numba_cpu",
    "numba-cuda": "numba_cuda",
    "cupy": "on_cupy",
}  # where it is not called as the backend is

# Read once: every kernel call asks. Changed by use_backend.
_requested: contextvars.ContextVar[str] = contextvars.ContextVar(
    "nnlite_backend", default=os.environ.get("NNLITE_BACKEND", "") or "auto"
)
_recorder: contextvars.ContextVar[list[Decision] | None] = contextvars.ContextVar(
    "nnlite_decisions", default=None
)


@dataclass(frozen=True)
class Decision:
    """Which variant serves a kernel call, and why each one before it does not."""

    kernel: str
    geometry: Geometry
    dtype: DType
    variant: Variant
    rejected: tuple[tuple[str, str], ...]
    workspace: int
    """Bytes of scratch memory that ``run`` needs."""
    preparation: Preparation | None = None
    """How its weights are to be prepared, where that was asked for and the variant has a form of its own."""

    @property
    def run(self) -> Callable[..., None]:
        """The kernel: on prepared weights where there is a preparation."""
        return self.variant.run if self.preparation is None else self.preparation.run

    def __str__(self) -> str:
        text = f"{self.kernel}[{describe(self.geometry)}] {self.dtype}: {self.variant}"
        return text + "".join(f"\n    not {name}: {reason}" for name, reason in self.rejected)


@cache
def unavailable(backend: str) -> str | None:
    """None when ``backend`` can be used in this process, else the reason why not."""
    if backend not in BACKENDS:
        return f"there is no such backend; choose from {', '.join(BACKENDS)}"
    module = import_module(f"nnlite.kernels.{_MODULES.get(backend, backend)}")
    reason: str | None = module.unavailable()
    return reason


def requested_backend() -> str:
    """The backend asked for by name, or ``auto``."""
    return _requested.get()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block kernels come from backend ``name`` only (``auto``: the best that serves).

    Raises BackendError when the backend is not available.
    """
    if name != "auto" and (reason := unavailable(name)):
        raise BackendError(f"backend {name!r} cannot be used: {reason}")
    token = _requested.set(name)
    try:
        yield
    finally:
        _requested.reset(token)


@cache
def _announce(backend: str, reason: str) -> None:
    """Say once, in one line, that a better backend is missing; not to someone who switched it off."""
    if "switched off" not in reason:
        logging.getLogger("nnlite").warning(
            "nnlite: without the %s backend (%s) it is slower", backend, reason
        )


@lru_cache(maxsize=65536)
def _decide(
    kernel: str, geometry: Geometry, dtype: DType, requested: str, prepared: bool = False, device: str = "cpu"
) -> Decision:
    rejected: list[tuple[str, str]] = []
    served = DEVICES[device]
    for backend in served if requested == "auto" else (requested,):
        if reason := unavailable(backend):
            rejected.append((backend, reason))
            # One line: about the best backend that nobody switched off.
            better = served[: served.index(backend)] if backend in served else ()
            if device == "cpu" and all("switched off" in (unavailable(name) or "") for name in better):
                _announce(backend, reason)
            continue
        if backend not in served:
            rejected.append((backend, f"it does not compute on {device} arrays"))
            continue
        for variant in VARIANTS[kernel]:
            if variant.backend != backend:
                continue
            preparation = variant.preparation if prepared else None
            form = variant if preparation is None else preparation
            if reason := form.supports(geometry, dtype):
                rejected.append((str(variant), reason))
            else:
                size = form.workspace(geometry)
                return Decision(kernel, geometry, dtype, variant, tuple(rejected), size, preparation)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected) or "it has no variant of it"
    raise BackendError(
        f"{kernel}[{describe(geometry)}] {dtype}: backend {requested!r} cannot serve ({reasons}); "
        "use nl.use_backend('auto')"
    )


def select(
    kernel: str, geometry: Geometry, dtype: Any = np.float32, prepared: bool = False, device: str = "cpu"
) -> Decision:
    """The variant that serves ``kernel`` on ``geometry``, for arrays of ``device``.

    ``prepared``: weights stay as they are, so that a variant may have them in its own form
    (``Decision.preparation``). Raises BackendError with every reason when none can.
    """
    return _decide(kernel, geometry, np.dtype(dtype), requested_backend(), prepared, device)


def forget() -> None:
    """Ask anew what can be used: after a GPU came or went, which happens in tests."""
    unavailable.cache_clear()
    _decide.cache_clear()


def record(*decisions: Decision) -> None:
    """Tell ``explain``, where it listens, what serves the calls that follow."""
    if (listener := _recorder.get()) is not None:
        listener.extend(decisions)


def launch(kernel: str, geometry: Geometry, *operands: Array | None) -> None:
    """Select a variant and run it on ``operands``, inputs first, then outputs."""
    dtype, device = None, "cpu"
    for operand in operands:
        if operand is not None and operand.dtype.kind == "f":
            dtype = operand.dtype
            device = "cpu" if isinstance(operand, np.ndarray) else "cuda"
            break
    decision = _decide(kernel, geometry, dtype, _requested.get(), device=device)
    if (decisions := _recorder.get()) is not None:
        decisions.append(decision)
    scratch = memory.workspace(decision.workspace, operand) if decision.workspace else None
    decision.variant.run(geometry, *operands, scratch)


@dataclass(frozen=True)
class Explanation:
    """The kernel choices made during one call, in order; ``result`` is what the call returned."""

    result: Any
    decisions: tuple[Decision, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.decisions)) or "no kernel with a choice of variants ran"


def explain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Call ``function`` and report which kernel variants served it, and why not the others.

    >>> print(nl.explain(nl.functional.conv2d, x, w, stride=2))
    """
    decisions: list[Decision] = []
    token = _recorder.set(decisions)
    try:
        result = function(*args, **kwargs)
    finally:
        _recorder.reset(token)
    return Explanation(result, tuple(decisions))
