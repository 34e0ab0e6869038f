"""Writes what the native kernels must compute, for a program without Python: check_kernels.cpp.

Every native variant is called on every sample that it serves, but what it calls is a stand-in for the
extension that only notes the function and its arguments. So the cases follow from the registry, a new
variant is covered once it is registered, and the extension need not be built. What is written:

    FOLDER/functions.inc   one line per C++ function that was called; check_kernels.cpp includes it
    FOLDER/cases.bin       per call: function, geometry, inputs, expected outputs, tolerances

    python tests/csrc/export_cases.py FOLDER
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np

ABSENT, INPUT, OUTPUT = range(3)


class Stand:
    """Stands in for ``nnlite._native``: functions of any name, which note how they are called."""

    def __init__(self):
        self.functions: dict[str, bool] = {}  # name -> whether it has a workspace
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name.endswith("_workspace"):
            self.functions[name.removesuffix("_workspace")] = True
            return lambda *geometry: 0  # the program asks the C++ function itself
        return lambda *arguments: self.calls.append((name, arguments))


stand = Stand()
sys.modules["nnlite._native"] = stand
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "kernels"))

from kernel_harness import (  # noqa: E402 - after the stand-in is in place
    FLOAT32,
    optional_cases,
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
        return struct.pack("<II", INPUT, array.nbytes) + in_memory_order(array, array)
    # Expected floats in float64; integers must be met exactly.
    exact = expected[name].astype(np.float64 if array.dtype.kind == "f" else np.int32)
    assert array.dtype in (np.float32, np.int32), f"output {name}: teach check_kernels.cpp {array.dtype}"
    is_float = int(array.dtype.kind == "f")
    return struct.pack("<IIId", OUTPUT, array.size, is_float, allowed[name]) + in_memory_order(exact, array)


def case(variant, geometry, inputs, absent, expected) -> bytes:
    spec = SPECS[variant.kernel]
    inputs = {n: None if n in absent else a for n, a in inputs.items()}
    results = outputs(spec, geometry, FLOAT32, absent)
    stand.calls.clear()
    run(variant, geometry, inputs, results)
    [(function, arguments)] = stand.calls
    stand.functions.setdefault(function, False)

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
            variants = [v for v in VARIANTS[name] if v.backend == "native"]
            for geometry in spec.samples():
                serving = [v for v in variants if not v.supports(geometry, FLOAT32)]
                for absent in optional_cases(spec) if serving else ():
                    inputs = random_inputs(spec, geometry)
                    given = {n: None if n in absent else a for n, a in inputs.items()}
                    expected = reference(spec, geometry, given)
                    for variant in serving:
                        file.write(case(variant, geometry, inputs, absent, expected))
                        count += 1
    lines = [f"NNLITE_FUNCTION{'_WITH_WORKSPACE' * has}({name})\n" for name, has in stand.functions.items()]
    (folder / "functions.inc").write_text("".join(lines))
    size = (folder / "cases.bin").stat().st_size >> 20
    print(f"{count} calls of {len(lines)} functions, {size} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
