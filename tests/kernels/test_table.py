"""Every kernel x every variant of every available backend x every sample, against the float64 reference."""

from __future__ import annotations

import pytest
from kernel_harness import FLOAT32, FLOAT64, failures, optional_cases

from nnlite.kernels import BACKENDS, SPECS, VARIANTS, unavailable


def rows():
    return list(_rows())


def _rows():
    for backend in BACKENDS:
        unavailable(backend)  # importing a backend registers its variants
    for name, variants in VARIANTS.items():
        for variant in variants:
            yield pytest.param(name, variant, id=f"{name}-{variant}")


@pytest.mark.parametrize(("kernel", "variant"), rows())
def test_variant(kernel, variant):
    if reason := unavailable(variant.backend):
        pytest.skip(f"{variant.backend}: {reason}")
    spec = SPECS[kernel]
    served = [g for g in spec.samples() if not variant.supports(g, FLOAT32)]
    assert served, "no sample tests this variant"
    found = [f for g in served for absent in optional_cases(spec) for f in failures(variant, g, absent)]
    assert not found, f"{len(found)} failures:\n" + "\n".join(found[:20])


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
    if reason := unavailable(variant.backend):
        pytest.skip(f"{variant.backend}: {reason}")
    spec = SPECS[kernel]
    served = [g for g in spec.samples() if not variant.supports(g, FLOAT64)]
    found = [
        f
        for g in served[::3]  # types differ in what was compiled, not in how a geometry is cut
        for absent in optional_cases(spec)
        for f in failures(variant, g, absent, dtype=FLOAT64)
    ]
    assert not found, f"{len(found)} failures:\n" + "\n".join(found[:20])


@pytest.mark.parametrize("kernel", SPECS)
def test_every_kernel_has_a_reference_that_serves_all(kernel):
    spec = SPECS[kernel]
    first = next(v for v in VARIANTS[kernel] if v.backend == "reference")
    assert all(first.supports(g, FLOAT32) is None for g in spec.samples())
