"""The seeds of random operations (dropout, initialisation): a counter, so that runs can be repeated.

Data augmentation has a generator of its own, keyed by (seed, epoch, sample): ``nnlite.data.random``.
"""

from __future__ import annotations

import threading

import numpy as np

from nnlite.errors import ConfigError

_lock = threading.Lock()
_state = {"seed": 0, "counter": 0}


def manual_seed(seed: int) -> None:
    """Start the sequence of random operations anew from ``seed``; ConfigError below 0."""
    if seed < 0:
        raise ConfigError(f"manual_seed: seed={seed} must not be negative")
    with _lock:
        _state.update(seed=int(seed), counter=0)


def get_state() -> tuple[int, int]:
    """Where the sequence of random operations stands: (seed, how many there were)."""
    with _lock:
        return _state["seed"], _state["counter"]


def set_state(state: tuple[int, int]) -> None:
    """Go on from where :func:`get_state` was."""
    with _lock:
        _state.update(seed=state[0], counter=state[1])


def next_seed() -> int:
    """The next seed of the sequence: a hash of (manual seed, counter)."""
    with _lock:
        _state["counter"] += 1
        key = (_state["seed"], _state["counter"])
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def generator() -> np.random.Generator:
    """A generator seeded with the next seed."""
    return np.random.Generator(np.random.Philox(next_seed()))
