"""The stand-in for CuPy: it refuses what CuPy refuses, and knows nothing that CuPy lacks."""

from __future__ import annotations

import inspect
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def cupy(gpu):
    return import_module("cupy")


@pytest.mark.parametrize(
    "use",
    [
        np.asarray,
        np.array,
        lambda x: np.ones(2) + x,
        lambda x: x * np.ones(2),
        lambda x: np.concatenate([x, np.ones(2)]),
        lambda x: np.where(np.array([True, False]), x, x),
        lambda x: x[np.array([0, 1])],
        lambda x: x.__setitem__(slice(None), np.ones(2)),
        lambda x: np.max(x, initial=0),
        lambda x: np.ones(3, like=x),  # NumPy passes a device that CuPy's ones does not take
        lambda x: np.add.at(x, (np.zeros(1, int, like=x),), 1.0),
        lambda x: np.add(x, x, where=True),
        lambda x: range(3)[x[0].astype(int)],
        lambda x: np.lib.stride_tricks.as_strided(x, (1,), (8,)),
    ],
)
def test_it_refuses(cupy, use):
    x = cupy.asarray(np.array([1.0, 2.0]))
    with pytest.raises((TypeError, ValueError)):
        use(x)


def test_results_are_arrays_even_without_axes(cupy):
    x = cupy.asarray(np.array([1.0, 2.0]))
    for result in (x.sum(), x[0], np.add(x[0], 1), np.mean(x)):
        assert type(result) is cupy.ndarray
        assert result.shape == ()


def test_new_memory_is_poisoned(cupy):
    assert np.isnan(np.empty(3, np.float32, like=cupy.zeros(1))).all()


def test_it_knows_nothing_that_cupy_lacks(monkeypatch):
    if find_spec("cupy") is None:
        pytest.skip("there is no CuPy to compare with (nnlite[cuda12], nnlite[cuda13])")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import fake_cupy

    real, wrong = import_module("cupy"), []
    for name, parameters in fake_cupy.API.items():
        function = real
        for part in name.split("."):
            function = getattr(function, part, None)
        if function is None:
            wrong.append(f"{name} is not there")
        elif parameters == "ufunc" or name == "size":
            if parameters == "ufunc" and not isinstance(function, real.ufunc):
                wrong.append(f"{name} is no ufunc")
        else:
            known = inspect.signature(function).parameters.values()
            if any(p.kind is p.VAR_KEYWORD for p in known):
                continue
            names = {"args" if p.kind is p.VAR_POSITIONAL else p.name for p in known}
            if more := set(parameters.split()) - names:
                wrong.append(f"{name} has no {', '.join(sorted(more))}")
    assert not wrong, wrong
