"""ONNX in: a model file becomes a graph of the same ops that the rest of nnlite uses.

Right, or a clear refusal. Each op's record reads its own ONNX operators (``Op.reads``); what holds for
all of them is checked in ``reading``. Everything unsupported is collected, so that one error lists it all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnlite.errors import ModelError
from nnlite.graph import Graph, GraphModule
from nnlite.onnx.control import READERS as CONTROL
from nnlite.onnx.files import parse
from nnlite.onnx.origin import MALFORMED, Origin, Problem
from nnlite.onnx.proto import ModelProto
from nnlite.onnx.reading import OLDEST_OPSET, Reading
from nnlite.onnx.tensors import declared_sizes
from nnlite.ops import READERS

__all__ = [
    "MALFORMED",
    "OLDEST_OPSET",
    "READERS",
    "ModelError",
    "Origin",
    "Problem",
    "declared_sizes",
    "load",
    "read",
    "supported_operators",
]


def supported_operators() -> set[str]:
    """Every ONNX operator that is read, some of them only in part."""
    return {*READERS, *CONTROL, "Constant"}


def read(model: str | Path | bytes | ModelProto) -> tuple[GraphModule | None, Origin, list[Problem]]:
    """The model as a module, where it came from, and what is not supported (then there is no module).

    Raises ModelError when the file cannot be read at all.
    """
    source = parse(model)
    reading = Reading(source)
    proto = source.model.graph
    inputs, sizes = reading.read_leaves()
    reading.read_nodes(proto.node)
    if reading.problems:
        return None, reading.origin, reading.problems
    outputs = []
    for entry in proto.output:
        value = reading.value(entry.name)
        if value is None:
            raise ModelError(f"{source}: an output has no name")
        outputs.append(value)
    if not outputs:
        raise ModelError(f"{source}: the model has no outputs")
    graph = Graph(tuple(inputs), tuple(outputs), tuple(reading.nodes), reading.arrays)
    graph = graph.between(graph.inputs, graph.outputs)
    module = GraphModule(graph, input_sizes=sizes, origin=reading.origin)
    module.eval()
    reading.origin.forget()  # the parameters are copies
    return module, reading.origin, []


def load(
    model: str | Path | bytes | ModelProto,
    input_shapes: Mapping[str, Sequence[int | None]] | None = None,
) -> GraphModule:
    """Read an ONNX model (a path, its bytes or a ModelProto) as a module, in evaluation mode.

    Parameters are named as in the file. ``input_shapes`` replaces declared sizes (None: any).
    Raises ModelError when the file cannot be read, naming every node that is not supported.
    """
    module, _, problems = read(model)
    if module is None:
        listed = "\n  ".join(map(str, problems[:50]))
        more = f"\n  and {len(problems) - 50} more" if len(problems) > 50 else ""
        what = model if isinstance(model, (str, Path)) else "the model"
        raise ModelError(f"{what}: {len(problems)} nodes are not supported:\n  {listed}{more}")
    if input_shapes is not None:
        if unknown := set(input_shapes) - set(module.inputs):
            raise ModelError(f"input_shapes names {sorted(unknown)}; the inputs are {list(module.inputs)}")
        assert module.input_sizes is not None
        module.input_sizes = tuple(
            tuple(input_shapes[name]) if name in input_shapes else sizes
            for name, sizes in zip(module.inputs, module.input_sizes, strict=True)
        )
    return module
