"""Calling what Numba compiled: on the right number of threads, one call at a time, announced once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from nnlite import threads
from nnlite.kernels.spec import DType
from nnlite.layout import Array

_lock = threading.RLock()


def _unlock_in_child() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


def unavailable() -> str | None:
    """None when Numba is installed, else what to do; never imports it."""
    if find_spec("numba") is None:
        return "Numba is not installed; pip install nnlite[numba]"
    return None


def numba_info() -> str:
    """Which Numba is installed; asked of the installation, so that it need not be imported."""
    return f"Numba {version('numba')}" if unavailable() is None else ""


@cache
def _announce() -> None:
    logging.getLogger("nnlite").warning(
        "nnlite: Numba compiles kernels; this takes seconds, and later runs find them on disk"
    )


@cache
def _listener() -> Any:
    from numba.core import event

    class Announcer(event.Listener):  # type: ignore[misc] # numba has no types
        """Numba tells of a compilation after it has looked for the code on disk."""

        def on_start(self, event: Any) -> None:
            _announce()

        def on_end(self, event: Any) -> None:
            pass

    return Announcer()


@cache
def _numba() -> Any:
    """Numba, told to use threads that survive a fork unless the user chose others or they run already.

    By default it takes GNU OpenMP where that is installed, which ends every forked child that computes.
    """
    import numba

    try:
        numba.threading_layer()
    except ValueError:  # no threads yet
        if numba.config.THREADING_LAYER == "default":
            numba.config.THREADING_LAYER = "forksafe"
    return numba


@contextmanager
def session() -> Iterator[None]:
    """Numba set up for nnlite's kernels: its threads, their number, one caller at a time.

    Numba's simplest thread pool ends the process when two threads launch at once, so callers queue.
    The number of threads is Numba's own setting per thread, and it is put back.
    """
    numba = _numba()
    from numba.core import event

    with _lock, event.install_listener("numba:compile", _listener()):
        before = numba.get_num_threads()
        numba.set_num_threads(min(threads.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        try:
            yield
        finally:
            numba.set_num_threads(before)


@cache
def compiled(module: str) -> Any:
    """Module ``jit.<module>``, imported when the first kernel of its kind is launched."""
    return import_module(f"nnlite.kernels.numba_cpu.jit.{module}")


def flat(array: Array) -> Array:
    """A channels-last array [N,C,H,W] as one row of its elements in memory; never copies."""
    view: Array = array.transpose(0, 2, 3, 1).reshape(-1)
    assert not view.size or np.may_share_memory(view, array), "kernels take channels-last arrays"
    return view


def floating(dtype: DType) -> str | None:
    """None for the types that kernels are compiled for, else the reason."""
    return None if dtype in (np.float32, np.float64) else "float32 and float64 only"
