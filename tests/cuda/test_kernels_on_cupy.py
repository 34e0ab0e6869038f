"""Every kernel of the backend ``cupy`` x every sample, on the stand-in for CuPy, against float64."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "kernels"))

from kernel_harness import FLOAT32, cases, failures

from nnlite import device
from nnlite.kernels import SPECS, VARIANTS, unavailable

unavailable("cupy")  # importing a backend registers its variants
ROWS = [(kernel, v.name) for kernel, variants in VARIANTS.items() for v in variants if v.backend == "cupy"]


def _there(variant):
    """The variant, taking NumPy's arrays: they go there, and results come back."""
    spec = SPECS[variant.kernel]
    names = (*spec.inputs, *spec.outputs)

    def run(geometry, *operands):
        given, scratch = operands[: len(names)], operands[len(names) :]
        moved = {id(a): a if n in spec.host or a is None else device.moved(a, "cuda:0")
                 for n, a in zip(names, given, strict=True)}  # fmt: skip
        variant.run(geometry, *(moved[id(a)] for a in given), *scratch)
        for name, array in zip(names, given, strict=True):
            if name in spec.outputs and array is not None:
                array[...] = device.to_host(moved[id(array)])

    return replace(variant, run=run)


@pytest.mark.parametrize(("kernel", "name"), ROWS)
def test_results(gpu, kernel, name):
    (variant,) = (v for v in VARIANTS[kernel] if (v.backend, v.name) == ("cupy", name))
    wrong, checked = [], 0
    for geometry, absent in islice(cases(SPECS[kernel], variant), 0, None, 3):
        checked += 1
        wrong += failures(_there(variant), geometry, absent, FLOAT32)
    assert checked
    assert not wrong, wrong[:5]


@pytest.mark.parametrize("kernel", ["combine", "activation_backward", "function_forward", "sgd_step"])
def test_one_pass_comes_first(gpu, kernel):
    geometry = next(iter(SPECS[kernel].samples()))
    (first, *_) = (v for v in VARIANTS[kernel] if v.backend == "cupy")
    assert first.name == "one pass"
    assert first.supports(geometry, np.dtype(np.float16)) == "float32 and float64 only"
