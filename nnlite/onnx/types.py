"""Element types of a model's values, followed from node to node through ONNX's own schemas.

Kinds are ONNX's codes (``TensorProto.FLOAT``), so that half precision, which is computed in float32,
is still known for what the file says it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import onnx
from onnx import TensorProto

from nnlite.errors import ModelError

Option = onnx.defs.OpSchema.FormalParameterOption
Formals = tuple[tuple[str, str, frozenset[str], bool, bool], ...]

_SPECIAL: dict[int, str] = {TensorProto.FLOAT: "float", TensorProto.DOUBLE: "double"}
_NAMES: dict[int, str] = {code: name.lower() for name, code in TensorProto.DataType.items()} | _SPECIAL


def kind_name(kind: int) -> str:
    """ONNX's name in type constraints: float, double, int64."""
    return _NAMES.get(kind, f"type {kind}")


@lru_cache(maxsize=4096)
def formals(op_type: str, version: int) -> tuple[Formals, Formals]:
    """Inputs and outputs of an operator: (name, type variable, types, may be absent, homogeneous)."""
    schema = onnx.defs.get_schema(op_type, version, "")
    # A formal's own ``types`` say the same, but cannot be read in onnx 1.20.
    allowed = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    first, second = (
        tuple(
            (
                f.name,
                f.type_str,
                allowed.get(f.type_str, frozenset({f.type_str})),
                f.option == Option.Optional,
                bool(f.is_homogeneous),
            )
            for f in side
        )
        for side in (schema.inputs, schema.outputs)
    )
    return first, second


def check_kinds(op_type: str, version: int, given: Sequence[bool], kinds: Sequence[int | None]) -> None:
    """ModelError unless what must be ``given`` is, of types that the operator takes and that agree."""
    inputs, _ = formals(op_type, version)
    bound: dict[str, tuple[str, int]] = {}
    for i, (there, kind) in enumerate(zip(given, kinds, strict=True)):
        name, variable, types, optional, homogeneous = inputs[min(i, len(inputs) - 1)]
        if not there and not optional:
            raise ModelError(f"malformed: its input {name} is empty but must be given")
        if kind is None:
            continue
        if f"tensor({kind_name(kind)})" not in types:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
            raise ModelError(f"malformed: its input {name} must not be of type {dtype}")
        other, known = bound.setdefault(variable, (name, kind))
        if known != kind and homogeneous:
            raise ModelError(
                f"malformed: its inputs {other} and {name} are {kind_name(known)} and {kind_name(kind)} "
                "but must be of one type"
            )


def result_kinds(
    proto: onnx.NodeProto, version: int, kinds: Sequence[int | None], attributes: Mapping[str, Any]
) -> list[int | None]:
    """The types of the outputs, None where they cannot be told from those of the inputs."""
    inputs, outputs = formals(proto.op_type, version)
    bound: dict[str, int] = {}
    for i, kind in enumerate(kinds):
        if kind is not None:
            bound.setdefault(inputs[min(i, len(inputs) - 1)][1], kind)
    result: list[int | None] = []
    for i in range(len(proto.output)):
        _, variable, types, _, homogeneous = outputs[min(i, len(outputs) - 1)]
        if variable in bound and homogeneous:
            result.append(bound[variable])
        elif len(types) == 1:
            result.append(_code(next(iter(types))))
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


def _code(text: str) -> int | None:
    name = text.removeprefix("tensor(").removesuffix(")")
    return next((code for code, known in _NAMES.items() if known == name), None)
