"""ONNX's own definitions of operators by simpler ones, for operators that have no record.

Some are the same for every node. Others depend on what the node looks like (which optional inputs it has,
its attributes, element types): ONNX builds those for one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnlite.errors import ModelError
from nnlite.onnx.proto import AttributeProto, FunctionProto, NodeProto, TypeProto


def definition(
    proto: NodeProto,
    version: int,
    attributes: Mapping[str, AttributeProto],
    kinds: Sequence[int | None],
    ranks: Sequence[int | None],
) -> FunctionProto | None:
    """The function that says what ``proto`` computes in operator set ``version``; None when there is none.

    ``attributes`` are the node's, references to a function's replaced; ``kinds`` and ``ranks`` the
    element types and numbers of axes of the inputs, where known.
    """
    import onnx  # has the definitions, and few models need them

    try:
        schema: Any = onnx.defs.get_schema(proto.op_type, version, "")
    except onnx.defs.SchemaError:
        return None
    function = FunctionProto()
    if getattr(schema, "has_function", False):
        function.CopyFrom(schema.function_body)
        return function
    if not getattr(schema, "has_context_dependent_function", False):
        return None
    for name, kind in zip(proto.input, kinds, strict=True):
        if name and kind is None:
            raise ModelError(f"the element type of its input {name} is not known")
    plain = NodeProto()
    plain.CopyFrom(proto)
    del plain.attribute[:]
    plain.attribute.extend(attributes.values())
    types = [
        TypeProto()
        if kind is None
        else onnx.helper.make_tensor_type_proto(kind, None if rank is None else [None] * rank)
        for kind, rank in zip(kinds, ranks, strict=True)
    ]
    try:
        body = schema.get_context_dependent_function(
            plain.SerializeToString(), [entry.SerializeToString() for entry in types]
        )
    except RuntimeError as error:
        raise ModelError(f"ONNX does not define it for these inputs: {error}") from None
    function.ParseFromString(body)
    if not function.node:
        raise ModelError("ONNX does not define it for inputs of which the number of axes is not known")
    return function


def schema_defaults(op_type: str, version: int) -> dict[str, AttributeProto]:
    """What attributes are that a node does not give."""
    import onnx

    schema = onnx.defs.get_schema(op_type, version, "")
    defaults = {name: formal.default_value for name, formal in schema.attributes.items()}
    return {name: value for name, value in defaults.items() if value.type}
