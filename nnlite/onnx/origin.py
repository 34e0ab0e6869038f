"""What reading a model leaves behind: where a graph came from, and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnlite.graph.module import MALFORMED
from nnlite.layout import Array
from nnlite.onnx.content import Content, forget
from nnlite.onnx.proto import ModelProto

__all__ = ["MALFORMED", "Origin", "Problem"]


@dataclass(frozen=True)
class Problem:
    """One node that cannot be read, and why."""

    op_type: str
    domain: str
    node: str
    reason: str

    def __str__(self) -> str:
        operator = f"{self.domain}.{self.op_type}" if self.domain else self.op_type
        return f"{operator} ({self.node}): {self.reason}"


@dataclass
class Origin:
    """What a graph was read from, kept untouched for writing it back."""

    outline: ModelProto
    """The file's model, of large tensors perhaps without the numbers."""
    constants: dict[str, int] = field(default_factory=dict)
    """Name of a tensor that a Constant node holds -> index of that node."""
    external: dict[str, Array] = field(default_factory=dict)
    """Tensors that lie in other files, as they are there."""
    data: Content | None = None
    """The file's bytes."""
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name of a tensor whose numbers the outline lacks -> from where to where ``data`` holds them."""

    def forget(self) -> None:
        """Give back the memory of a mapped file's pages."""
        forget(self.data)

    @property
    def metadata(self) -> dict[str, str]:
        """The file's ``metadata_props``."""
        return {entry.key: entry.value for entry in self.outline.metadata_props}
