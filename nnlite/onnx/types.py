"""Element types of a model's values, followed from node to node through ONNX's own schemas.

Kinds are ONNX's codes (``TensorProto.FLOAT``), so that half precision, which is computed in float32,
is still known for what the file says it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnlite.errors import ModelError
from nnlite.onnx.proto import NodeProto, TensorProto
from nnlite.onnx.schemas import schema
from nnlite.ops.element_types import dtype_of

_NAMES: dict[int, str] = {code: name.lower() for name, code in TensorProto.DataType.items()}


def kind_name(kind: int) -> str:
    """ONNX's name in type constraints: float, double, int64."""
    return _NAMES.get(kind, f"type {kind}")


def check_kinds(op_type: str, version: int, given: Sequence[bool], kinds: Sequence[int | None]) -> None:
    """ModelError unless what must be ``given`` is, of types that the operator takes and that agree."""
    inputs = schema(op_type, version).inputs
    bound: dict[str, tuple[str, int]] = {}
    for i, (there, kind) in enumerate(zip(given, kinds, strict=True)):
        formal = inputs[min(i, len(inputs) - 1)]
        if not there and formal.kind != "?":
            raise ModelError(f"malformed: its input {formal.name} is empty but must be given")
        if kind is None:
            continue
        if kind_name(kind) not in formal.types:
            raise ModelError(f"malformed: its input {formal.name} must not be of type {dtype_of(kind)}")
        other, known = bound.setdefault(formal.variable, (formal.name, kind))
        if known != kind and formal.homogeneous:
            raise ModelError(
                f"malformed: its inputs {other} and {formal.name} are {kind_name(known)} and "
                f"{kind_name(kind)} but must be of one type"
            )


def result_kinds(
    proto: NodeProto, version: int, kinds: Sequence[int | None], attributes: Mapping[str, Any]
) -> list[int | None]:
    """The types of the outputs, None where they cannot be told from those of the inputs."""
    known = schema(proto.op_type, version)
    inputs, outputs = known.inputs, known.outputs
    bound: dict[str, int] = {}
    for i, kind in enumerate(kinds):
        if kind is not None:
            bound.setdefault(inputs[min(i, len(inputs) - 1)].variable, kind)
    result: list[int | None] = []
    for i in range(len(proto.output)):
        formal = outputs[min(i, len(outputs) - 1)]
        if formal.variable in bound and formal.homogeneous:
            result.append(bound[formal.variable])
        elif len(formal.types) == 1:
            result.append(_code(next(iter(formal.types))))
        else:
            named = _named_by_attribute(proto.op_type, attributes)
            # Without one, what was a quantised number has the type of its scale.
            result.append(kinds[1] if named is None and proto.op_type == "DequantizeLinear" else named)
    return result


NAMING = {
    "BitCast": "to", "Cast": "to", "DequantizeLinear": "output_dtype", "EyeLike": "dtype",
    "QuantizeLinear": "output_dtype",
}  # fmt: skip
"""Attributes that name the type of the result."""


def _named_by_attribute(op_type: str, attributes: Mapping[str, Any]) -> int | None:
    name = NAMING.get(op_type, "")
    if name in attributes:
        kind = attributes[name].i
        if attributes[name].s:  # until operator set 5 Cast named its type in words
            word = attributes[name].s.decode("utf-8", "replace").lower()
            kind = next((code for code, known in _NAMES.items() if known == word), 0)
        return kind if kind in TensorProto.DataType.values() else None
    if op_type == "QuantizeLinear":
        return TensorProto.UINT8
    if op_type == "ConstantOfShape":
        return attributes["value"].t.data_type if "value" in attributes else TensorProto.FLOAT
    return None


def _code(name: str) -> int | None:
    return next((code for code, known in _NAMES.items() if known == name), None)
