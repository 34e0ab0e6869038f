"""What reading a model leaves behind: where a graph came from, and what could not be read."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from nnlite.errors import ModelError
from nnlite.graph.module import MALFORMED
from nnlite.layout import Array

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

    outline: onnx.ModelProto
    """The file's model, of large tensors perhaps without the numbers."""
    constants: dict[str, int] = field(default_factory=dict)
    """Name of a tensor that a Constant node holds -> index of that node."""
    external: dict[str, Array] = field(default_factory=dict)
    """Tensors that lie in other files, as they are there."""
    data: bytes | None = None
    """The file's bytes."""

    @property
    def model(self) -> onnx.ModelProto:
        """The whole model."""
        model = onnx.ModelProto()
        if self.data is None:
            model.CopyFrom(self.outline)
        else:
            try:
                model.ParseFromString(self.data)
            except DecodeError:
                raise ModelError(
                    f"the model's {len(self.data)} bytes are more than one message holds; store its tensors "
                    "in other files (onnx.save with save_as_external_data) to write it back"
                ) from None
        return model

    @property
    def metadata(self) -> dict[str, str]:
        """The file's ``metadata_props``."""
        return {entry.key: entry.value for entry in self.outline.metadata_props}
