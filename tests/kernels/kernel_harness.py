"""Running one kernel variant on one geometry against the float64 reference.

As a program it checks every variant of a backend on each n-th sample, with every operand ending at the
edge of a page that may not be touched: a kernel that reads or writes past an array dies at once.

    python tests/kernels/kernel_harness.py native 5
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from nnlite.geometry import describe
from nnlite.kernels import SPECS, VARIANTS, unavailable
from nnlite.kernels.spec import KernelSpec, Preparation, Variant
from nnlite.layout import channels_last

FLOAT16, FLOAT32, FLOAT64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)


def sentinel(dtype):
    """What outputs hold before the call."""
    return np.nan if dtype.kind == "f" else -77_777_777 if dtype.itemsize == 4 else 77


Operands = dict[str, np.ndarray | None]
Allocate = Callable[[tuple[int, ...], np.dtype], np.ndarray]


def plain(shape, dtype):
    return channels_last(np.empty(shape, dtype))


def guarded(shape, dtype):
    """A channels-last array that ends where a page begins that may not be touched."""
    size = int(np.prod(shape)) * dtype.itemsize
    pages = -(-size // mmap.PAGESIZE)
    memory = mmap.mmap(-1, (pages + 1) * mmap.PAGESIZE)
    end = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + pages * mmap.PAGESIZE
    no_access = 0
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(end), mmap.PAGESIZE, no_access) == 0
    raw = np.frombuffer(memory, np.uint8, size, pages * mmap.PAGESIZE - size).view(dtype)
    if len(shape) <= 2:
        return raw.reshape(shape)
    return np.moveaxis(raw.reshape((shape[0], *shape[2:], shape[1])), -1, 1)


def optional_cases(spec: KernelSpec) -> list[frozenset[str]]:
    """Sets of operands to leave out: none, each optional one alone, all of them."""
    found = [frozenset(), *(frozenset({name}) for name in sorted(spec.optional))]
    # A kernel without any output has nothing to be tested on.
    if len(spec.optional) > 1 and set(spec.outputs) - spec.optional:
        found.append(spec.optional)
    return found


def cases(spec: KernelSpec, form: Variant | Preparation, dtype=FLOAT32) -> Iterator[tuple]:
    """Every sample that ``form`` serves, with all operands and without one of the optional sets in turn."""
    whole, *parts = optional_cases(spec)
    for index, geometry in enumerate(spec.samples()):
        if not form.supports(geometry, dtype):
            yield geometry, whole
            if parts:
                yield geometry, parts[index % len(parts)]


def forms(variant: Variant) -> tuple[bool, ...]:
    """Whether weights are prepared: never, or not and then so."""
    return (False,) if variant.preparation is None else (False, True)


def random_inputs(spec: KernelSpec, geometry, seed: int = 0, dtype=FLOAT32) -> Operands:
    """Inputs of ``dtype``, channels-last."""
    inputs = spec.random_inputs(geometry, FLOAT64, np.random.default_rng(seed))
    return {n: channels_last(a.astype(dtype) if a.dtype.kind == "f" else a) for n, a in inputs.items()}


def outputs(spec: KernelSpec, geometry, dtype, absent=frozenset(), allocate: Allocate = plain) -> Operands:
    """Outputs full of NaN, or of a sentinel where they hold integers."""
    types = spec.types(geometry, dtype)
    made: Operands = {}
    for name in spec.outputs:
        made[name] = None if name in absent else allocate(*types[name])
        if made[name] is not None:
            made[name][...] = sentinel(made[name].dtype)
    return made


def scratch(size: int, allocate: Allocate = plain) -> np.ndarray | None:
    """``size`` bytes that read as NaN."""
    if not size:
        return None
    memory = allocate((size,), np.dtype(np.uint8))
    memory[...] = 255
    return memory


def run(
    variant: Variant,
    geometry,
    inputs: Operands,
    results: Operands,
    allocate: Allocate = plain,
    prepared: bool = False,
) -> None:
    form = variant.preparation if prepared else variant
    if prepared:
        weights = inputs[form.operand]
        inputs = inputs | {form.operand: scratch(form.size(geometry), allocate)}
        form.prepare(geometry, weights, inputs[form.operand])
    spec = SPECS[variant.kernel]
    operands = [*(inputs[n] for n in spec.inputs), *(results[n] for n in spec.outputs)]
    form.run(geometry, *operands, scratch(form.workspace(geometry), allocate))


def reference(spec: KernelSpec, geometry, inputs: Operands) -> Operands:
    """What the float64 reference makes of the same inputs, all outputs."""
    variant = next(v for v in VARIANTS[spec.name] if v.backend == "reference")
    exact = {
        n: a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for n, a in inputs.items()
    }
    results = outputs(spec, geometry, FLOAT64)
    run(variant, geometry, exact, results)
    return results


def tolerance_in(dtype, spec: KernelSpec, geometry) -> float:
    """The largest error, relative to the scale, of results of ``dtype``."""
    tolerance = spec.tolerance(geometry)  # float32's
    if dtype == FLOAT16:
        return tolerance + 2.0**-11  # sums are float32's, and the result is rounded
    # In float64 the reference is no more exact than the variant: twice as much.
    return tolerance if dtype == FLOAT32 else tolerance * 2 * 2.0**-29


def failures(
    variant: Variant,
    geometry,
    absent: frozenset[str],
    dtype=FLOAT32,
    prepared: bool = False,
    allocate: Allocate = plain,
) -> list[str]:
    """What is wrong with ``variant`` on ``geometry``: empty when nothing is."""
    spec = SPECS[variant.kernel]
    tolerance = tolerance_in(dtype, spec, geometry)
    inputs: Operands = {}
    for name, array in random_inputs(spec, geometry, dtype=dtype).items():
        inputs[name] = None if name in absent else allocate(array.shape, array.dtype)
        if inputs[name] is not None:
            inputs[name][...] = array
    before = {n: None if a is None else a.copy() for n, a in inputs.items()}
    results = outputs(spec, geometry, dtype, absent, allocate)
    run(variant, geometry, inputs, results, allocate, prepared)

    expected = reference(spec, geometry, inputs)
    where = f"{describe(geometry)}, without {sorted(absent)}: "
    found = [
        f"{where}input {n} was written to"
        for n, a in inputs.items()
        if a is not None and not np.array_equal(a, before[n])
    ]
    for name, result in results.items():
        if result is None:
            continue
        if result.dtype.kind != "f":
            if not np.array_equal(result, expected[name]):
                found.append(f"{where}{name} differs in {np.sum(result != expected[name])} places")
            continue
        error = float(np.abs(result - expected[name]).max(initial=0))
        allowed = tolerance * spec.scale(name, inputs, expected[name])
        if not error <= allowed:  # a NaN is not
            found.append(f"{where}{name} is off by {error:.3g}, allowed {allowed:.3g}")
    return found


def check_table(backend: str, every: int, allocate: Allocate) -> tuple[int, list[str]]:
    """Checks each ``every``-th sample of each variant of ``backend``; how many, and what is wrong."""
    assert not (reason := unavailable(backend)), reason
    checked, found = 0, []
    for name, spec in SPECS.items():
        for variant in (v for v in VARIANTS[name] if v.backend == backend):
            for prepared in forms(variant):
                form = variant.preparation if prepared else variant
                for geometry, absent in islice(cases(spec, form), 0, None, every):
                    checked += 1
                    wrong = failures(variant, geometry, absent, FLOAT32, prepared, allocate)
                    found += [f"{name} {variant}: {f}" for f in wrong]
    return checked, found


if __name__ == "__main__":
    count, wrong = check_table(sys.argv[1], int(sys.argv[2]), guarded)
    print(f"{count} checked")
    sys.exit("\n".join(wrong) or None)
