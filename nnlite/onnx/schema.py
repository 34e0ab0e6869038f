"""What ONNX itself says a node must look like: how many inputs, which attributes, of which types."""

from __future__ import annotations

from collections.abc import Mapping

from nnlite.errors import ModelError
from nnlite.onnx.proto import AttributeProto, NodeProto
from nnlite.onnx.schemas import Schema, schema

LISTS: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "Pad": (1,),
    "ReduceMax": (1,), "ReduceMean": (1,), "ReduceSum": (1,),
    "Reshape": (1,), "Slice": (1, 2, 3, 4), "Squeeze": (1,), "Unsqueeze": (1,),
}  # fmt: skip
"""Inputs that are lists of integers. Exporters write a list of one now and then as a number."""


def check_node(proto: NodeProto, opset: int, attributes: Mapping[str, AttributeProto]) -> None:
    """ModelError unless ``proto`` has the form that its operator's schema demands in ``opset``.

    ``attributes`` are the node's, references to a function's replaced. Those that the schema does not
    know are left to the op's reader, which says what it understands.
    """
    try:
        known = schema(proto.op_type, opset)
    except KeyError:
        raise ModelError(f"operator set {opset} has no such operator") from None
    if known.deprecated:
        raise ModelError(f"operator set {opset} no longer has this operator")
    _check_count("inputs", len(proto.input), *known.input_counts)
    _check_count("outputs", len(proto.output), *known.output_counts)
    _check_attributes(proto, attributes, known)


def _check_count(what: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        wanted = str(least) if least == most else f"at least {least}" if count < least else f"at most {most}"
        raise ModelError(f"malformed: it has {count} {what} but must have {wanted}")


def _check_attributes(proto: NodeProto, attributes: Mapping[str, AttributeProto], schema: Schema) -> None:
    for name, (_, required) in schema.attributes.items():
        if required and name not in attributes:
            raise ModelError(f"malformed: its attribute {name} is missing")
    names = [attribute.name for attribute in proto.attribute]
    for attribute in attributes.values():
        if names.count(attribute.name) > 1:
            raise ModelError(f"malformed: its attribute {attribute.name} is given twice")
        if attribute.ref_attr_name:
            raise ModelError(
                f"malformed: its attribute {attribute.name} refers to a function's, but is in none"
            )
        kind, _ = schema.attributes.get(attribute.name, (None, False))
        if kind is not None and attribute.type != AttributeProto.AttributeType.Value(kind):
            raise ModelError(f"malformed: its attribute {attribute.name} must be of type {kind}")
