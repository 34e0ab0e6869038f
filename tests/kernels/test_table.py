"""Every kernel x every variant of every available backend x every sample, against the float64 reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernel_harness import FLOAT32, FLOAT64, cases, failures, random_inputs

from nnlite.kernels import SPECS, VARIANTS, unavailable
from nnlite.kernels.select import DEVICES


def rows():
    return list(_rows())


def _rows():
    """What computes on NumPy's arrays; for a GPU's see test_cuda.py and test_numba_cuda.py."""
    for backend in DEVICES["cpu"]:
        unavailable(backend)  # importing a backend registers its variants
    for name, variants in VARIANTS.items():
        for variant in variants:
            if variant.backend in DEVICES["cpu"]:
                yield pytest.param(name, variant, id=f"{name}-{variant}")


def check(kernel, variant, prepared, dtype=FLOAT32, every=1):
    if reason := unavailable(variant.backend):
        pytest.skip(f"{variant.backend}: {reason}")
    form = variant.preparation if prepared else variant
    served = list(cases(SPECS[kernel], form, dtype))
    assert served, "no sample tests this variant"
    found = [f for g, absent in served[::every] for f in failures(variant, g, absent, dtype, prepared)]
    assert not found, f"{len(found)} failures:\n" + "\n".join(found[:20])


@pytest.mark.parametrize(("kernel", "variant"), rows())
def test_variant(kernel, variant):
    check(kernel, variant, prepared=False)


def rows_with_preparation():
    return [row for row in _rows() if row.values[1].preparation is not None]


@pytest.mark.parametrize(("kernel", "variant"), rows_with_preparation())
def test_prepared_variant(kernel, variant):
    check(kernel, variant, prepared=True)


@pytest.mark.parametrize(("kernel", "variant"), rows_with_preparation())
def test_prepared_weights_do_not_depend_on_the_picture(kernel, variant):
    """Geometries of one key share what was prepared, whatever the batch and the size."""
    if reason := unavailable(variant.backend):
        pytest.skip(f"{variant.backend}: {reason}")
    form, spec = variant.preparation, SPECS[kernel]
    known = {}
    for g in spec.samples():
        if variant.supports(g, FLOAT32):
            continue
        weights = random_inputs(spec, g)[form.operand]
        for geometry in (g, replace(g, N=7 * g.N)):
            prepared = np.zeros(form.size(geometry), np.uint8)  # padding need not be written
            form.prepare(geometry, np.ones_like(weights), prepared)
            np.testing.assert_array_equal(prepared, known.setdefault(form.key(geometry), prepared))


def rows_in_float64():
    return list(_rows_in_float64())


def _rows_in_float64():
    """Variants that serve float64 too; the reference would be compared with itself."""
    for row in _rows():
        kernel, variant = row.values
        samples = SPECS[kernel].samples()
        if variant.backend != "reference" and any(not variant.supports(g, FLOAT64) for g in samples):
            yield row


@pytest.mark.parametrize(("kernel", "variant"), rows_in_float64())
def test_variant_in_float64(kernel, variant):
    # Types differ in what was compiled, not in how a geometry is cut.
    check(kernel, variant, prepared=False, dtype=FLOAT64, every=5)


@pytest.mark.parametrize("kernel", SPECS)
def test_every_kernel_has_a_reference_that_serves_all(kernel):
    spec = SPECS[kernel]
    first = next(v for v in VARIANTS[kernel] if v.backend == "reference")
    assert all(first.supports(g, FLOAT32) is None for g in spec.samples())
