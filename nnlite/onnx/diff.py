"""What differs between two model files: tensors by value, nodes by what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nnlite.errors import ModelError
from nnlite.layout import Array
from nnlite.onnx.files import Source, parse
from nnlite.onnx.functions import graphs_of
from nnlite.onnx.proto import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
from nnlite.ops.element_types import name_of


def diff(first: str | Path, second: str | Path) -> dict[str, Any]:
    """What ``second`` has that ``first`` has not, lacks, or has otherwise.

    ``tensors`` lists those that changed, with the greatest change of an element and that change in
    relation to the greatest element; a tensor is known by its name, a node by its first result.
    Raises ModelError when a file cannot be read.
    """
    one, two = parse(first, whole=True), parse(second, whole=True)
    report: dict[str, Any] = {
        "first": str(first),
        "second": str(second),
        "tensors": _tensors(one, two),
        "nodes": _by_name(_nodes(one.model.graph), _nodes(two.model.graph), _node_change),
        "inputs": _by_name(_entries(one, "input"), _entries(two, "input"), _entry_change),
        "outputs": _by_name(_entries(one, "output"), _entries(two, "output"), _entry_change),
        "metadata": _by_name(_metadata(one), _metadata(two), lambda a, b: {"was": a, "is": b}),
    }
    opsets = [{o.domain or "ai.onnx": o.version for o in s.model.opset_import} for s in (one, two)]
    report["opset"] = None if opsets[0] == opsets[1] else {"was": opsets[0], "is": opsets[1]}
    parts = [report[part] for part in ("tensors", "nodes", "inputs", "outputs", "metadata")]
    same = report["opset"] is None and not any(
        part["added"] or part["removed"] or part["changed"] for part in parts
    )
    # Functions and whatever else the listing does not go into: equal messages are equal.
    report["same"] = same and _rest(one.model) == _rest(two.model)
    return report


def _by_name(first: dict[str, Any], second: dict[str, Any], change: Any) -> dict[str, Any]:
    both = [name for name in first if name in second]
    changed = [
        {"name": name, **change(first[name], second[name])} for name in both if first[name] != second[name]
    ]
    return {
        "same": len(both) - len(changed),
        "changed": changed,
        "added": [name for name in second if name not in first],
        "removed": [name for name in first if name not in second],
    }


def _metadata(source: Source) -> dict[str, Any]:
    return {entry.key: entry.value for entry in source.model.metadata_props}


# ------------------------------------------------------------------------------------------ tensors


def _stored(source: Source) -> dict[str, TensorProto]:
    """Every tensor of the main graph, in initializers and Constant nodes."""
    graph = source.model.graph
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            found.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return found


def _tensors(one: Source, two: Source) -> dict[str, Any]:
    first, second = _stored(one), _stored(two)
    changed, same = [], 0
    for name in first:
        if name not in second:
            continue
        if first[name] == second[name] and not first[name].external_data:
            same += 1
            continue
        change = _tensor_change(_array(one, first[name]), _array(two, second[name]))
        if change is None:
            same += 1
        else:
            changed.append({"name": name, **change})
    return {
        "same": same,
        "changed": changed,
        "added": [name for name in second if name not in first],
        "removed": [name for name in first if name not in second],
    }


def _array(source: Source, tensor: TensorProto) -> Array | None:
    """The tensor as an array; None for what holds no numbers."""
    try:
        return source.array(tensor)
    except ModelError:
        return None


def _tensor_change(a: Array | None, b: Array | None) -> dict[str, Any] | None:
    if a is None or b is None:
        return {"what": "not comparable"}
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return {
            "what": "shape or type",
            "was": f"{a.dtype}{list(a.shape)}",
            "is": f"{b.dtype}{list(b.shape)}",
        }
    if np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
        return None
    with np.errstate(all="ignore"):
        delta = np.abs(b.astype(np.float64) - a.astype(np.float64))
    greatest, scale = float(delta.max()), float(np.abs(a.astype(np.float64)).max())
    return {
        "what": "values",
        "elements": int((delta != 0).sum()),
        "of": a.size,
        "greatest": greatest,
        "relative": greatest / scale if scale else None,
    }


# -------------------------------------------------------------------------------------------- nodes


def _nodes(graph: GraphProto) -> dict[str, NodeProto]:
    """Nodes by their first result; those without one by their place."""
    return {
        next((name for name in node.output if name), f"node {index}"): node
        for index, node in enumerate(graph.node)
    }


def _node_change(a: NodeProto, b: NodeProto) -> dict[str, Any]:
    return {"parts": list(_node_parts(a, b)), "operator": b.op_type}


def _node_parts(a: NodeProto, b: NodeProto) -> Iterator[str]:
    if (a.op_type, a.domain) != (b.op_type, b.domain):
        yield f"operator {a.op_type} -> {b.op_type}"
    for part in ("input", "output", "name"):
        if getattr(a, part) != getattr(b, part):
            yield part
    first, second = ({item.name: item for item in node.attribute} for node in (a, b))
    for name in sorted({*first, *second}):
        if first.get(name) != second.get(name):
            yield f"attribute {name}"
    if len(graphs_of(a)) != len(graphs_of(b)):
        yield "graphs"


def _entries(source: Source, side: str) -> dict[str, ValueInfoProto]:
    return {entry.name: entry for entry in getattr(source.model.graph, side)}


def _entry_change(a: ValueInfoProto, b: ValueInfoProto) -> dict[str, Any]:
    return {"was": _described(a), "is": _described(b)}


def _described(entry: ValueInfoProto) -> str:
    kind = entry.type.tensor_type
    sizes = [dim.dim_param or (dim.dim_value if dim.HasField("dim_value") else "?") for dim in kind.shape.dim]
    return f"{name_of(kind.elem_type) or '?'}{sizes}"


def _rest(model: ModelProto) -> list[bytes]:
    """What the listing says nothing of: functions and sparse tensors."""
    parts = [*model.functions, *model.graph.sparse_initializer]
    return [part.SerializeToString(deterministic=True) for part in parts]
