"""What a model file holds, supported or not."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nnlite.errors import NnliteError
from nnlite.graph import GraphModule, infer_types, node_macs
from nnlite.graph.ir import Types
from nnlite.graph.plan import Precision
from nnlite.nn import Parameter
from nnlite.onnx.proto import TensorProto, ValueInfoProto
from nnlite.onnx.reader import MALFORMED, declared_sizes, load, read
from nnlite.ops import ArrayType

DEFAULT_SIDE = 224
CLASSES_KEY = "nnlite.classes"


def inspect(path: str | Path, size: int | None = None) -> dict[str, Any]:
    """Inputs, outputs, operators with counts, parameters, MACs, cut points, unsupported nodes.

    Open sizes are taken as batch 1 and ``size`` (224) pixels. Raises ModelError when the file cannot be
    read at all; what is only unsupported is listed.
    """
    module, origin, problems = read(path)
    proto = origin.outline
    counts = Counter(f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in proto.graph.node)
    initializers = {tensor.name for tensor in proto.graph.initializer}
    classes = origin.metadata.get(CLASSES_KEY)
    report: dict[str, Any] = {
        "file": str(path),
        "opset": next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), None),
        "producer": proto.producer_name,
        "inputs": [_entry(e) for e in proto.graph.input if e.name not in initializers],
        "outputs": [_entry(e) for e in proto.graph.output],
        "operators": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "problems": [
            {"op_type": p.op_type, "domain": p.domain, "node": p.node, "reason": p.reason} for p in problems
        ],
        "classes": json.loads(classes) if classes else None,
        "parameters": None,
        "buffers": None,
        "macs": None,
        "at": None,
        "cut_points": [],
        "note": None,
    }
    if module is not None:
        report["parameters"] = sum(p.size for p in module.parameters())
        report["buffers"] = sum(b.size for b in module.buffers())
        _add_costs(report, module, size or DEFAULT_SIDE)
    return report


def inspect_plan(
    path: str | Path, size: int | None = None, batch: int | None = None, precision: Precision = "fp32"
) -> dict[str, Any]:
    """The compiled plan of a model: every step with variant, time and rate, memory, and how exact it is.

    Open sizes are ``batch`` (1) and ``size`` (224) pixels; pictures are random, and for int8 ranges are
    measured on them: times are right, the difference is not that of real pictures. Raises ModelError where
    the model cannot be read, or has no plan because shapes depend on data.
    """
    module = load(path).freeze().eval()
    rng = np.random.default_rng(0)
    inputs = []
    for value, sizes in zip(module.graph.inputs, module.input_sizes or (), strict=True):
        shape = concrete_sizes(sizes, size or DEFAULT_SIDE)
        if batch is not None and sizes and sizes[0] is None:
            shape = (batch, *shape[1:])
        dtype = value.type.dtype if value.type else np.dtype(np.float32)
        inputs.append(rng.standard_normal(shape).astype(dtype))
    plan = module.compile(precision, inputs if precision == "int8" else ())
    steps = plan.profile(*inputs)
    differences = [
        float(np.abs(a - b).max(initial=0)) / max(float(np.abs(a).max(initial=0)), 1e-30)
        for a, b in zip(module.run(inputs), plan.run(*inputs), strict=True)
        if a.dtype.kind == "f"
    ]
    return {
        "file": str(path),
        "at": [list(array.shape) for array in inputs],
        "precision": precision,
        "nodes": len(module.graph.nodes),
        "steps": steps,
        "memory": asdict(plan.memory(*inputs)),
        "largest_relative_difference": max(differences, default=0.0),
    }


def _entry(entry: ValueInfoProto) -> dict[str, Any]:
    code = entry.type.tensor_type.elem_type
    kinds = TensorProto.DataType
    kind = kinds.Name(code).lower() if code in kinds.values() else f"type {code}"
    return {"name": entry.name, "type": kind, "shape": list(declared_sizes(entry))}


def _add_costs(report: dict[str, Any], module: GraphModule, side: int) -> None:
    shapes = [concrete_sizes(sizes, side) for sizes in module.input_sizes or ()]
    inputs = {
        value: ArrayType(shape, value.type.dtype if value.type else np.dtype(np.float32))
        for value, shape in zip(module.graph.inputs, shapes, strict=True)
    }
    try:
        types = infer_types(module.graph, inputs)
    except (NnliteError, NotImplementedError, *MALFORMED) as error:
        report["note"] = f"costs are not known for inputs {[list(s) for s in shapes]}: {error}"
        return
    report["at"] = [list(shape) for shape in shapes]
    report["macs"] = sum(node_macs(node, types) for node in module.graph.nodes)
    report["cut_points"] = _cut_points(module, types)


def concrete_sizes(sizes: tuple[int | None, ...], side: int = DEFAULT_SIDE) -> tuple[int, ...]:
    """Sizes to reckon with: declared ones, else batch 1, 3 channels, ``side`` pixels."""
    defaults = (1, 3, *[side] * (len(sizes) - 2))
    return tuple(d if s is None else s for s, d in zip(sizes, defaults, strict=False))


def _cut_points(module: GraphModule, types: Types) -> list[dict[str, Any]]:
    """The narrowest cut point of each run of equal sizes, with the work on either side."""
    before = 0
    macs: dict[Any, int] = {}
    for node in module.graph.nodes:
        before += node_macs(node, types)
        macs.update(dict.fromkeys(node.outputs, before))
    rows: list[dict[str, Any]] = []
    for value in module.graph.cut_points():
        after = module.graph.between([value], module.graph.outputs)
        trained = sum(module.leaf(v).size for v in after.arrays if isinstance(module.leaf(v), Parameter))
        row = {
            "name": value.name,
            "shape": list(types[value].shape),
            "bytes": int(np.prod(types[value].shape)) * types[value].dtype.itemsize,
            "macs_before": macs[value],
            "macs_after": before - macs[value],
            "parameters_after": trained,
        }
        # conv, norm and activation of one layer are cut points of one shape; the last says it all.
        if rows and rows[-1]["shape"] == row["shape"]:
            rows.pop()
        rows.append(row)
    return rows
