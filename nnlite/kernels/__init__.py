"""Kernels: specs, their variants per backend, and the choice between them."""

from __future__ import annotations

from nnlite.kernels import catalog, catalog_lines, catalog_reduced, catalog_rows, reference
from nnlite.kernels.report import describe_backends, processor_name
from nnlite.kernels.select import (
    BACKENDS,
    Decision,
    Explanation,
    explain,
    launch,
    record,
    requested_backend,
    select,
    unavailable,
    use_backend,
)
from nnlite.kernels.spec import SPECS, VARIANTS, KernelSpec, Preparation, Variant

__all__ = [
    "BACKENDS",
    "SPECS",
    "VARIANTS",
    "Decision",
    "Explanation",
    "KernelSpec",
    "Preparation",
    "Variant",
    "catalog",
    "catalog_lines",
    "catalog_reduced",
    "catalog_rows",
    "describe_backends",
    "explain",
    "launch",
    "processor_name",
    "record",
    "reference",
    "requested_backend",
    "select",
    "unavailable",
    "use_backend",
]
