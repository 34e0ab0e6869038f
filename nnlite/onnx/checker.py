"""What ONNX's own checker says of a model that is about to be written."""

from __future__ import annotations

from nnlite.errors import ModelError
from nnlite.onnx.proto import ModelProto


def check(model: ModelProto | str) -> None:
    """ModelError where the checker refuses ``model``, or the file that has this path."""
    from onnx import checker  # all of onnx: imported when something is written

    try:
        checker.check_model(model)
    except checker.ValidationError as error:
        raise ModelError(f"the ONNX checker refuses the model: {error}") from error
