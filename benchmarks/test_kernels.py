"""Every kernel under pytest-benchmark, to find out whether a change made one slower:

    pytest benchmarks --benchmark-save=before
    pytest benchmarks --benchmark-compare=0001 --benchmark-compare-fail=median:20%

The layers are those of ``nnlite bench kernels``, the samples those of the kernels' tests.
"""

from __future__ import annotations

import pytest

from nnlite.bench.cases import KERNEL_CASES, KernelCase
from nnlite.bench.layers import own_call, random_inputs
from nnlite.kernels import SPECS


@pytest.mark.parametrize("case", KERNEL_CASES, ids=lambda case: f"{case.kernel}-{case.name}")
def test_layer(benchmark, case):
    benchmark(own_call(case, random_inputs(case)))


@pytest.mark.parametrize("kernel", SPECS)
def test_largest_sample(benchmark, kernel):
    spec = SPECS[kernel]
    case = KernelCase("sample", kernel, kernel, max(spec.samples(), key=spec.flops), absent=frozenset())
    benchmark(own_call(case, random_inputs(case)))
