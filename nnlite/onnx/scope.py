"""Names while a model is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nnlite.node import Value
from nnlite.onnx.proto import AttributeProto


@dataclass
class Scope:
    """Names as they are known at one place: in the graph, in a function's body or in a branch."""

    version: int
    outer: Scope | None = None
    """Whose names are seen too, from a branch but not from a function."""
    prefix: str = ""
    attributes: Mapping[str, AttributeProto] = field(default_factory=dict)
    """The attributes that a function was called with."""
    in_function: bool = False
    values: dict[str, Value | None] = field(default_factory=dict)

    def find(self, name: str) -> Value | None:
        """The value called ``name`` here or further out; KeyError when there is none."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        raise KeyError(name)
