"""The intermediate representation's atoms: a node is (op, inputs, params); values flow between nodes.

The autograd tape, graphs read from ONNX files and graphs traced from modules are all made of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nnlite.layout import Array

if TYPE_CHECKING:
    from nnlite.ops.record import ArrayType, Op


class Value:
    """What one node computes and others use, or a leaf (``node`` is None): an input or a parameter."""

    __slots__ = ("grad", "index", "name", "node", "requires_grad", "type", "version")

    def __init__(
        self,
        node: Node | None = None,
        index: int = 0,
        *,
        name: str = "",
        type: ArrayType | None = None,
        requires_grad: bool = False,
    ) -> None:
        self.node = node
        self.index = index
        self.name = name
        self.type = type
        """Shape and element type, where known."""
        self.requires_grad = requires_grad
        self.grad: Array | None = None
        """Accumulated gradient of a leaf of the tape."""
        self.version = 0
        """How often the leaf's array was changed in place."""

    def __repr__(self) -> str:
        return f"%{self.name or hex(id(self))}"


class Node:
    """One application of an op. Params are plain Python values; in a graph also Values, read at run time."""

    __slots__ = ("inputs", "name", "op", "outputs", "params")

    def __init__(
        self,
        op: Op,
        inputs: tuple[Value | None, ...],
        params: Mapping[str, Any],
        name: str = "",
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.params = params
        self.name = name
        self.outputs: tuple[Value, ...] = ()
        """Set in a graph. Empty on the tape: a reference back would keep arrays alive in a cycle."""

    def __repr__(self) -> str:
        params = "".join(f", {key}={value!r}" for key, value in self.params.items())
        results = ", ".join(map(repr, self.outputs))
        return f"{results} = {self.op.name}({', '.join(map(repr, self.inputs))}{params})"
