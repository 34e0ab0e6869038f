"""Writes what the native kernels must compute, for a program without Python: check_kernels.cpp.

Every native variant is called on every sample that it serves, but what it calls is a stand-in for the
extension that only notes the function and its arguments. So the cases follow from the registry, a new
variant is covered once it is registered, and the extension need not be built. What is written:

    FOLDER/functions.inc   one line per C++ function that was called; check_kernels.cpp includes it
    FOLDER/cases.bin       per call: function, geometry, inputs, expected outputs, tolerances

Weights that a variant has in a form of its own are written as they are: the program prepares them.

    python tests/csrc/export_cases.py FOLDER
"""

from __future__ import annotations

import struct
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

ABSENT, INPUT, OUTPUT, PREPARED = range(4)


class Stand:
    """Stands in for ``nnlite._native``: functions of any name, which note how they are called."""

    def __init__(self):
        self.functions: set[tuple[str, str]] = set()  # names, each with what stands beside it
        self.calls = []
        self.weights = None

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name.endswith("_prepared_size"):
            self.functions.add((name.removesuffix("_prepared_size"), "_WITH_PREPARATION"))
            return lambda *geometry: 1
        if name.endswith("_workspace"):
            if not name.endswith("_prepared_workspace"):
                self.functions.add((name.removesuffix("_workspace"), "_WITH_WORKSPACE"))
            return lambda *geometry: 0  # the program asks the C++ function itself
        if name.endswith("_prepare"):
            return self.prepare
        return lambda *arguments: self.calls.append((name, arguments))

    def prepare(self, *arguments):
        *_, weights, prepared = arguments
        self.weights = (prepared, weights)


stand = Stand()
sys.modules["nnlite._native"] = stand
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kernels"))

from kernel_harness import (  # noqa: E402 - after the stand-in is in place
    FLOAT32,
    cases,
    forms,
    outputs,
    random_inputs,
    reference,
    run,
)

from nnlite.geometry import describe  # noqa: E402
from nnlite.kernels import SPECS, VARIANTS, unavailable  # noqa: E402


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<I", len(raw)) + raw


def in_memory_order(array, like) -> bytes:
    """The elements of ``array`` in the order in which those of ``like`` lie in memory."""
    axes = sorted(range(like.ndim), key=lambda axis: -like.strides[axis])
    assert like.transpose(axes).flags.c_contiguous, f"kernels take dense arrays, not strides {like.strides}"
    return array.transpose(axes).tobytes()


def operand(name, array, expected, allowed) -> bytes:
    if array is None:
        return struct.pack("<I", ABSENT)
    if name not in expected:
        return struct.pack("<III", INPUT, array.itemsize, array.nbytes) + in_memory_order(array, array)
    # Expected floats in float64; integers must be met exactly.
    exact = expected[name].astype(np.float64 if array.dtype.kind == "f" else np.int32)
    known = (np.float32, np.int32, np.uint16, np.uint8)
    assert array.dtype in known, f"output {name}: teach check_kernels.cpp {array.dtype}"
    integer_size = 0 if array.dtype.kind == "f" else array.dtype.itemsize
    return struct.pack("<IIId", OUTPUT, array.size, integer_size, allowed[name]) + in_memory_order(
        exact, array
    )


def case(variant, geometry, absent, prepared, inputs, expected) -> bytes:
    spec = SPECS[variant.kernel]
    results = outputs(spec, geometry, FLOAT32, absent)
    stand.calls.clear()
    run(variant, geometry, inputs, results, prepared=prepared)
    [(function, arguments)] = stand.calls
    if not prepared and (function, "_WITH_WORKSPACE") not in stand.functions:
        stand.functions.add((function, ""))

    *arguments, workspace = arguments
    assert workspace is None
    names = {id(a): n for n, a in (inputs | results).items() if a is not None}
    allowed = {
        n: spec.tolerance(geometry) * spec.scale(n, inputs, expected[n])
        for n, a in results.items()
        if a is not None and a.dtype.kind == "f"
    } | {n: 0.0 for n, a in results.items() if a is not None and a.dtype.kind != "f"}
    geometry_numbers, operands = [], []  # a geometry comes as a tuple or number by number
    for argument in arguments:
        if isinstance(argument, tuple):
            geometry_numbers += argument
        elif isinstance(argument, int | float):
            geometry_numbers.append(argument)
        elif prepared and argument is stand.weights[0]:
            weights = stand.weights[1]
            head = struct.pack("<III", PREPARED, weights.itemsize, weights.nbytes)
            operands.append(head + in_memory_order(weights, weights))
        elif argument is None or id(argument) in names:
            operands.append(operand(names.get(id(argument)), argument, expected, allowed))
        else:
            raise TypeError(f"{variant} of {variant.kernel}: cannot export an argument of {type(argument)}")
    where = f"{describe(geometry)}, without {sorted(absent)}"
    head = text(function) + text(where)
    head += struct.pack(f"<I{len(geometry_numbers)}d", len(geometry_numbers), *geometry_numbers)
    return head + struct.pack("<I", len(operands)) + b"".join(operands)


def main(folder: Path) -> None:
    assert not (reason := unavailable("native")), reason
    count = 0
    with (folder / "cases.bin").open("wb") as file:
        for name, spec in SPECS.items():
            calls = defaultdict(list)  # what is called on one set of operands
            for variant in (v for v in VARIANTS[name] if v.backend == "native"):
                for prepared in forms(variant):
                    for geometry, absent in cases(spec, variant.preparation if prepared else variant):
                        calls[geometry, absent].append((variant, prepared))
            for (geometry, absent), serving in calls.items():
                inputs = random_inputs(spec, geometry)
                inputs = {n: None if n in absent else a for n, a in inputs.items()}
                expected = reference(spec, geometry, inputs)
                for variant, prepared in serving:
                    file.write(case(variant, geometry, absent, prepared, inputs, expected))
                    count += 1
    lines = [f"NNLITE_FUNCTION{beside}({name})\n" for name, beside in sorted(stand.functions)]
    (folder / "functions.inc").write_text("".join(lines))
    size = (folder / "cases.bin").stat().st_size >> 20
    print(f"{count} calls of {len(lines)} functions, {size} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
