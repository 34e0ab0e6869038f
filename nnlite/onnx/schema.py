"""What ONNX itself says a node must look like: how many inputs, which attributes, of which types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx

from nnlite.errors import ModelError

LISTS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "Pad": (1,),
    "ReduceMax": (1,), "ReduceMean": (1,), "ReduceSum": (1,),
    "Reshape": (1,), "Slice": (1, 2, 3, 4), "Squeeze": (1,), "Unsqueeze": (1,),
}  # fmt: skip
"""Inputs that are lists of integers. Exporters write a list of one now and then as a number."""


def check_node(proto: onnx.NodeProto, opset: int, attributes: Mapping[str, onnx.AttributeProto]) -> None:
    """ModelError unless ``proto`` has the form that its operator's schema demands in ``opset``.

    ``attributes`` are the node's, references to a function's replaced. Those that the schema does not
    know are left to the op's reader, which says what it understands.
    """
    try:
        schema = onnx.defs.get_schema(proto.op_type, opset, "")
    except onnx.defs.SchemaError:
        raise ModelError(f"operator set {opset} has no such operator") from None
    if schema.deprecated:
        raise ModelError(f"operator set {opset} no longer has this operator")
    _check_count("inputs", len(proto.input), schema.min_input, schema.max_input)
    _check_count("outputs", len(proto.output), schema.min_output, schema.max_output)
    _check_attributes(proto, attributes, schema)


def _check_count(what: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        wanted = str(least) if least == most else f"at least {least}" if count < least else f"at most {most}"
        raise ModelError(f"malformed: it has {count} {what} but must have {wanted}")


def _check_attributes(
    proto: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto], schema: onnx.defs.OpSchema
) -> None:
    for name, formal in schema.attributes.items():
        if formal.required and name not in attributes:
            raise ModelError(f"malformed: its attribute {name} is missing")
    names = [attribute.name for attribute in proto.attribute]
    for attribute in attributes.values():
        if names.count(attribute.name) > 1:
            raise ModelError(f"malformed: its attribute {attribute.name} is given twice")
        if attribute.ref_attr_name:
            raise ModelError(
                f"malformed: its attribute {attribute.name} refers to a function's, but is in none"
            )
        known: Any = schema.attributes.get(attribute.name)
        if known is not None and attribute.type != known.type.value:
            raise ModelError(f"malformed: its attribute {attribute.name} must be of type {known.type.name}")
