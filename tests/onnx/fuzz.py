"""Coverage-guided fuzzing of the reader and the runner: mutated models must be read right or refused.

    pip install atheris
    python tests/onnx/fuzz.py CORPUS -max_total_time=3600 -timeout=20 -rss_limit_mb=3000

CORPUS is a folder; where it is empty, ONNX's own node tests are written to it first. Models are mutated as
messages (numbers, sizes, operators, versions, element types, edges), sometimes as bytes. Anything but an
NnliteError, more than 20 seconds or too much memory stops the run and leaves the model beside; what was
found so becomes a test in test_hostile_files.py.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from pathlib import Path

os.environ.update(NNLITE_MAX_TENSOR_BYTES=str(16 << 20), NNLITE_MAX_ITERATIONS="200", NNLITE_NUM_THREADS="1")
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

import atheris  # noqa: E402
import numpy as np  # noqa: E402
import onnx  # noqa: E402

with atheris.instrument_imports(include=["nnlite"]):
    from nnlite import onnx as nx
    from nnlite.errors import NnliteError
    from nnlite.graph.sequences import SEQUENCE
    from nnlite.onnx.inspect import concrete_sizes
    from nnlite.ops import READERS

INTEGERS = [0, 1, -1, 2, 3, 7, 100, 1 << 16, 1 << 31, -(1 << 31), 1 << 40, 1 << 62, -(1 << 63)]
FLOATS = [0.0, -1.0, 1e38, float("nan"), float("inf")]
OPERATORS = sorted(READERS)
SMALL = 3000


def run(data: bytes) -> None:
    """Read and run a model, eagerly and as a plan; only the project's own errors are answers."""
    try:
        module = nx.load(data)
        inputs = []
        for value, sizes in zip(module.graph.inputs, module.input_sizes or (), strict=False):
            shape = concrete_sizes(sizes or (), 8)
            if int(np.prod(shape, dtype=object)) > 20_000:
                return
            array = np.ones(shape, value.type.dtype if value.type not in (None, SEQUENCE) else np.float32)
            inputs.append([array, array] if value.type == SEQUENCE else array)
        module.run(inputs)
        module.compile().run(*inputs)
    except NnliteError:
        return


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """``data`` with one to three changes that leave it a message."""
    draw, model = random.Random(seed), onnx.ModelProto()
    try:
        model.ParseFromString(bytes(data))
    except Exception:
        return atheris.Mutate(data, most)
    if draw.random() < 0.15 or not model.graph.node:
        return atheris.Mutate(data, most)
    for _ in range(draw.randint(1, 3)):
        try:
            draw.choice(CHANGES)(model, draw)
        except (IndexError, ValueError, TypeError):
            continue  # there was nothing of the kind to change
    result = model.SerializeToString()
    return result if len(result) <= most else data


def _attribute(model: onnx.ModelProto, draw: random.Random) -> None:
    attribute = draw.choice([a for node in model.graph.node for a in node.attribute])
    if attribute.ints:
        attribute.ints[draw.randrange(len(attribute.ints))] = draw.choice(INTEGERS)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = draw.choice(INTEGERS)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = draw.choice(FLOATS)
    elif attribute.type == onnx.AttributeProto.STRING:
        attribute.s = bytes(draw.randrange(256) for _ in range(3))


def _tensor(model: onnx.ModelProto, draw: random.Random) -> None:
    tensor = draw.choice(model.graph.initializer)
    if draw.random() < 0.5 and tensor.dims:
        tensor.dims[draw.randrange(len(tensor.dims))] = draw.choice(INTEGERS)
        return
    raw = bytearray(tensor.raw_data)
    raw[draw.randrange(len(raw))] = draw.randrange(256)
    tensor.raw_data = bytes(raw)


def _input(model: onnx.ModelProto, draw: random.Random) -> None:
    kind = draw.choice(model.graph.input).type.tensor_type
    if draw.random() < 0.3:
        kind.elem_type = draw.randrange(24)
        return
    kind.shape.dim[draw.randrange(len(kind.shape.dim))].dim_value = draw.choice(INTEGERS[:8])


def _edge(model: onnx.ModelProto, draw: random.Random) -> None:
    node = draw.choice(model.graph.node)
    names = [*node.output, *(entry.name for entry in model.graph.input), ""]
    node.input[draw.randrange(len(node.input))] = draw.choice(names)


def _operator(model: onnx.ModelProto, draw: random.Random) -> None:
    draw.choice(model.graph.node).op_type = draw.choice(OPERATORS)


def _version(model: onnx.ModelProto, draw: random.Random) -> None:
    model.opset_import[0].version = draw.randint(1, onnx.defs.onnx_opset_version())


def _again(model: onnx.ModelProto, draw: random.Random) -> None:
    model.graph.node.add().CopyFrom(draw.choice(model.graph.node))


CHANGES = [_attribute, _attribute, _tensor, _tensor, _input, _edge, _operator, _version, _again]


def write_seeds(folder: Path) -> None:
    """ONNX's small node tests, where the folder holds nothing yet."""
    from onnx.backend.test.case.node import collect_testcases

    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        return
    for case in collect_testcases(None):
        data = case.model.SerializeToString()
        if len(data) < SMALL:
            (folder / case.name).write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    write_seeds(Path(sys.argv[1]))
    np.seterr(all="ignore")
    atheris.Setup([*sys.argv, f"-max_len={2 * SMALL}"], run, custom_mutator=mutated)
    atheris.Fuzz()
