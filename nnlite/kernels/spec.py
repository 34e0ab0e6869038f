"""Kernel specs and variants: one signature per kernel, the same in every backend.

A *spec* says what a kernel computes, on which operands, how exact it must be and what samples test
it. A *variant* is one implementation of a spec in one backend. Outputs and workspace come from the
caller: a variant never allocates its results, prints or decides. Tests and benchmarks iterate over
``SPECS`` and ``VARIANTS``, so that a new variant is tested by being registered.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnlite.geometry import Geometry, Shape
from nnlite.layout import Array

DType = np.dtype[Any]
Types = dict[str, tuple[Shape, DType]]
"""Operand name -> (logical shape, element type)."""


def _random_inputs(types: Types, rng: np.random.Generator) -> dict[str, Array]:
    return {name: rng.standard_normal(shape).astype(dtype) for name, (shape, dtype) in types.items()}


def _largest(name: str, inputs: Mapping[str, Array | None], expected: Array) -> float:
    return float(np.abs(expected).max(initial=0))


@dataclass(frozen=True)
class KernelSpec:
    """What a kernel computes. Called as ``run(geometry, *inputs, *outputs, workspace)``."""

    name: str
    formula: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: Callable[[Any, DType], Types]
    """Geometry and floating type -> shape and type of every operand."""
    flops: Callable[[Any], int]
    tolerance: Callable[[Any], float]
    """Geometry -> largest float32 error, relative to ``scale``."""
    samples: Callable[[], Iterable[Any]]
    """Geometries that every variant of this kernel is tested on."""
    optional: frozenset[str] = frozenset()
    """Operands that may be None: an absent input, or an output that nobody wants."""
    host: frozenset[str] = frozenset()
    """Operands that lie in the machine's memory on every device: a few numbers, handed to a GPU by value."""
    make_inputs: Callable[[Any, Types, np.random.Generator], dict[str, Array]] | None = None
    """Valid random inputs where plain normal numbers are not (indices, inverse deviations)."""

    scale: Callable[[str, Mapping[str, Array | None], Array], float] = _largest
    """Output's name, all operands and the float64 result -> the magnitude that its error is measured by:
    that of the result, unless the result is a small difference of large terms."""

    def random_inputs(self, geometry: Geometry, dtype: DType, rng: np.random.Generator) -> dict[str, Array]:
        """Random valid inputs of this kernel, C-ordered as NumPy makes them."""
        types = {n: t for n, t in self.types(geometry, dtype).items() if n in self.inputs}
        if self.make_inputs is not None:
            return self.make_inputs(geometry, types, rng)
        return _random_inputs(types, rng)


def _serves_all(geometry: Any, dtype: DType) -> str | None:
    return None


def _no_workspace(geometry: Any) -> int:
    return 0


@dataclass(frozen=True)
class Preparation:
    """A variant's own form of its weights, made once where they stay as they are.

    Packed, transformed, of another type: a pure function of geometry and weights into bytes that the
    caller allocates and keeps. What it makes is good for every geometry of the same ``key``, so that a
    plan prepares once for all batch sizes.
    """

    operand: str
    """The input whose place the prepared bytes take."""
    size: Callable[[Any], int]
    """Geometry -> length of the bytes, a uint8 array; aligned to 64 bytes they are read faster."""
    prepare: Callable[[Any, Array, Array], None]
    """``prepare(geometry, weights, prepared)`` fills the bytes."""
    run: Callable[..., None]
    """As the variant's ``run``, with the prepared bytes instead of the weights."""
    key: Callable[[Any], Hashable]
    """Geometry -> that of it which the bytes depend on: not the batch, not the size of the picture."""
    supports: Callable[[Any, DType], str | None]
    """As the variant's ``supports``; the choice may differ where preparing costs nothing."""
    workspace: Callable[[Any], int] = _no_workspace


@dataclass(frozen=True)
class Variant:
    """One implementation of a kernel. ``supports`` is pure: None, or the reason why it cannot serve."""

    kernel: str
    backend: str
    name: str
    run: Callable[..., None]
    supports: Callable[[Any, DType], str | None] = _serves_all
    workspace: Callable[[Any], int] = _no_workspace
    """Geometry -> bytes of scratch memory that ``run`` needs."""
    preparation: Preparation | None = None

    def __str__(self) -> str:
        return f"{self.backend}:{self.name}"


@dataclass
class Registry:
    """Specs by name and, for each, its variants in order of preference within their backend."""

    specs: dict[str, KernelSpec] = field(default_factory=dict)
    variants: dict[str, list[Variant]] = field(default_factory=dict)

    def add_spec(self, spec: KernelSpec) -> KernelSpec:
        """Enter a spec; an incomplete one is an error of the programmer."""
        if spec.name in self.specs:
            raise ValueError(f"kernel {spec.name} is registered twice")
        if not spec.formula:
            raise ValueError(f"kernel {spec.name} needs a formula")
        self.specs[spec.name] = spec
        self.variants[spec.name] = []
        return spec

    def add_variant(self, variant: Variant) -> Variant:
        """Enter a variant of a known kernel."""
        if variant.kernel not in self.specs:
            raise ValueError(f"variant {variant} is of an unknown kernel {variant.kernel}")
        if any(str(v) == str(variant) for v in self.variants[variant.kernel]):
            raise ValueError(f"variant {variant} of {variant.kernel} is registered twice")
        self.variants[variant.kernel].append(variant)
        return variant


REGISTRY = Registry()
SPECS: Mapping[str, KernelSpec] = REGISTRY.specs
VARIANTS: Mapping[str, list[Variant]] = REGISTRY.variants
